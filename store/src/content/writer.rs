//! Blobs made in this process: layers packed here, members of archives.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use super::{Content, Hasher};
use crate::{StoreError, files};

/// The disk's reserve is checked again after this many bytes.
const RESERVE_CHECK_BYTES: u64 = 64 * 1024 * 1024;

/// Writes and hashes a blob. Dropped without [`BlobWriter::commit`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    content: Content,
    file: File,
    temporary: Temporary,
    hasher: Hasher,
    size: u64,
}

/// A blob that is complete and not yet published; dropped, it is gone.
#[derive(Debug)]
pub struct Sealed {
    temporary: Temporary,
    digest: Digest,
    size: u64,
}

/// A path that is removed when it is dropped, unless it was renamed by then.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

impl BlobWriter {
    pub(super) fn create(content: &Content) -> Result<Self, StoreError> {
        let path = content.inner.temporary.join(files::temporary_name()?);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        crate::failpoint::reach("content.writer.created");
        Ok(Self {
            content: content.clone(),
            file,
            temporary: Temporary(path),
            hasher: Hasher::sha256(),
            size: 0,
        })
    }

    /// The digest will be of this algorithm; call it before the first byte.
    pub fn with_hasher(mut self, hasher: Hasher) -> Self {
        self.hasher = hasher;
        self
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Ends the writing and publishes: verified against what is expected, durable, then visible.
    pub fn commit(self, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64), StoreError> {
        let content = self.content.clone();
        let sealed = self.seal(expected)?;
        let result = (sealed.digest.clone(), sealed.size);
        content.publish(vec![sealed])?;
        Ok(result)
    }

    /// Ends the writing and verifies; [`Content::publish`] makes many durable with one sync.
    pub fn seal(self, expected: Option<(&Digest, u64)>) -> Result<Sealed, StoreError> {
        crate::failpoint::reach("content.writer.ended");
        let digest = self.hasher.finish()?;
        if let Some((expected, size)) = expected {
            verify(&digest, self.size, expected, Some(size))?;
        }
        Ok(Sealed {
            temporary: self.temporary,
            digest,
            size: self.size,
        })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.size / RESERVE_CHECK_BYTES;
        let written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        if self.size / RESERVE_CHECK_BYTES != before {
            self.content
                .check_reserve(0)
                .map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sealed {
    /// Its digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the bytes are until they are published.
    pub fn path(&self) -> &Path {
        &self.temporary.0
    }

    /// All bytes, at most `max`.
    pub fn read_all(&self, max: u64) -> Result<Vec<u8>, StoreError> {
        if self.size > max {
            return Err(StoreError::BlobTooLarge {
                digest: self.digest.to_string(),
                size: self.size,
                max,
            });
        }
        let mut bytes = Vec::new();
        File::open(self.path())
            .and_then(|file| file.take(max).read_to_end(&mut bytes))
            .map_err(StoreError::io("read", self.path()))?;
        Ok(bytes)
    }
}

/// Compares what was written with what was said.
pub(super) fn verify(
    digest: &Digest,
    size: u64,
    expected: &Digest,
    expected_size: Option<u64>,
) -> Result<(), StoreError> {
    if let Some(expected_size) = expected_size.filter(|expected| *expected != size) {
        return Err(StoreError::SizeMismatch {
            what: expected.to_string(),
            expected: i64::try_from(expected_size).unwrap_or(i64::MAX),
            actual: size,
        });
    }
    if digest != expected {
        return Err(StoreError::DigestMismatch {
            expected: expected.to_string(),
            actual: digest.to_string(),
        });
    }
    Ok(())
}
