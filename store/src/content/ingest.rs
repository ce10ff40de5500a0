//! Uploads: `ingest/<id>/data`, which its writer may leave and come back to. `meta.json` beside it says
//! how many of its bytes are durable. The length of the file does not: after a loss of power it may be
//! the new one, with zeros where the last bytes were not written yet. So a start cuts what was not
//! marked.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use jiff::Timestamp;
use oci_spec::image::{Digest, DigestAlgorithm};

use super::writer::verify;
use super::{Content, Hasher};
use crate::leases::{Leases, Resource};
use crate::locks::Mutex;
use crate::metrics::METRICS;
use crate::{StoreError, files, ids};

/// After this many bytes the disk's reserve is checked again, and what is written is made durable: a
/// crash costs an upload no more.
const MARK_BYTES: u64 = 64 * 1024 * 1024;
const DATA: &str = "data";
const META: &str = "meta.json";

/// What is known of an ingest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestInfo {
    /// Its id.
    pub id: String,
    /// Durable bytes.
    pub offset: u64,
    /// When its first writer came.
    pub started: Timestamp,
    /// When its last byte was written.
    pub updated: Timestamp,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Meta {
    started: Timestamp,
    /// Bytes that were synced.
    #[serde(default)]
    durable: u64,
}

/// The ingests, and who writes them now.
#[derive(Clone, Debug)]
pub(super) struct Ingests {
    directory: PathBuf,
    slots: Arc<Mutex<HashMap<String, Slot>>>,
}

#[derive(Debug)]
enum Slot {
    /// Somebody writes it.
    Busy,
    /// The hash of so many bytes, kept for the next writer.
    Parked(Box<Hasher>, u64),
}

impl Ingests {
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        files::make_directory(directory)?;
        for id in files::names(directory)? {
            cut(&directory.join(id))?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            slots: Arc::new(Mutex::new("ingests", HashMap::new())),
        })
    }

    pub(super) fn stat(&self, id: &str) -> Result<IngestInfo, StoreError> {
        ids::check("ingest", id)?;
        let directory = self.directory.join(id);
        let path = directory.join(DATA);
        let unknown = || StoreError::IngestNotFound { id: id.to_owned() };
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(unknown()),
            Err(error) => return Err(StoreError::io("examine", &path)(error)),
        };
        let nanoseconds = i32::try_from(metadata.mtime_nsec()).unwrap_or_default();
        let updated = Timestamp::new(metadata.mtime(), nanoseconds).unwrap_or_default();
        let meta = read_meta(&directory);
        Ok(IngestInfo {
            id: id.to_owned(),
            offset: metadata.len(),
            started: meta.map_or(updated, |meta| meta.started),
            updated,
        })
    }

    pub(super) fn list(&self) -> Result<Vec<IngestInfo>, StoreError> {
        let mut infos = Vec::new();
        for name in files::names(&self.directory)? {
            match self.stat(&name) {
                Ok(info) => infos.push(info),
                Err(StoreError::IngestNotFound { .. } | StoreError::MalformedId { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(infos)
    }

    pub(super) fn abort(&self, id: &str) -> Result<(), StoreError> {
        ids::check("ingest", id)?;
        let mut slots = self.lock();
        if matches!(slots.get(id), Some(Slot::Busy)) {
            return Err(StoreError::IngestBusy { id: id.to_owned() });
        }
        slots.remove(id);
        self.discard(id)
    }

    fn discard(&self, id: &str) -> Result<(), StoreError> {
        let path = self.directory.join(id);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Takes the ingest for one writer; what an earlier one has hashed comes with it.
    fn take(&self, id: &str) -> Result<(Guard, Option<(Hasher, u64)>), StoreError> {
        let parked = match self.lock().insert(id.to_owned(), Slot::Busy) {
            Some(Slot::Busy) => return Err(StoreError::IngestBusy { id: id.to_owned() }),
            Some(Slot::Parked(hasher, size)) => Some((*hasher, size)),
            None => None,
        };
        let guard = Guard {
            ingests: self.clone(),
            id: id.to_owned(),
            park: None,
        };
        Ok((guard, parked))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock()
    }
}

/// While it lives, no other writer has the ingest.
#[derive(Debug)]
struct Guard {
    ingests: Ingests,
    id: String,
    park: Option<(Hasher, u64)>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut slots = self.ingests.lock();
        match self.park.take() {
            Some((hasher, size)) => {
                slots.insert(self.id.clone(), Slot::Parked(Box::new(hasher), size))
            }
            None => slots.remove(&self.id),
        };
    }
}

/// The one writer of an ingest.
#[derive(Debug)]
pub struct IngestWriter {
    content: Content,
    guard: Guard,
    directory: PathBuf,
    file: File,
    hasher: Hasher,
    size: u64,
}

impl IngestWriter {
    pub(super) fn open(
        content: &Content,
        id: &str,
        offset: i64,
        truncate: bool,
    ) -> Result<Self, StoreError> {
        ids::check("ingest", id)?;
        let (guard, parked) = content.inner.ingests.take(id)?;
        let directory = guard.ingests.directory.join(id);
        let mut file = open_data(&directory, truncate)?;
        let path = directory.join(DATA);
        let size = file
            .metadata()
            .map_err(StoreError::io("examine", &path))?
            .len();
        let hasher = match parked.filter(|(_, hashed)| *hashed == size) {
            Some((hasher, _)) => hasher,
            None => rehash(&mut file).map_err(StoreError::io("read", &path))?,
        };
        file.seek(io::SeekFrom::End(0))
            .map_err(StoreError::io("seek", &path))?;
        let writer = Self {
            content: content.clone(),
            guard,
            directory,
            file,
            hasher,
            size,
        };
        if u64::try_from(offset) == Ok(size) {
            return Ok(writer);
        }
        let error = StoreError::WrongOffset {
            id: id.to_owned(),
            offset,
            durable: size,
        };
        writer.suspend().and(Err(error))
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let before = self.size / MARK_BYTES;
        let path = self.directory.join(DATA);
        self.file
            .write_all(bytes)
            .map_err(StoreError::io("write", path))?;
        self.hasher.update(bytes);
        crate::failpoint::reach("ingest.write.some");
        self.size += bytes.len() as u64;
        if self.size / MARK_BYTES != before {
            self.content.check_reserve(0)?;
            self.mark()?;
        }
        Ok(())
    }

    /// The bytes that are written by now.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file, for a reader at offsets of its own; it stays readable whatever becomes of its name.
    pub fn file(&self) -> Result<File, StoreError> {
        let path = self.directory.join(DATA);
        self.file.try_clone().map_err(StoreError::io("open", path))
    }

    /// Makes durable what is written by now.
    fn mark(&self) -> Result<(), StoreError> {
        let path = self.directory.join(DATA);
        self.file
            .sync_data()
            .map_err(StoreError::io("sync", path))?;
        let meta = Meta {
            started: read_meta(&self.directory).map_or_else(Timestamp::now, |meta| meta.started),
            durable: self.size,
        };
        files::write_json(&self.directory, META, &meta)
    }

    /// Leaves the ingest for a later writer. Returns the durable offset.
    pub fn suspend(mut self) -> Result<u64, StoreError> {
        crate::failpoint::reach("ingest.suspend.begun");
        self.mark()?;
        files::sync_directory(&self.guard.ingests.directory)?;
        crate::failpoint::reach("ingest.suspend.synced");
        self.guard.park = Some((self.hasher, self.size));
        Ok(self.size)
    }

    /// Verifies and publishes; `lease` (empty for none) holds the blob from its first moment. On a
    /// mismatch the ingest is discarded.
    pub fn commit(
        self,
        expected: Option<&Digest>,
        expected_size: Option<u64>,
        leases: &Leases,
        lease: &str,
    ) -> Result<(Digest, u64), StoreError> {
        let path = self.directory.join(DATA);
        let algorithm = expected.map_or(&DigestAlgorithm::Sha256, Digest::algorithm);
        let digest = match algorithm {
            DigestAlgorithm::Sha256 => self.hasher.finish()?,
            other => hash_file(&path, other)?,
        };
        let verified = verify(
            &digest,
            self.size,
            expected.unwrap_or(&digest),
            expected_size,
        );
        if let Err(error) = verified {
            self.guard.ingests.discard(&self.guard.id)?;
            return Err(error);
        }
        crate::failpoint::reach("ingest.commit.verified");
        leases.hold(lease, Resource::Blob(digest.to_string()))?;
        crate::failpoint::reach("ingest.commit.held");
        if !self.content.keep(&digest)? {
            let to = self.content.path(&digest);
            self.content.inner.publisher.publish(vec![(path, to)])?;
        }
        leases.settle(lease)?;
        crate::failpoint::reach("ingest.commit.published");
        self.guard.ingests.discard(&self.guard.id)?;
        METRICS.ingests_committed.inc();
        crate::failpoint::reach("ingest.commit.discarded");
        Ok((digest, self.size))
    }
}

/// An upload that was never marked, or whose mark was lost with the power, begins anew.
fn read_meta(directory: &Path) -> Option<Meta> {
    files::read_json(&directory.join(META)).unwrap_or_default()
}

/// Cuts an upload to the bytes that are durable, and removes what a crash left of its marks.
fn cut(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join(DATA);
    let durable = read_meta(directory).map_or(0, |meta| meta.durable);
    let file = match OpenOptions::new().write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    let size = file
        .metadata()
        .map_err(StoreError::io("examine", &path))?
        .len();
    if size > durable {
        file.set_len(durable)
            .map_err(StoreError::io("shorten", &path))?;
    }
    files::remove_unfinished(directory)
}

fn open_data(directory: &Path, truncate: bool) -> Result<File, StoreError> {
    if !directory.exists() {
        files::make_directory(directory)?;
        let meta = Meta {
            started: Timestamp::now(),
            durable: 0,
        };
        let json = serde_json::to_vec(&meta).unwrap_or_default();
        let path = directory.join(META);
        fs::write(&path, json).map_err(StoreError::io("write", &path))?;
        crate::failpoint::reach("ingest.open.made");
    }
    let path = directory.join(DATA);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(truncate)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))
}

fn rehash(file: &mut File) -> io::Result<Hasher> {
    let mut hasher = Hasher::sha256();
    hasher.read_all(file)?;
    Ok(hasher)
}

fn hash_file(path: &Path, algorithm: &DigestAlgorithm) -> Result<Digest, StoreError> {
    let mut hasher = Hasher::new(algorithm)?;
    File::open(path)
        .and_then(|mut file| hasher.read_all(&mut file))
        .map_err(StoreError::io("read", path))?;
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_cuts_an_upload_to_what_is_durable_and_needs_no_whole_mark() {
        let state = tempfile::tempdir().unwrap();
        let content = Content::open_at(state.path(), 0).unwrap();
        let mut writer = content.ingest("a", 0, false).unwrap();
        writer.write(b"durable").unwrap();
        assert_eq!(writer.suspend().unwrap(), 7);
        let mut writer = content.ingest("a", 7, false).unwrap();
        writer.write(&[0; 9]).unwrap();
        drop((writer, content));

        let content = Content::open_at(state.path(), 0).unwrap();
        assert_eq!(content.stat_ingest("a").unwrap().offset, 7);
        fs::write(state.path().join("ingest/a/meta.json"), b"").unwrap();
        let content = Content::open_at(state.path(), 0).unwrap();
        assert_eq!(content.list_ingests().unwrap()[0].offset, 0);
    }
}
