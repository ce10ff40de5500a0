//! What a context's files looked like last time, so that only those that changed are hashed. A file of
//! the builder's state for each context; losing one costs hashing again.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use orlop_proto::builder::ContextEntry;
use prost::Message;
use sha2::{Digest as _, Sha256};

use super::{Kind, Tree};
use crate::error::BuildError;

/// The directory of these files.
#[derive(Clone, Debug)]
pub struct Memory {
    directory: PathBuf,
}

#[derive(Clone, PartialEq, Message)]
struct Remembered {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(bytes = "vec", tag = "1")]
    path: Vec<u8>,
    #[prost(string, tag = "2")]
    digest: String,
    #[prost(int64, tag = "3")]
    size: i64,
    #[prost(int64, tag = "4")]
    mtime_seconds: i64,
    #[prost(int32, tag = "5")]
    mtime_nanos: i32,
    #[prost(int64, tag = "6")]
    ctime_nanos: i64,
    #[prost(uint64, tag = "7")]
    inode: u64,
}

impl File {
    fn new(entry: &ContextEntry, digest: &str) -> Self {
        let mtime = entry.mtime.unwrap_or_default();
        Self {
            path: entry.path.to_vec(),
            digest: digest.to_owned(),
            size: entry.size,
            mtime_seconds: mtime.seconds,
            mtime_nanos: mtime.nanos,
            ctime_nanos: entry.ctime_nanos,
            inode: entry.inode,
        }
    }
}

impl Memory {
    /// Opens the directory.
    pub fn open(directory: &Path) -> Result<Self, BuildError> {
        fs::create_dir_all(directory).map_err(|error| BuildError::State {
            path: directory.display().to_string(),
            problem: error.to_string(),
        })?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    fn file(&self, context_id: &str) -> PathBuf {
        self.directory.join(hex::encode(Sha256::digest(context_id)))
    }

    /// Fills in the digests that cannot have changed; the places of the files that must be hashed.
    pub fn recall(&self, context_id: &str, tree: &mut Tree) -> Vec<u32> {
        let bytes = match context_id.is_empty() {
            true => Vec::new(),
            false => fs::read(self.file(context_id)).unwrap_or_default(),
        };
        let known = Remembered::decode(bytes.as_slice()).unwrap_or_default();
        let known: HashMap<&[u8], &File> = known.files.iter().map(|f| (&*f.path, f)).collect();
        let mut unknown = Vec::new();
        for place in 0..tree.len() {
            if tree.kind(place) != Kind::File {
                continue;
            }
            let entry = tree.entry(place);
            let same = known
                .get(&*entry.path)
                .filter(|file| ***file == File::new(entry, &file.digest));
            match same.map(|file| file.digest.clone()) {
                Some(digest) => tree.set_digest(place, digest),
                None => unknown.push(u32::try_from(place).unwrap_or(u32::MAX)),
            }
        }
        unknown
    }

    /// Remembers a context. It is a cache: not synced, and a failure is only logged.
    pub fn remember(&self, context_id: &str, tree: &Tree) {
        if context_id.is_empty() {
            return;
        }
        let places = (0..tree.len()).filter(|place| tree.kind(*place) == Kind::File);
        let files = places
            .map(|place| File::new(tree.entry(place), tree.digest(place)))
            .collect();
        let bytes = Remembered { files }.encode_to_vec();
        let path = self.file(context_id);
        let temporary = self.directory.join(crate::random_id("new"));
        let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot remember a build context");
        }
    }
}
