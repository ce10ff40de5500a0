//! Snapshots: file trees, made of layers and of what was written over them.
//!
//! `snapshots/<key>/meta.json` is the truth about each one; an active one has `upper` and `work`
//! beside it, a committed one names its layer. All calls block: the gRPC layer moves them to threads.
//!
//! - [`record`]: what is known of one snapshot, and all of them. [`files`]: how it gets to disk.
//! - [`overlay`]: the merged tree. [`lifecycle`]: prepare, view, commit, remove.
//! - [`images`], [`resolve`]: the layers of an image. [`parts`], [`implicit`]: each of them by itself, on its
//!   way to the shelf. [`arrival`]: while it is still being written.
//! - [`diff`]: a snapshot as a layer blob, its changes and usage.
//! - [`apply`], [`copy`], [`owner`]: file operations. [`read`]: one file, the whole tree.
//! - [`collect`]: what nothing needs any more. `faults`: what is not as it should be.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::content::Content;
use crate::error::{Result, StoreError};
use crate::layers::decompress::Limits;
use crate::layers::form::Form;
use crate::layers::root::Root;
use crate::layers::shelf::Shelf;
use crate::leases::Leases;
use crate::turns::{Turn, Turns};

pub mod apply;
pub mod arrival;
pub mod collect;
pub mod copy;
pub mod diff;
mod family;
pub(crate) mod faults;
pub mod files;
pub mod images;
pub mod implicit;
pub mod lifecycle;
pub mod overlay;
pub mod owner;
mod parts;
pub mod read;
pub mod record;
pub mod resolve;

use arrival::Arrivals;
use collect::Wishes;
use files::Trash;
use overlay::Stack;
use record::{Kind, Record, Records};

/// All snapshots of a store; clones share them.
#[derive(Clone, Debug)]
pub struct Snapshots {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    content: Content,
    leases: Leases,
    limits: Limits,
    records: Records,
    shelf: Shelf,
    trash: Trash,
    /// A directory that stays empty: the lower tree of snapshots without a parent.
    empty: PathBuf,
    turns: Turns,
    arrivals: Arrivals,
    wishes: Wishes,
}

impl Snapshots {
    /// Reads what is below the state directory. What a crash left half-made goes to the trash.
    pub fn open(
        state: &Path,
        content: Content,
        leases: Leases,
        limits: Limits,
        form: Form,
    ) -> Result<Self> {
        let trash = Trash::open(state.join("trash"))?;
        let shelf = Shelf::open(state.join("layers"), form, &trash)?;
        let records = Records::open(state.join("snapshots"), &shelf, &trash)?;
        let empty = state.join("empty");
        files::make_directory(&empty)?;
        files::set_mode(&empty, 0o755)?;
        Ok(Self {
            inner: Arc::new(Inner {
                content,
                leases,
                limits,
                records,
                shelf,
                trash,
                empty,
                turns: Turns::named("turn of a snapshot"),
                arrivals: Arrivals::default(),
                wishes: Wishes::default(),
            }),
        })
    }

    /// One snapshot.
    pub fn stat(&self, key: &str) -> Result<Record> {
        self.inner.records.get(key)
    }

    /// All snapshots, in order of their key.
    pub fn list(&self) -> Vec<Arc<Record>> {
        self.inner.records.all()
    }

    /// The snapshots that a committed snapshot or the parent of an active one is built on, itself
    /// first.
    pub fn parents_of(&self, name: &str) -> Result<Vec<Record>> {
        self.inner.records.chain(Some(name))
    }

    /// What is stacked for a snapshot; a committed one is seen as by a view.
    pub fn stack(&self, record: &Record) -> Result<Stack> {
        let own = match record.kind {
            Kind::Committed => Some(record.key.as_str()),
            Kind::Active | Kind::View => record.parent.as_deref(),
        };
        let upper = (record.kind == Kind::Active).then(|| self.inner.records.work_of(&record.key));
        Ok(Stack {
            lower: self.lower(own)?,
            upper,
        })
    }

    fn lower(&self, top: Option<&str>) -> Result<Vec<PathBuf>> {
        let chain = self.inner.records.chain(top)?;
        let mut lower: Vec<PathBuf> = chain
            .iter()
            .filter_map(|record| record.layer.as_deref())
            .map(|layer| self.inner.shelf.tree(layer))
            .collect::<Result<_>>()?;
        // An image may have the same layer twice, and an overlay must not: all that the lower one makes
        // or hides, the topmost one makes or hides again.
        let mut seen = std::collections::HashSet::new();
        lower.retain(|tree| seen.insert(tree.clone()));
        if lower.is_empty() {
            lower.push(self.inner.empty.clone());
        }
        Ok(lower)
    }

    /// Unmounts the images of layers that no active snapshot and no view is built on, and that nobody
    /// asked for in `idle`.
    pub fn unmount_idle(&self, idle: Duration) -> Result<()> {
        let mut used = HashSet::new();
        for record in self.list() {
            if record.kind != Kind::Committed {
                let chain = self.inner.records.chain(record.parent.as_deref())?;
                used.extend(chain.into_iter().filter_map(|record| record.layer));
            }
        }
        self.inner.shelf.unmount_idle(&used, idle)
    }

    /// Unmounts all layers. What runs on them keeps them by itself, and whoever asks for a mount gets
    /// a new one.
    pub fn unmount_all(&self) -> Result<()> {
        let none = HashSet::new();
        self.inner.shelf.unmount_idle(&none, Duration::ZERO)
    }

    /// The merged tree of a snapshot.
    pub(crate) fn merged(&self, record: &Record) -> Result<Root> {
        self.stack(record)?.open()
    }

    /// The tree of a snapshot's own changes.
    pub(crate) fn own_tree(&self, record: &Record) -> Result<PathBuf> {
        match (&record.layer, record.kind) {
            (Some(layer), Kind::Committed) => self.inner.shelf.tree(layer),
            (_, Kind::Active) => Ok(self.inner.records.work_of(&record.key).0),
            _ => Err(record.wrong_kind("active or committed")),
        }
    }

    /// The tree below a snapshot's own changes; `None` when there is nothing.
    pub(crate) fn below(&self, record: &Record) -> Result<Option<Root>> {
        if record.parent.is_none() {
            return Ok(None);
        }
        let stack = Stack {
            lower: self.lower(record.parent.as_deref())?,
            upper: None,
        };
        stack.open().map(Some)
    }
}

/// The error of a key that is not known.
pub(crate) fn not_found(key: &str) -> StoreError {
    StoreError::SnapshotNotFound {
        key: key.to_owned(),
    }
}

/// What the users of a layer take a turn at. A space is in no key of a snapshot.
fn layer_turn(layer: &str) -> String {
    format!("layer {layer}")
}
