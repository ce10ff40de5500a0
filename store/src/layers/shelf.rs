//! All layers of this store: `layers/<id>/{meta.json,image.erofs,fs}`.
//!
//! `fs` is the layer's tree: the tree itself in the directory form, the place where `image.erofs` is
//! mounted in the image form. A mount is made when the tree is asked for, kept while anything is built
//! on the layer, and found again by a store that was killed.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Result, StoreError};
use crate::layers::apply::{Applier, check_space};
use crate::layers::decompress::Limits;
use crate::layers::erofs::ImageWriter;
use crate::layers::form::Form;
use crate::layers::making::{Made, Making};
use crate::layers::mounts;
use crate::layers::root::Root;
use crate::layers::usage::Usage;
use crate::locks::Mutex;
use crate::metrics::METRICS;
use crate::snapshots::files::{self, Trash};

const META: &str = "meta.json";
/// The tree of a layer, or where its image is mounted.
pub(crate) const TREE: &str = "fs";
const IMAGE: &str = "image.erofs";

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
    /// The chain id that it belongs to, when it has directories whose attributes are those of the
    /// layers below: then it is no other image's layer.
    #[serde(default)]
    pub chain: Option<String>,
    /// Its tar does not describe the root directory.
    #[serde(default)]
    pub rootless: bool,
    /// It is kept as an image.
    #[serde(default)]
    pub image: bool,
}

/// The layers, by id and by diff id. The files are the truth; what is in memory was read from them.
#[derive(Debug)]
pub struct Shelf {
    directory: PathBuf,
    form: Kept,
    known: Mutex<Known>,
    mounted: Mutex<HashMap<String, Instant>>,
}

/// The form of new layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Image,
    Tree,
}

#[derive(Debug, Default)]
struct Known {
    layers: HashMap<String, LayerMeta>,
    by_diff_id: HashMap<String, String>,
    by_chain: HashMap<String, String>,
    usage: HashMap<String, Usage>,
}

impl Shelf {
    /// Reads what is there; what was not finished goes to the trash.
    pub fn open(directory: PathBuf, form: Form, trash: &Trash) -> Result<Self> {
        files::make_directory(&directory)?;
        files::spread(&directory)?;
        let shelf = Self {
            form: choose(form, &directory)?,
            directory,
            known: Mutex::new("layers", Known::default()),
            mounted: Mutex::new("mounts", HashMap::new()),
        };
        for id in files::entries(&shelf.directory)? {
            let place = shelf.directory.join(&id);
            match files::read_json::<LayerMeta>(&place.join(META)) {
                Ok(meta) if !id.starts_with('.') && is_whole(&place, meta.image) => {
                    shelf.known().insert(&id, meta);
                }
                _ => trash.throw(&place)?,
            }
        }
        Ok(shelf)
    }

    /// The id of a layer that is unpacked from a tar: of the tar, or of the chain that it is part of.
    pub fn id_of(meta: &LayerMeta) -> Option<String> {
        match (&meta.chain, &meta.diff_id) {
            (Some(chain), _) => Some(Self::id_in(chain)),
            (None, Some(diff_id)) => Some(diff_id.replace(':', "-")),
            (None, None) => None,
        }
    }

    /// The id of a layer that is no other image's: of the chain that it is part of.
    pub fn id_in(chain: &str) -> String {
        format!("chain-{}", chain.replace(':', "-"))
    }

    /// The layer with this diff id at this place of a stack, if it is here.
    pub fn find(&self, diff_id: &str, chain: &str) -> Option<String> {
        let known = self.known();
        let shared = known.by_diff_id.get(diff_id);
        shared.or_else(|| known.by_chain.get(chain)).cloned()
    }

    /// Whether a layer with this diff id is here that fits into any stack.
    pub fn has(&self, diff_id: &str) -> bool {
        self.known().by_diff_id.contains_key(diff_id)
    }

    /// What is known of a layer, if it is here.
    pub fn meta(&self, id: &str) -> Option<LayerMeta> {
        self.known().layers.get(id).cloned()
    }

    /// What is known of any layer with this diff id, if one is here.
    pub fn meta_of(&self, diff_id: &str) -> Option<LayerMeta> {
        let known = self.known();
        let id = known.by_diff_id.get(diff_id).cloned();
        let like = || {
            let found = |meta: &&LayerMeta| meta.diff_id.as_deref() == Some(diff_id);
            known.layers.values().find(found).cloned()
        };
        id.and_then(|id| known.layers.get(&id).cloned())
            .or_else(like)
    }

    /// What the file of a layer says.
    pub(crate) fn read(&self, id: &str) -> Result<LayerMeta> {
        files::read_json(&self.directory.join(id).join(META))
    }

    /// Whether a layer's tree, or its image, is on the disk.
    pub(crate) fn is_whole(&self, id: &str) -> bool {
        let is_image = self.meta(id).is_some_and(|meta| meta.image);
        is_whole(&self.directory.join(id), is_image)
    }

    /// A layer's tree; of an image, the place where it is mounted from now on.
    pub fn tree(&self, id: &str) -> Result<PathBuf> {
        let tree = self.directory.join(id).join(TREE);
        let mut mounted = self.mounted();
        if !mounted.contains_key(id) {
            if !self.meta(id).is_some_and(|meta| meta.image) {
                return Ok(tree);
            }
            if !mounts::is_attached(&tree)? {
                mounts::attach(&self.directory.join(id).join(IMAGE), &tree)?;
            }
            METRICS.mounts.inc();
        }
        mounted.insert(id.to_owned(), Instant::now());
        Ok(tree)
    }

    /// Whether a layer is here.
    pub fn contains(&self, id: &str) -> bool {
        self.known().layers.contains_key(id)
    }

    /// What a layer takes, as `count` says, once: layers do not change.
    pub fn usage_or(&self, id: &str, count: impl FnOnce() -> Result<Usage>) -> Result<Usage> {
        if let Some(usage) = self.known().usage.get(id) {
            return Ok(*usage);
        }
        let mut usage = count()?;
        if let Some(bytes) = self.image_bytes(id) {
            usage.bytes = bytes;
        }
        self.known().usage.insert(id.to_owned(), usage);
        Ok(usage)
    }

    /// Bytes that a layer takes on the disk, when it is an image: those of one file.
    pub fn image_bytes(&self, id: &str) -> Option<u64> {
        let image = fs::symlink_metadata(self.directory.join(id).join(IMAGE)).ok()?;
        Some(image.blocks().saturating_mul(512))
    }

    /// The file of a layer that is kept as an image.
    pub(crate) fn image(&self, id: &str) -> Option<PathBuf> {
        let is_image = self.meta(id)?.image;
        is_image.then(|| self.directory.join(id).join(IMAGE))
    }

    /// When a layer was made here.
    pub fn made(&self, id: &str) -> Option<Timestamp> {
        let metadata = fs::symlink_metadata(self.directory.join(id)).ok()?;
        Timestamp::new(metadata.mtime(), 0).ok()
    }

    /// A place for a layer in the making.
    pub fn draft(&self) -> Result<Draft> {
        let place = self
            .directory
            .join(format!(".tmp-{}", files::random_name()?));
        files::make_directory(&place)?;
        let meta = LayerMeta::default();
        Ok(Draft { place, meta })
    }

    /// Starts a layer in a draft, in the form of this store.
    pub fn start(&self, draft: &Draft, limits: Limits) -> Result<Making> {
        let tree = draft.make_tree()?;
        let root = Root::new(files::open_directory(&tree)?);
        check_space(root.fd(), limits.disk_reserve)?;
        if self.form == Kept::Tree {
            let applier = Applier::new(root, limits.plain_bytes, limits.disk_reserve);
            return Ok(Making::Tree(applier));
        }
        let image = new_file(&draft.place.join(IMAGE))?;
        let writer = ImageWriter::new(image, limits.plain_bytes, limits.disk_reserve)?;
        Ok(Making::Image(writer))
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
        files::rename_new(from, &self.directory.join(id).join(TREE))?;
        self.known().insert(id, draft.meta);
        Ok(())
    }

    /// Throws away a layer.
    pub fn remove(&self, id: &str, trash: &Trash) -> Result<()> {
        self.known().remove(id);
        if self.mounted().remove(id).is_some() {
            METRICS.mounts.dec();
        }
        // With what is mounted in it: the kernel takes its time to unmount.
        trash.throw(&self.directory.join(id))
    }

    /// Unmounts the images that were not asked for lately, but for those in `used`.
    pub fn unmount_idle(&self, used: &HashSet<String>, idle: Duration) -> Result<()> {
        // Nobody gets a path from `tree` between the look and the unmounting.
        let mut mounted = self.mounted();
        let idle: Vec<String> = mounted
            .iter()
            .filter(|(id, asked)| asked.elapsed() >= idle && !used.contains(*id))
            .map(|(id, _)| id.clone())
            .collect();
        idle.iter()
            .try_for_each(|id| self.unmount(&mut mounted, id))
    }

    fn unmount(&self, mounted: &mut HashMap<String, Instant>, id: &str) -> Result<()> {
        let place = self.directory.join(id);
        let was = mounted.remove(id).is_some();
        if was {
            METRICS.mounts.dec();
        }
        if was || place.join(IMAGE).exists() {
            mounts::detach(&place.join(TREE))?;
        }
        Ok(())
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
        self.known.lock()
    }

    fn mounted(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.mounted.lock()
    }
}

/// A store that ends leaves no mount behind. What runs on its layers keeps them by itself.
impl Drop for Shelf {
    fn drop(&mut self) {
        for id in self.ids() {
            if let Err(error) = self.unmount(&mut self.mounted(), &id) {
                tracing::warn!(layer = id, %error, "a layer stays mounted");
            }
        }
    }
}

impl Known {
    fn insert(&mut self, id: &str, meta: LayerMeta) {
        let (key, index) = match (&meta.chain, &meta.diff_id) {
            (Some(chain), _) => (Some(chain), &mut self.by_chain),
            (None, diff_id) => (diff_id.as_ref(), &mut self.by_diff_id),
        };
        if let Some(key) = key {
            index.entry(key.clone()).or_insert_with(|| id.to_owned());
        }
        self.layers.insert(id.to_owned(), meta);
    }

    fn remove(&mut self, id: &str) {
        self.layers.remove(id);
        self.usage.remove(id);
        self.by_diff_id.retain(|_, layer| layer != id);
        self.by_chain.retain(|_, layer| layer != id);
    }
}

fn is_whole(place: &Path, is_image: bool) -> bool {
    place.join(TREE).is_dir() && (!is_image || place.join(IMAGE).is_file())
}

/// A layer in the making.
#[derive(Debug)]
pub struct Draft {
    place: PathBuf,
    meta: LayerMeta,
}

impl Draft {
    fn make_tree(&self) -> Result<PathBuf> {
        let tree = self.place.join(TREE);
        fs::create_dir(&tree).map_err(files::failed("make", &tree))?;
        files::set_mode(&tree, 0o755)?;
        Ok(tree)
    }

    /// The finished tree, for looking into it before the layer has its name.
    pub fn open(&self, made: &Made) -> Result<Root> {
        match made {
            Made::Tree => files::open_directory(&self.place.join(TREE)).map(Root::new),
            Made::Image(_) => mounts::open_image(&self.place.join(IMAGE)).map(Root::new),
        }
    }

    /// Where its image is, if it is one.
    pub(crate) fn image(&self) -> PathBuf {
        self.place.join(IMAGE)
    }

    /// Makes a finished draft durable. An image is one file; of a tree nobody knows all.
    pub fn sync(&self, made: &Made) -> Result<()> {
        match made {
            Made::Tree => files::sync_file_system(&self.place),
            Made::Image(image) => {
                let synced = image
                    .sync_data()
                    .map_err(files::failed("sync", &self.place));
                synced?;
                files::sync_file(&self.place.join(META))?;
                files::sync_directory(&self.place)
            }
        }
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

/// Asks the kernel by mounting an image of an empty layer.
fn choose(form: Form, directory: &Path) -> Result<Kept> {
    if form == Form::Directory {
        return Ok(Kept::Tree);
    }
    let path = directory.join(format!(".probe-{}", files::random_name()?));
    let mounted = probe(&path);
    fs::remove_file(&path).map_err(files::failed("remove", &path))?;
    match (mounted, form) {
        (Ok(()), _) => Ok(Kept::Image),
        (Err(error), Form::Auto) => {
            let error = orlop_proto::error::chain(&error);
            tracing::info!(error, "layers are kept as directories: no EROFS here");
            Ok(Kept::Tree)
        }
        (Err(error), _) => Err(StoreError::NoImages {
            source: Box::new(error),
        }),
    }
}

fn probe(path: &Path) -> Result<()> {
    let writer = ImageWriter::new(new_file(path)?, 0, 0)?;
    Making::Image(writer).finish()?;
    mounts::open_image(path).map(drop)
}

fn new_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)
        .map_err(files::failed("make", path))
}
