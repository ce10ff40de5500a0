//! Blobs by digest. A blob is a file `blobs/<algorithm>/<hex>`, complete, verified and immutable; what
//! is being written is elsewhere, so that a blob's name is its proof.
//!
//! Everything here blocks; the gRPC layer calls it from threads for that.

mod freeing;
mod hash;
mod ingest;
mod publish;
mod verify;
mod writer;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLockWriteGuard};

use jiff::Timestamp;
use oci_spec::image::Digest;
use orlop_proto::descriptor::parse_digest;
use rustix::fs::{AtFlags, CWD, StatVfs, Timespec, Timestamps, UTIME_OMIT, utimensat};
use rustix::io::Errno;

use crate::locks::RwLock;
use crate::quarantine::Quarantine;
use crate::{StoreError, files};
use freeing::Freeing;
pub use hash::Hasher;
use ingest::Ingests;
pub use ingest::{IngestInfo, IngestWriter};
use publish::Publisher;
pub use verify::BlobReader;
use verify::{Hashing, Known, Stamp};
pub use writer::{BlobWriter, Sealed};

/// The directories of `blobs`.
pub(crate) const ALGORITHMS: [&str; 3] = ["sha256", "sha384", "sha512"];

/// A hundredth of the inodes is kept free, at most so many: names and leases need some.
const INODES_RESERVE: u64 = 1000;

/// What is known of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// When its last byte was written here.
    pub created: Timestamp,
    /// Bytes that it takes on the disk.
    pub allocated: u64,
    /// The last time that somebody wrote it or asked whether it is here.
    pub wanted: Timestamp,
}

/// All blobs; clones share everything.
#[derive(Clone, Debug)]
pub struct Content {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    blobs: PathBuf,
    temporary: PathBuf,
    reserve: u64,
    ingests: Ingests,
    publisher: Publisher,
    known: Arc<Known>,
    hashing: Hashing,
    quarantine: Quarantine,
    freeing: Freeing,
    /// Written while a blob is swept: nobody can want it between the look and the removal.
    sweeping: RwLock<()>,
    /// When the collection that runs began.
    collection: Mutex<Option<Timestamp>>,
}

/// A collection runs until this is dropped.
#[derive(Debug)]
pub struct Collecting<'a> {
    content: &'a Content,
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        *self.content.began() = None;
    }
}

impl Content {
    /// Opens the blobs below a state directory. What a crash left of blobs made in this process goes;
    /// ingests stay, to be resumed. `reserve`: bytes of the disk that are kept free.
    pub fn open_at(state: &Path, reserve: u64) -> Result<Self, StoreError> {
        let blobs = state.join("blobs");
        for algorithm in ALGORITHMS {
            files::make_directory(&blobs.join(algorithm))?;
        }
        let temporary = state.join("tmp");
        files::make_directory(&temporary)?;
        files::remove_unfinished(&temporary)?;
        let known = Arc::new(Known::default());
        Ok(Self {
            inner: Arc::new(Inner {
                ingests: Ingests::open(&state.join("ingest"))?,
                publisher: Publisher::start(&blobs, known.clone())?,
                known,
                hashing: Hashing::default(),
                quarantine: Quarantine::at(state),
                freeing: Freeing::start(&temporary)?,
                sweeping: RwLock::new("sweep", ()),
                collection: Mutex::default(),
                blobs,
                temporary,
                reserve,
            }),
        })
    }

    /// Where a blob's file is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.algorithm().as_ref();
        self.inner.blobs.join(algorithm).join(digest.digest())
    }

    /// Facts of a blob.
    pub fn stat(&self, digest: &Digest) -> Result<Blob, StoreError> {
        let path = self.path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(blob(digest.clone(), &metadata)),
            Ok(metadata) => Err(self.misplaced(digest, &metadata)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(not_found(digest)),
            Err(error) => Err(StoreError::io("examine", &path)(error)),
        }
    }

    /// Whether a blob is here.
    pub fn exists(&self, digest: &Digest) -> bool {
        self.stat(digest).is_ok()
    }

    /// A whole blob of at most `max` bytes, its digest verified.
    pub fn read_all(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, StoreError> {
        let mut reader = self.reader(digest, 0, 0, true)?;
        let size = reader.left();
        if size > max {
            return Err(StoreError::BlobTooLarge {
                digest: digest.to_string(),
                size,
                max,
            });
        }
        let whole = usize::try_from(size).unwrap_or(usize::MAX);
        Ok(reader.piece(whole)?.unwrap_or_default())
    }

    /// Stores bytes made in this process.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let mut writer = self.writer()?;
        writer
            .write_all(bytes)
            .map_err(StoreError::io("write", &self.inner.temporary))?;
        Ok(writer.commit(None)?.0)
    }

    /// Bytes that came from outside, verified and ready to be published.
    pub fn seal_bytes(&self, bytes: &[u8], expected: &Digest) -> Result<Sealed, StoreError> {
        let hasher = Hasher::new(expected.algorithm())?;
        let mut writer = self.writer()?.with_hasher(hasher);
        writer
            .write_all(bytes)
            .map_err(StoreError::io("write", &self.inner.temporary))?;
        writer.seal(Some((expected, bytes.len() as u64)))
    }

    /// A writer of a blob made in this process. Dropped without commit, it leaves nothing.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        self.check_reserve(0)?;
        BlobWriter::create(self)
    }

    /// Publishes blobs that were sealed, all with one sync. Returns how many were new.
    pub fn publish(&self, sealed: Vec<Sealed>) -> Result<usize, StoreError> {
        let mut fresh = Vec::new();
        for blob in sealed {
            if !self.keep(blob.digest())? {
                fresh.push(blob);
            }
        }
        let count = fresh.len();
        if count > 0 {
            let jobs = fresh
                .iter()
                .map(|blob| (blob.path().to_owned(), self.path(blob.digest())));
            self.inner.publisher.publish(jobs.collect())?;
        }
        Ok(count)
    }

    /// Opens an ingest, to be written on from `offset`, which must be its durable offset.
    pub fn ingest(
        &self,
        id: &str,
        offset: i64,
        truncate: bool,
    ) -> Result<IngestWriter, StoreError> {
        self.check_reserve(0)?;
        IngestWriter::open(self, id, offset, truncate)
    }

    /// The durable state of an ingest.
    pub fn stat_ingest(&self, id: &str) -> Result<IngestInfo, StoreError> {
        self.inner.ingests.stat(id)
    }

    /// All ingests, in order of id.
    pub fn list_ingests(&self) -> Result<Vec<IngestInfo>, StoreError> {
        self.inner.ingests.list()
    }

    /// Discards an ingest; an unknown one is fine.
    pub fn abort_ingest(&self, id: &str) -> Result<(), StoreError> {
        self.inner.ingests.abort(id)
    }

    /// All blobs, in order of digest.
    pub fn list(&self) -> Result<Vec<Blob>, StoreError> {
        let mut blobs = Vec::new();
        self.each_in_order(|blob| {
            blobs.push(blob);
            Ok(())
        })?;
        Ok(blobs)
    }

    /// Tells every blob, in order of digest. In memory are the bytes of the digests only: 32 MB of a
    /// million. A blob that comes or goes meanwhile is told or not.
    pub fn each_in_order(
        &self,
        mut tell: impl FnMut(Blob) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let [sha256, sha384, sha512] = ALGORITHMS;
        self.each_of::<32>(sha256, &mut tell)?;
        self.each_of::<48>(sha384, &mut tell)?;
        self.each_of::<64>(sha512, &mut tell)
    }

    fn each_of<const BYTES: usize>(
        &self,
        algorithm: &str,
        tell: &mut impl FnMut(Blob) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let directory = self.inner.blobs.join(algorithm);
        let failed = || StoreError::io("list", &directory);
        let mut digests = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let mut digest = [0; BYTES];
            if hex::decode_to_slice(name.as_encoded_bytes(), &mut digest).is_ok() {
                digests.push(digest);
            }
        }
        digests.sort_unstable();
        for digest in digests {
            match self.stat(&digest_from(algorithm, &hex::encode(digest))?) {
                Ok(blob) => tell(blob)?,
                Err(StoreError::BlobNotFound { .. } | StoreError::BlobDamaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the digest of every blob, in no order. One at a time is in memory; a blob that comes or
    /// goes meanwhile may be told or not.
    pub fn each(
        &self,
        tell: impl FnMut(Digest) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.each_but(|_| false, tell)
    }

    /// The same without those that are left out by the hexadecimal digits of their digests: to look at
    /// these costs less than to make the digest.
    pub(crate) fn each_but(
        &self,
        left_out: impl Fn(&str) -> bool,
        mut tell: impl FnMut(Digest) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for algorithm in ALGORITHMS {
            let directory = self.inner.blobs.join(algorithm);
            let failed = || StoreError::io("list", &directory);
            for entry in fs::read_dir(&directory).map_err(failed())? {
                let name = entry.map_err(failed())?.file_name();
                let Some(name) = name.to_str().filter(|name| !left_out(name)) else {
                    continue;
                };
                if let Ok(digest) = parse_digest(&format!("{algorithm}:{name}")) {
                    tell(digest)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a blob; whether it was there. Who calls it has made sure that nothing needs it.
    pub fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        let _sweeping = self.sweep();
        self.unlink(digest)
    }

    fn unlink(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("remove", &path)(error)),
        }
    }

    /// Removes a blob that nobody has wanted since `cutoff`; whether it is gone by this call.
    pub fn remove_unless_wanted(
        &self,
        digest: &Digest,
        cutoff: Timestamp,
    ) -> Result<bool, StoreError> {
        // Freeing a file takes its time: under the lock it only loses its name.
        let aside = self.inner.temporary.join(files::temporary_name()?);
        let moved = self.move_unless_wanted(digest, cutoff, &aside)?;
        if moved {
            crate::failpoint::reach("content.remove.aside");
            self.inner.freeing.free(aside);
        }
        Ok(moved)
    }

    fn move_unless_wanted(
        &self,
        digest: &Digest,
        cutoff: Timestamp,
        aside: &Path,
    ) -> Result<bool, StoreError> {
        let _sweeping = self.sweep();
        let path = self.path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if blob(digest.clone(), &metadata).wanted < cutoff => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StoreError::io("examine", &path)(error)),
        }
        fs::rename(&path, aside).map_err(StoreError::io("remove", &path))?;
        Ok(true)
    }

    /// Taken while a blob leaves its place, so that its name does not change its file meanwhile.
    fn sweep(&self) -> RwLockWriteGuard<'_, ()> {
        self.inner.sweeping.write()
    }

    /// Notes that somebody wants this blob now, so that the collector leaves it for a while. Whether
    /// it is here.
    pub fn want(&self, digest: &Digest) -> bool {
        if self.stat(digest).is_err() {
            return false;
        }
        let _not_sweeping = self.inner.sweeping.read();
        self.set_wanted(digest, Timestamp::now())
    }

    /// Takes a wish of `then` back: what it was for is gone. Who has wanted the blob since then goes on
    /// wanting it.
    pub fn unwant(&self, digest: &Digest, then: Timestamp) {
        let _sweeping = self.sweep();
        let began = self.collection_began();
        let taken_back =
            |blob: Blob| blob.wanted <= then && began.is_none_or(|began| blob.wanted < began);
        if self.stat(digest).is_ok_and(taken_back) {
            self.set_wanted(digest, Timestamp::UNIX_EPOCH);
        }
    }

    /// Notes that a collection begins now; it ends when the guard is dropped. Wishes that are made
    /// meanwhile are not taken back: the collection may have passed another name that needs the same,
    /// and then the wish is all that holds it.
    pub fn collecting(&self) -> Collecting<'_> {
        let _sweeping = self.sweep();
        *self.began() = Some(Timestamp::now());
        Collecting { content: self }
    }

    /// When the collection that runs began.
    pub fn collection_began(&self) -> Option<Timestamp> {
        *self.began()
    }

    fn began(&self) -> MutexGuard<'_, Option<Timestamp>> {
        let began = self.inner.collection.lock();
        began.unwrap_or_else(PoisonError::into_inner)
    }

    /// The access time keeps it: of no other use on a blob, and settable without touching the rest.
    fn set_wanted(&self, digest: &Digest, time: Timestamp) -> bool {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: time.as_second(),
                tv_nsec: i64::from(time.subsec_nanosecond()),
            },
            last_modification: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
        };
        let set = utimensat(CWD, self.path(digest), &times, AtFlags::SYMLINK_NOFOLLOW);
        // On a disk that cannot be written to, nothing is swept either.
        !matches!(set, Err(Errno::NOENT | Errno::NOTDIR))
    }

    /// Bytes of the disk that are free for us.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let disk = self.disk()?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn disk(&self) -> Result<StatVfs, StoreError> {
        let path = &self.inner.blobs;
        rustix::fs::statvfs(path).map_err(StoreError::io("examine", path))
    }

    /// When a blob last came or went.
    pub fn changed(&self) -> Result<Timestamp, StoreError> {
        let mut last = Timestamp::MIN;
        for algorithm in ALGORITHMS {
            let path = self.inner.blobs.join(algorithm);
            let metadata = fs::metadata(&path).map_err(StoreError::io("examine", &path))?;
            last = last.max(time(metadata.mtime(), metadata.mtime_nsec()));
        }
        Ok(last)
    }

    /// Refuses to fill the disk: `more` bytes are about to be written.
    pub fn check_reserve(&self, more: u64) -> Result<(), StoreError> {
        let disk = self.disk()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let reserve = self.inner.reserve;
        if free.saturating_sub(more) < reserve {
            return Err(StoreError::DiskReserve { free, reserve });
        }
        // A file system without a fixed number of inodes says that it has none.
        let (all, free) = (disk.f_files, disk.f_favail);
        let reserve = INODES_RESERVE.min(all / 100);
        if free < reserve {
            return Err(StoreError::InodeReserve { free, reserve });
        }
        Ok(())
    }

    /// The digest of bytes that are not stored.
    pub fn digest_of(bytes: &[u8]) -> Result<Digest, StoreError> {
        Hasher::digest_of(&oci_spec::image::DigestAlgorithm::Sha256, bytes)
    }
}

fn not_found(digest: &Digest) -> StoreError {
    StoreError::BlobNotFound {
        digest: digest.to_string(),
    }
}

fn blob(digest: Digest, metadata: &fs::Metadata) -> Blob {
    Blob {
        digest,
        size: metadata.len(),
        created: time(metadata.mtime(), metadata.mtime_nsec()),
        allocated: metadata.blocks().saturating_mul(512),
        wanted: time(metadata.atime(), metadata.atime_nsec()),
    }
}

fn time(seconds: i64, nanoseconds: i64) -> Timestamp {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or_default();
    Timestamp::new(seconds, nanoseconds).unwrap_or_default()
}

/// A digest from text, as every digest from outside.
pub fn digest(text: &str) -> Result<Digest, StoreError> {
    Ok(parse_digest(text)?)
}

/// A digest from its parts, both of which are ours.
fn digest_from(algorithm: &str, hex: &str) -> Result<Digest, StoreError> {
    let text = format!("{algorithm}:{hex}");
    Digest::from_str(&text).map_err(|_| {
        StoreError::Descriptor(orlop_proto::descriptor::DescriptorError::Digest { digest: text })
    })
}
