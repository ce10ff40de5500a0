//! Digests of streams. `sha2` uses the processor's SHA instructions where it has them.

use std::fs::File;
use std::io::{self, Read as _};

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::StoreError;

/// Read from a file at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// A digest being computed.
#[derive(Clone, Debug)]
pub enum Hasher {
    /// The usual.
    Sha256(Sha256),
    /// Registered in the OCI image specification.
    Sha384(Sha384),
    /// Registered in the OCI image specification.
    Sha512(Sha512),
}

impl Hasher {
    /// A hasher of nothing yet. Errors on an algorithm that is not ours.
    pub fn new(algorithm: &DigestAlgorithm) -> Result<Self, StoreError> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Self::sha256()),
            DigestAlgorithm::Sha384 => Ok(Self::Sha384(Sha384::new())),
            DigestAlgorithm::Sha512 => Ok(Self::Sha512(Sha512::new())),
            other => Err(StoreError::Descriptor(
                orlop_proto::descriptor::DescriptorError::Digest {
                    digest: other.to_string(),
                },
            )),
        }
    }

    /// A hasher of the usual algorithm.
    pub fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    /// The digest of bytes in memory.
    pub fn digest_of(algorithm: &DigestAlgorithm, bytes: &[u8]) -> Result<Digest, StoreError> {
        let mut hasher = Self::new(algorithm)?;
        hasher.update(bytes);
        hasher.finish()
    }

    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha384(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Takes in what is left of a file.
    pub(super) fn read_all(&mut self, file: &mut File) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(()),
                count => self.update(chunk.get(..count).unwrap_or_default()),
            }
        }
    }

    /// The digest of all that was taken in.
    pub fn finish(self) -> Result<Digest, StoreError> {
        match self {
            Self::Sha256(hasher) => super::digest_from("sha256", &hex::encode(hasher.finalize())),
            Self::Sha384(hasher) => super::digest_from("sha384", &hex::encode(hasher.finalize())),
            Self::Sha512(hasher) => super::digest_from("sha512", &hex::encode(hasher.finalize())),
        }
    }
}
