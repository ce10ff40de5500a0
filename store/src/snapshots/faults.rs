//! What can be wrong with the files of snapshots and layers, and what mends it.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use jiff::SignedDuration;

use super::parts::Source;
use super::record::{Kind, Record, Records};
use super::{Snapshots, files, layer_turn};
use crate::check::is_old;
use crate::content::digest as digest_of;
use crate::error::Result;
use crate::layers::root::Root;
use crate::layers::usage::usage_of;
use crate::quarantine::{Quarantine, Suspect};

/// Drafts have names like this; see [`Records::draft`].
const DRAFT: &str = ".tmp-";
/// Of two images that are compared.
const READ_BYTES: usize = 256 * 1024;

/// Something that is not as it should be, of a snapshot or a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A directory among the snapshots that is none.
    Stranger { name: String },
    /// A snapshot whose description is damaged.
    Description { key: String },
    /// An active snapshot that misses a directory.
    Directories { key: String },
    /// A snapshot whose parent is missing.
    Parent { key: String, parent: String },
    /// A committed snapshot whose layer is missing.
    Layer { key: String, layer: String },
    /// A layer whose description is damaged.
    LayerDescription { id: String },
    /// A layer that has more or fewer bytes than when it was made.
    LayerSize {
        id: String,
        expected: u64,
        actual: u64,
    },
    /// A layer whose image is not what its blob makes.
    LayerBytes { id: String },
    /// A layer that no snapshot is made of.
    Unused { id: String },
    /// A directory among the layers that is none.
    LayerStranger { name: String },
}

impl Fault {
    /// The key, the layer's id, or the name of the directory.
    pub(crate) fn subject(&self) -> &str {
        match self {
            Self::Stranger { name } | Self::LayerStranger { name } => name,
            Self::Description { key }
            | Self::Directories { key }
            | Self::Parent { key, .. }
            | Self::Layer { key, .. } => key,
            Self::LayerDescription { id }
            | Self::LayerSize { id, .. }
            | Self::LayerBytes { id }
            | Self::Unused { id } => id,
        }
    }

    /// Whether [`Snapshots::mend`] knows what to do.
    pub(crate) fn can_be_mended(&self) -> bool {
        !matches!(
            self,
            Self::Directories { .. }
                | Self::Parent { .. }
                | Self::Layer { .. }
                | Self::LayerSize { .. }
                | Self::LayerBytes { .. }
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger { .. } => f.write_str("it is no snapshot, or one that was not finished"),
            Self::Description { .. } | Self::LayerDescription { .. } => {
                f.write_str("its meta.json is damaged")
            }
            Self::Directories { .. } => f.write_str("a directory of it is missing"),
            Self::Parent { parent, .. } => write!(f, "its parent {parent} is missing"),
            Self::Layer { layer, .. } => write!(f, "its layer {layer} is missing"),
            Self::LayerSize {
                expected, actual, ..
            } => {
                write!(
                    f,
                    "its files have {actual} bytes, not {expected} as when it was made"
                )
            }
            Self::LayerBytes { .. } => f.write_str("its image is not what its blob makes"),
            Self::Unused { .. } => f.write_str("no snapshot is made of it"),
            Self::LayerStranger { .. } => {
                f.write_str("it is no layer, or one that was not finished")
            }
        }
    }
}

impl Snapshots {
    /// Looks at all. What nobody knows is a fault when it is older than `age`: it may be in the making.
    pub(crate) fn faults(&self, age: SignedDuration) -> Result<Vec<Fault>> {
        let mut faults = self.strangers(age)?;
        for record in self.list() {
            let _turn = self.inner.turns.take(vec![record.key.clone()]);
            // Between the list and the turn it may have been changed or removed.
            if let Ok(record) = self.inner.records.get(&record.key) {
                faults.extend(self.faults_of(&record));
            }
        }
        for id in self.inner.shelf.ids() {
            faults.extend(self.fault_of_layer(&id, age));
        }
        Ok(faults)
    }

    /// Layers whose files do not have the bytes that they were made with. Reads every layer.
    pub(crate) fn layers_of_another_size(&self) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for id in self.inner.shelf.ids() {
            let _turn = self.inner.turns.take(vec![layer_turn(&id)]);
            let expected = self.inner.shelf.meta(&id).and_then(|meta| meta.bytes);
            let Some(expected) = expected.filter(|_| self.inner.shelf.is_whole(&id)) else {
                continue;
            };
            let root = Root::new(files::open_directory(&self.inner.shelf.tree(&id)?)?);
            let actual = usage_of(&root)?.file_bytes;
            if actual != expected {
                faults.push(Fault::LayerSize {
                    id,
                    expected,
                    actual,
                });
            }
        }
        Ok(faults)
    }

    /// Layers whose images differ from what their blobs make: the same tar gives the same image, byte for
    /// byte. Unpacks every layer whose blob is here.
    pub(crate) fn layers_unlike_their_blobs(&self) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        let mut seen = HashSet::new();
        for record in self.list() {
            let Some(id) = record.layer.clone().filter(|id| seen.insert(id.clone())) else {
                continue;
            };
            let image = self
                .inner
                .shelf
                .image(&id)
                .is_some_and(|path| path.exists());
            if image && !self.is_what_its_blob_makes(&record, &id)? {
                faults.push(Fault::LayerBytes { id });
            }
        }
        Ok(faults)
    }

    fn is_what_its_blob_makes(&self, record: &Record, id: &str) -> Result<bool> {
        let inner = &self.inner;
        let mut digests = record.blobs.values().map(|packed| packed.digest.as_str());
        let digest =
            digests.find(|text| digest_of(text).is_ok_and(|one| inner.content.exists(&one)));
        let (Some(text), Some(diff_id)) = (digest, &record.diff_id) else {
            return Ok(true);
        };
        let part = self.unpack_stream(inner.content.open(&digest_of(text)?)?, text, diff_id)?;
        let chain = inner.records.chain(record.parent.as_deref())?;
        let below = chain.into_iter().rev().filter_map(|below| below.layer);
        let below: Vec<_> = below.map(Source::Here).collect();
        let Source::New(draft, _) = self.finish_part(part, &record.key, &below)? else {
            return Ok(true);
        };
        let same = inner
            .shelf
            .image(id)
            .is_none_or(|image| same_bytes(&image, &draft.image()));
        draft.discard(&inner.trash)?;
        Ok(same)
    }

    fn strangers(&self, age: SignedDuration) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        let records = &self.inner.records;
        for name in files::entries(records.directory())? {
            let known = records.get(&Records::key_of(&name)).is_ok();
            if !known && is_old(&records.directory().join(&name), age) {
                faults.push(Fault::Stranger { name });
            }
        }
        let shelf = &self.inner.shelf;
        for name in files::entries(shelf.directory())? {
            if !shelf.contains(&name) && is_old(&shelf.directory().join(&name), age) {
                faults.push(Fault::LayerStranger { name });
            }
        }
        Ok(faults)
    }

    fn faults_of(&self, record: &Record) -> Vec<Fault> {
        let records = &self.inner.records;
        let key = record.key.clone();
        let mut faults = Vec::new();
        if records.read(&record.key).is_err() {
            faults.push(Fault::Description { key: key.clone() });
        }
        let (upper, work) = records.work_of(&record.key);
        if record.kind == Kind::Active && !(upper.is_dir() && work.is_dir()) {
            faults.push(Fault::Directories { key: key.clone() });
        }
        if let Some(parent) = &record.parent
            && records.get(parent).is_err()
        {
            let parent = parent.clone();
            let key = key.clone();
            faults.push(Fault::Parent { key, parent });
        }
        if let Some(layer) = &record.layer
            && !(self.inner.shelf.contains(layer) && self.inner.shelf.is_whole(layer))
        {
            let layer = layer.clone();
            faults.push(Fault::Layer { key, layer });
        }
        faults
    }

    fn fault_of_layer(&self, id: &str, age: SignedDuration) -> Option<Fault> {
        let inner = &self.inner;
        let _turn = inner.turns.take(vec![layer_turn(id)]);
        let place = inner.shelf.directory().join(id);
        if !inner.shelf.contains(id) {
            return None;
        }
        let id = id.to_owned();
        if !inner.records.uses_layer(&id) && is_old(&place, age) {
            return Some(Fault::Unused { id });
        }
        let damaged = inner.shelf.is_whole(&id) && inner.shelf.read(&id).is_err();
        damaged.then_some(Fault::LayerDescription { id })
    }

    /// Mends a fault, or moves a thing that nobody knows aside. Only a draft is deleted: it never had a
    /// name.
    pub(crate) fn mend(&self, fault: &Fault, quarantine: &Quarantine) -> Result<()> {
        let inner = &self.inner;
        match fault {
            Fault::Stranger { name } => {
                let place = inner.records.directory().join(name);
                self.clear(name, &place, Suspect::Snapshot, quarantine)
            }
            Fault::LayerStranger { name } => {
                let place = inner.shelf.directory().join(name);
                self.clear(name, &place, Suspect::Layer, quarantine)
            }
            Fault::Description { key } => {
                let _turn = inner.turns.take(vec![key.clone()]);
                inner.records.update(inner.records.get(key)?)
            }
            Fault::LayerDescription { id } => {
                let _turn = inner.turns.take(vec![layer_turn(id)]);
                match inner.shelf.meta(id) {
                    Some(meta) => inner.shelf.describe(id, meta),
                    None => Ok(()),
                }
            }
            Fault::Unused { id } => inner.remove_layer_unless_used(id),
            Fault::Directories { .. }
            | Fault::Parent { .. }
            | Fault::Layer { .. }
            | Fault::LayerSize { .. }
            | Fault::LayerBytes { .. } => Ok(()),
        }
    }

    fn clear(
        &self,
        name: &str,
        place: &Path,
        suspect: Suspect,
        quarantine: &Quarantine,
    ) -> Result<()> {
        if name.starts_with(DRAFT) {
            return self.inner.trash.throw(place);
        }
        quarantine.put(suspect, name, place).map(drop)
    }

    /// Whether a mount at a path, below the store's directory, is that of a layer.
    pub(crate) fn explains_mount(&self, path: &Path) -> bool {
        let mut parts = path.iter();
        let place = parts.next().and_then(|part| part.to_str());
        let id = parts.next().and_then(|part| part.to_str());
        match place {
            Some("layers") => id.is_some_and(|id| self.inner.shelf.contains(id)),
            // On its way out.
            Some("trash") => true,
            _ => false,
        }
    }
}

/// What cannot be read is not the same.
fn same_bytes(one: &Path, other: &Path) -> bool {
    let open = |path| File::open(path).map(|file| BufReader::with_capacity(READ_BYTES, file));
    let (Ok(mut one), Ok(mut other)) = (open(one), open(other)) else {
        return false;
    };
    loop {
        let (Ok(left), Ok(right)) = (one.fill_buf(), other.fill_buf()) else {
            return false;
        };
        let count = left.len().min(right.len());
        if left[..count] != right[..count] || (count == 0 && left.len() != right.len()) {
            return false;
        }
        if count == 0 {
            return true;
        }
        one.consume(count);
        other.consume(count);
    }
}
