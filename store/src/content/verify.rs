//! A wrong byte is never served. A blob is *known good* when this process has verified it and its file
//! is still the same; any other is hashed before its last byte goes out. What is damaged is put aside,
//! so that it is missing, and whole again when somebody writes it again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use oci_spec::image::Digest;
use rustix::fs::OFlags;

use super::{Content, Hasher, not_found};
use crate::StoreError;
use crate::metrics::METRICS;
use crate::quarantine::Suspect;

/// Half of the blobs that are remembered as good: about 2 MiB of memory.
const GENERATION: usize = 50_000;

/// What a file is told by. Who writes into a blob's file changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.len(),
        }
    }
}

/// The files that are known good. Two generations: when the younger is full the older is forgotten.
#[derive(Debug, Default)]
pub(super) struct Known {
    generations: Mutex<[HashMap<u64, Stamp>; 2]>,
}

impl Known {
    pub(super) fn insert(&self, stamp: Stamp) {
        let mut generations = self.lock();
        if generations[0].len() >= GENERATION {
            generations.swap(0, 1);
            generations[0].clear();
        }
        generations[0].insert(stamp.inode, stamp);
        generations[1].remove(&stamp.inode);
    }

    fn contains(&self, stamp: Stamp) -> bool {
        let generations = self.lock();
        let mut found = generations.iter().filter_map(|g| g.get(&stamp.inode));
        found.next() == Some(&stamp)
    }

    fn forget(&self, stamp: Stamp) {
        for generation in self.lock().iter_mut() {
            generation.remove(&stamp.inode);
        }
    }

    fn lock(&self) -> MutexGuard<'_, [HashMap<u64, Stamp>; 2]> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files that are hashed now: a hundred readers of one blob hash it once.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    inodes: Mutex<HashSet<u64>>,
    done: Condvar,
}

struct Turn<'a>(&'a Hashing, u64);

impl Hashing {
    fn turn(&self, inode: u64) -> Turn<'_> {
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        while !inodes.insert(inode) {
            inodes = self
                .done
                .wait(inodes)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self, inode)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let inodes = self.0.inodes.lock();
        inodes
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.1);
        self.0.done.notify_all();
    }
}

/// Bytes of a blob in pieces. The last piece comes only when all of them are right.
#[derive(Debug)]
pub struct BlobReader {
    content: Content,
    digest: Digest,
    file: File,
    stamp: Stamp,
    left: u64,
    /// Of a blob that is not known good and is read as a whole.
    hasher: Option<Hasher>,
}

impl Content {
    /// Opens a blob for reading, all its bytes verified. Reading it this way does not make it look
    /// wanted.
    pub fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        self.open_checked(digest, false).map(|(file, _)| file)
    }

    /// Opens a blob to look what it may be. Nothing that is read from it may leave the process.
    pub fn open_unverified(&self, digest: &Digest) -> Result<File, StoreError> {
        self.open_regular(digest).map(|(file, _)| file)
    }

    /// Reads all bytes of a blob from the disk and compares them with its digest, whatever is known of
    /// it. One that is damaged is put aside.
    pub fn verify(&self, digest: &Digest) -> Result<(), StoreError> {
        self.open_checked(digest, true).map(drop)
    }

    /// Whether a blob is here and sound, so that it need not be written again; it is wanted then.
    pub fn keep(&self, digest: &Digest) -> Result<bool, StoreError> {
        if !self.want(digest) {
            return Ok(false);
        }
        match self.open(digest) {
            Ok(_) => Ok(true),
            Err(StoreError::BlobNotFound { .. } | StoreError::BlobDamaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads `length` bytes from `offset` (0: all from there). `verify`: hash the whole blob even
    /// when it is known good. A part of a blob that is not known good is given after the whole was
    /// hashed: there is no digest of a part.
    pub fn reader(
        &self,
        digest: &Digest,
        offset: i64,
        length: i64,
        verify: bool,
    ) -> Result<BlobReader, StoreError> {
        let (mut file, mut stamp) = self.open_regular(digest)?;
        let (start, length) = range(digest, stamp.size, offset, length)?;
        let mut hasher = None;
        if length == stamp.size {
            if verify || !self.inner.known.contains(stamp) {
                hasher = Some(Hasher::new(digest.algorithm())?);
            }
        } else {
            (file, stamp) = self.open_checked(digest, verify)?;
            file.seek(SeekFrom::Start(start))
                .map_err(StoreError::io("seek", self.path(digest)))?;
        }
        let mut reader = BlobReader {
            content: self.clone(),
            digest: digest.clone(),
            file,
            stamp,
            left: length,
            hasher,
        };
        if length == 0 {
            reader.judge()?;
        }
        Ok(reader)
    }

    /// A file that is known good is given as it is, any other after it was hashed.
    fn open_checked(&self, digest: &Digest, force: bool) -> Result<(File, Stamp), StoreError> {
        let (mut file, stamp) = self.open_regular(digest)?;
        if !force && self.inner.known.contains(stamp) {
            return Ok((file, stamp));
        }
        let _turn = self.inner.hashing.turn(stamp.inode);
        if !force && self.inner.known.contains(stamp) {
            return Ok((file, stamp));
        }
        let mut hasher = Hasher::new(digest.algorithm())?;
        if let Err(error) = hasher.read_all(&mut file) {
            return Err(self.unreadable(digest, Some(stamp), error));
        }
        self.judge(digest, stamp, hasher)?;
        file.rewind()
            .map_err(StoreError::io("seek", self.path(digest)))?;
        Ok((file, stamp))
    }

    /// Opens what must be a regular file; nothing else is opened, a FIFO least of all.
    fn open_regular(&self, digest: &Digest) -> Result<(File, Stamp), StoreError> {
        let path = self.path(digest);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => return Err(self.unopened(digest, None, error)),
        };
        let stamp = Stamp::of(&metadata);
        if !metadata.is_file() {
            return Err(self.misplaced(digest, &metadata));
        }
        let open = |flags: OFlags| {
            let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            OpenOptions::new()
                .read(true)
                .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
                .open(&path)
        };
        // Only the owner may ask for O_NOATIME.
        let opened = match open(OFlags::NOATIME) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(OFlags::empty()),
            other => other,
        };
        let file = opened.map_err(|error| self.unopened(digest, Some(stamp), error))?;
        let metadata = file.metadata().map_err(StoreError::io("examine", &path))?;
        Ok((file, Stamp::of(&metadata)))
    }

    /// Remembers a blob as good, or puts it aside.
    fn judge(&self, digest: &Digest, stamp: Stamp, hasher: Hasher) -> Result<(), StoreError> {
        let actual = hasher.finish()?;
        if actual == *digest {
            self.inner.known.insert(stamp);
            return Ok(());
        }
        Err(self.condemn(digest, stamp, format!("its bytes have digest {actual}")))
    }

    /// The error of a blob whose file is something else.
    pub(super) fn misplaced(&self, digest: &Digest, metadata: &Metadata) -> StoreError {
        let kind = if metadata.is_dir() {
            "a directory"
        } else if metadata.is_symlink() {
            "a symbolic link"
        } else {
            "a special file"
        };
        let detail = format!("{kind} is in its place");
        self.condemn(digest, Stamp::of(metadata), detail)
    }

    fn unopened(&self, digest: &Digest, stamp: Option<Stamp>, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::NotFound => not_found(digest),
            _ => self.unreadable(digest, stamp, error),
        }
    }

    /// A file that the disk does not give back is damaged; when it cannot even be put aside, the disk
    /// is.
    pub(super) fn unreadable(
        &self,
        digest: &Digest,
        stamp: Option<Stamp>,
        error: io::Error,
    ) -> StoreError {
        let broken = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
        let detail = format!("it cannot be read: {error}");
        match stamp.filter(|_| broken) {
            Some(stamp) if self.put_aside(digest, stamp).is_ok() => damaged(digest, detail),
            _ => StoreError::io("read", self.path(digest))(error),
        }
    }

    /// Puts a damaged blob aside; its error.
    pub(super) fn condemn(&self, digest: &Digest, stamp: Stamp, detail: String) -> StoreError {
        self.inner.known.forget(stamp);
        if let Err(error) = self.put_aside(digest, stamp) {
            let error = orlop_proto::error::chain(&error);
            tracing::error!(%digest, error, "a damaged blob cannot be put aside");
        }
        damaged(digest, detail)
    }

    /// Only the file that was judged: by now a good one may have its name.
    fn put_aside(&self, digest: &Digest, stamp: Stamp) -> Result<(), StoreError> {
        let _sweeping = self.sweep();
        let path = self.path(digest);
        let same = |metadata: Metadata| metadata.ino() == stamp.inode;
        if !fs::symlink_metadata(&path).is_ok_and(same) {
            return Ok(());
        }
        let name = format!("{}-{}", digest.algorithm(), digest.digest());
        self.inner.quarantine.put(Suspect::Blob, &name, &path)?;
        METRICS.blobs_quarantined.inc();
        Ok(())
    }
}

impl BlobReader {
    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece, of at most `max` bytes; `None` at the end. The last one comes only if all bytes
    /// of the blob are right.
    pub fn piece(&mut self, max: usize) -> Result<Option<Vec<u8>>, StoreError> {
        if self.left == 0 {
            return Ok(None);
        }
        let wanted = self.left.min(max as u64);
        let mut data = Vec::with_capacity(usize::try_from(wanted).unwrap_or(max));
        if let Err(error) = (&mut self.file).take(wanted).read_to_end(&mut data) {
            let stamp = Some(self.stamp);
            return Err(self.content.unreadable(&self.digest, stamp, error));
        }
        if (data.len() as u64) < wanted {
            let detail = "its file ends too early".to_owned();
            return Err(self.content.condemn(&self.digest, self.stamp, detail));
        }
        self.left -= wanted;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&data);
        }
        if self.left == 0 {
            self.judge()?;
        }
        Ok(Some(data))
    }

    fn judge(&mut self) -> Result<(), StoreError> {
        match self.hasher.take() {
            Some(hasher) => self.content.judge(&self.digest, self.stamp, hasher),
            None => Ok(()),
        }
    }
}

/// First byte and number of bytes.
fn range(digest: &Digest, size: u64, offset: i64, length: i64) -> Result<(u64, u64), StoreError> {
    let beyond = || StoreError::RangeBeyondEnd {
        digest: digest.to_string(),
        size,
        offset,
    };
    let start = u64::try_from(offset).map_err(|_| beyond())?;
    let rest = size.checked_sub(start).ok_or_else(beyond)?;
    match u64::try_from(length) {
        Ok(0) => Ok((start, rest)),
        Ok(length) if length <= rest => Ok((start, length)),
        _ => Err(beyond()),
    }
}

fn damaged(digest: &Digest, detail: String) -> StoreError {
    StoreError::BlobDamaged {
        digest: digest.to_string(),
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_has_a_bound() {
        let known = Known::default();
        let stamp = |inode| Stamp {
            inode,
            modified: (0, 0),
            size: 1,
        };
        for inode in 0..3 * GENERATION as u64 {
            known.insert(stamp(inode));
        }
        assert!(known.lock().iter().map(HashMap::len).sum::<usize>() <= 2 * GENERATION);
        assert!(known.contains(stamp(3 * GENERATION as u64 - 1)));
        assert!(!known.contains(stamp(0)));
    }
}
