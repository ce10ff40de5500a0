//! All layers of this store: `layers/<id>/{fs,meta.json}`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::snapshots::files::{self, Trash};

const META: &str = "meta.json";
const TREE: &str = "fs";

/// What `meta.json` says of a layer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LayerMeta {
    /// Digest of its plain tar, once that is known.
    pub diff_id: Option<String>,
    /// Bytes of its files, holes included and names of one file counted once; once that is known.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Its tar has no member.
    #[serde(default)]
    pub empty: bool,
}

/// The layers, by id and by diff id. The files are the truth; what is in memory was read from them.
#[derive(Debug)]
pub struct Shelf {
    directory: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    layers: HashMap<String, LayerMeta>,
    by_diff_id: HashMap<String, String>,
}

impl Shelf {
    /// Reads what is there; what was not finished goes to the trash.
    pub fn open(directory: PathBuf, trash: &Trash) -> Result<Self> {
        files::make_directory(&directory)?;
        let shelf = Self {
            directory,
            known: Mutex::default(),
        };
        for id in files::entries(&shelf.directory)? {
            let place = shelf.directory.join(&id);
            match files::read_json::<LayerMeta>(&place.join(META)) {
                Ok(meta) if !id.starts_with('.') && place.join(TREE).is_dir() => {
                    shelf.known().insert(&id, meta);
                }
                _ => trash.throw(&place)?,
            }
        }
        Ok(shelf)
    }

    /// The id of a layer that is unpacked from a tar.
    pub fn id_of(diff_id: &str) -> String {
        diff_id.replace(':', "-")
    }

    /// The layer with this diff id, if it is here.
    pub fn find(&self, diff_id: &str) -> Option<String> {
        self.known().by_diff_id.get(diff_id).cloned()
    }

    /// What is known of the layer with this diff id, if it is here.
    pub fn meta_of(&self, diff_id: &str) -> Option<LayerMeta> {
        let known = self.known();
        let id = known.by_diff_id.get(diff_id)?;
        known.layers.get(id).cloned()
    }

    /// Where a layer's tree is.
    pub fn tree(&self, id: &str) -> PathBuf {
        self.directory.join(id).join(TREE)
    }

    /// Whether a layer is here.
    pub fn contains(&self, id: &str) -> bool {
        self.known().layers.contains_key(id)
    }

    /// A place for a layer in the making, with its empty tree.
    pub fn draft(&self) -> Result<Draft> {
        let place = self
            .directory
            .join(format!(".tmp-{}", files::random_name()?));
        files::make_directory(&place)?;
        let meta = LayerMeta::default();
        Ok(Draft { place, meta })
    }

    /// Gives a finished draft its name. The caller has synced the file system; it syncs
    /// [`Self::directory`] after.
    pub fn publish(&self, draft: Draft, id: &str) -> Result<()> {
        files::rename_new(&draft.place, &self.directory.join(id))?;
        self.known().insert(id, draft.meta);
        Ok(())
    }

    /// Remembers what packing a layer told.
    pub fn describe(&self, id: &str, meta: LayerMeta) -> Result<()> {
        files::replace_json(&self.directory.join(id).join(META), &meta)?;
        self.known().insert(id, meta);
        Ok(())
    }

    /// Gives a draft without a tree its name. Until [`Self::fill`] it is no layer: an open drops it.
    pub fn place(&self, draft: &Draft, id: &str) -> Result<()> {
        files::rename_new(&draft.place, &self.directory.join(id))
    }

    /// Moves an existing tree into a placed layer, in one step: before it the tree is whole where it
    /// was, after it the layer is whole. The caller syncs the layer's directory.
    pub fn fill(&self, draft: Draft, id: &str, from: &Path) -> Result<()> {
        files::rename_new(from, &self.tree(id))?;
        self.known().insert(id, draft.meta);
        Ok(())
    }

    /// Throws away a layer.
    pub fn remove(&self, id: &str, trash: &Trash) -> Result<()> {
        self.known().remove(id);
        trash.throw(&self.directory.join(id))
    }

    /// All ids.
    pub fn ids(&self) -> HashSet<String> {
        self.known().layers.keys().cloned().collect()
    }

    /// The directory of all layers.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn insert(&mut self, id: &str, meta: LayerMeta) {
        if let Some(diff_id) = &meta.diff_id {
            self.by_diff_id
                .entry(diff_id.clone())
                .or_insert_with(|| id.to_owned());
        }
        self.layers.insert(id.to_owned(), meta);
    }

    fn remove(&mut self, id: &str) {
        self.layers.remove(id);
        self.by_diff_id.retain(|_, layer| layer != id);
    }
}

/// A layer in the making.
#[derive(Debug)]
pub struct Draft {
    place: PathBuf,
    meta: LayerMeta,
}

impl Draft {
    /// Makes an empty tree, to unpack into.
    pub fn make_tree(&self) -> Result<PathBuf> {
        let tree = self.place.join(TREE);
        fs::create_dir(&tree).map_err(files::failed("make", &tree))?;
        files::set_mode(&tree, 0o755)?;
        Ok(tree)
    }

    /// Writes what is to be known of the layer.
    pub fn describe(&mut self, meta: LayerMeta) -> Result<()> {
        self.meta = meta;
        files::write_json(&self.place.join(META), &self.meta).map(drop)
    }

    /// What is known of the layer.
    pub fn meta(&self) -> &LayerMeta {
        &self.meta
    }

    /// Gives up.
    pub fn discard(self, trash: &Trash) -> Result<()> {
        trash.throw(&self.place)
    }
}
