//! `Maintenance.Check`: compares the files with each other and with the index, while the store works.
//!
//! Nothing goes that is not proved to be garbage. What a repair does with each kind of finding is told
//! at [`Kind`]; where it cannot do better, it moves a thing to `quarantine/` and leaves it there.
//!
//! - [`blobs`]: what is in `blobs`. [`names`]: images and the index. [`leases`]. [`ingests`].
//! - [`trees`]: snapshots and layers. [`mounts`].

mod blobs;
mod ingests;
mod leases;
mod mounts;
mod names;
mod trees;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use orlop_proto::error::chain;

use crate::StoreError;
use crate::content::Content;
use crate::images::Images;
use crate::index::Index;
use crate::leases::Leases;
use crate::quarantine::Quarantine;
use crate::snapshots::Snapshots;

/// What is younger may be in the making.
const MAKING_MAX: SignedDuration = SignedDuration::from_hours(1);
/// A difference between two things that change one after the other, with a sync between, counts when
/// it lasts for a second.
const LOOKS: u32 = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What is found, in the words of the contract, and what a repair does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A blob that is not what its digest says. It is put aside, and missing then: even without
    /// repair, when its bytes were read.
    DamagedBlob,
    /// A blob that has another size than a manifest says. Only another push repairs it.
    WrongSize,
    /// A file among blobs or ingests that is none. It is put aside.
    ForeignFile,
    /// A name whose target or a child of it is missing or damaged. Only another pull or push repairs it.
    DanglingName,
    /// The file of a name is damaged. It is written again if the index has what it was, with the right
    /// checksum; otherwise it is put aside. One that was put aside at the start no longer holds up the
    /// collector.
    DamagedName,
    /// The file of a lease is damaged. It is written again from what the store knows; one that was put
    /// aside at the start no longer holds up the collector.
    DamagedLease,
    /// A lease holds a blob that has not been here for an hour. The hold is released.
    DanglingLease,
    /// A snapshot's directory that is not whole. A draft without a name is deleted; a description is
    /// written again from what the store knows; anything else is put aside.
    HalfMadeSnapshot,
    /// A snapshot whose parent is gone. Nothing can be done but to remove it.
    MissingParent,
    /// A committed snapshot whose layer is gone. Another pull of the image brings it.
    MissingLayer,
    /// A layer whose description or tree is not what it was. A description is written again.
    DamagedLayer,
    /// A layer that no snapshot is made of. It is removed, as by the collector; a directory that is no
    /// layer is put aside.
    OrphanLayer,
    /// An upload that nobody has gone on with for a day. It is discarded: none of it was committed.
    OrphanIngest,
    /// A mount below the store's directory that no layer explains. It is taken off, if it is where only
    /// the store mounts; what it covers or shows is not touched.
    StaleMount,
    /// The index says something else than the files. It is made to say what they do.
    Index,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// A digest, a name, a key or a path below the store's directory.
    pub subject: String,
    /// What is wrong with it.
    pub detail: String,
    /// It is no more.
    pub repaired: bool,
}

/// What a check is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Repair what can be repaired.
    pub repair: bool,
    /// Read every blob and every layer.
    pub rehash: bool,
}

/// Checks; clones share the turn: one run at a time.
#[derive(Clone, Debug)]
pub struct Check {
    parts: Parts,
    turn: Arc<Mutex<()>>,
}

/// What is checked.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) state: PathBuf,
    pub(crate) content: Content,
    pub(crate) images: Images,
    pub(crate) leases: Leases,
    pub(crate) snapshots: Snapshots,
    pub(crate) index: Index,
    pub(crate) quarantine: Quarantine,
}

/// One run: what is to be done, and where findings go.
struct Run<'a> {
    options: Options,
    report: &'a mut dyn FnMut(Finding) -> Result<(), StoreError>,
}

impl Check {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            turn: Arc::default(),
        }
    }

    /// Looks at everything once; findings come as they are made. Blobs come first, so that a name that
    /// lost one is told of in the same run. An error of `report` ends the run.
    pub fn run(
        &self,
        options: Options,
        report: &mut dyn FnMut(Finding) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut run = Run { options, report };
        blobs::check(&self.parts, &mut run)?;
        ingests::check(&self.parts, &mut run)?;
        mounts::check(&self.parts, &mut run)?;
        trees::check(&self.parts, &mut run)?;
        leases::check(&self.parts, &mut run)?;
        names::check(&self.parts, &mut run)
    }
}

impl Run<'_> {
    /// Tells of something that only a person can repair.
    fn tell(&mut self, kind: Kind, subject: &str, detail: String) -> Result<(), StoreError> {
        self.emit(kind, subject, detail, false)
    }

    /// Tells of something that `mend` repairs.
    fn found(
        &mut self,
        kind: Kind,
        subject: &str,
        mut detail: String,
        mend: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut repaired = false;
        if self.options.repair {
            match mend() {
                Ok(()) => repaired = true,
                Err(error) => detail = format!("{detail}; not repaired: {}", chain(&error)),
            }
        }
        self.emit(kind, subject, detail, repaired)
    }

    fn emit(
        &mut self,
        kind: Kind,
        subject: &str,
        detail: String,
        repaired: bool,
    ) -> Result<(), StoreError> {
        let subject = subject.to_owned();
        tracing::warn!(
            kind = kind.as_str(),
            subject,
            detail,
            repaired,
            "the check found something"
        );
        (self.report)(Finding {
            kind,
            subject,
            detail,
            repaired,
        })
    }
}

impl Kind {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DamagedBlob => "damaged-blob",
            Self::WrongSize => "wrong-size",
            Self::ForeignFile => "foreign-file",
            Self::DanglingName => "dangling-name",
            Self::DamagedName => "damaged-name",
            Self::DamagedLease => "damaged-lease",
            Self::DanglingLease => "dangling-lease",
            Self::HalfMadeSnapshot => "half-made-snapshot",
            Self::MissingParent => "missing-parent",
            Self::MissingLayer => "missing-layer",
            Self::DamagedLayer => "damaged-layer",
            Self::OrphanLayer => "orphan-layer",
            Self::OrphanIngest => "orphan-ingest",
            Self::StaleMount => "stale-mount",
            Self::Index => "index",
        }
    }
}

/// Whether something is so, and stays so for a while.
fn lasts(mut look: impl FnMut() -> bool) -> bool {
    (0..LOOKS).all(|number| {
        if number > 0 {
            std::thread::sleep(LOOK_AGAIN);
        }
        look()
    })
}

/// Whether nothing was written into a file or directory itself for so long. One that is gone is not
/// old.
pub(crate) fn is_old(path: &Path, age: SignedDuration) -> bool {
    let changed = fs::symlink_metadata(path)
        .ok()
        .and_then(|metadata| Timestamp::from_second(metadata.mtime()).ok());
    changed.is_some_and(|changed| Timestamp::now().duration_since(changed) > age)
}

/// The part of a path that is below the store's directory.
fn below(state: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(state).unwrap_or(path);
    relative.to_string_lossy().into_owned()
}
