//! A store in memory, with the rules of the contract that the registry relies upon.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use orlop_proto::error::{Failure, Kind};
use orlop_proto::types::Descriptor;
use orlop_registry::manifest::digest_like;
use orlop_registry::ports::{
    Answer, ByteStream, Content, Images, Leases, Open, Piece, Snapshots, Store,
};
use tokio::sync::mpsc;

#[derive(Debug, Default)]
pub struct State {
    pub blobs: HashMap<String, Bytes>,
    pub ingests: HashMap<String, Vec<u8>>,
    pub images: HashMap<String, Descriptor>,
    pub leases: HashMap<String, HashSet<String>>,
    pub unpacked: Vec<String>,
    /// The diff id with which each blob was written; empty for none.
    pub diff_ids: HashMap<String, String>,
    /// What `unpack` answers, if not success.
    pub unpack_fails: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<State>>);

impl Memory {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn store(&self) -> Store {
        Store {
            content: Arc::new(self.clone()),
            images: Arc::new(self.clone()),
            leases: Arc::new(self.clone()),
            snapshots: Arc::new(self.clone()),
        }
    }

    /// Waits until a lease holds the blob.
    pub async fn eventually_leased(&self, digest: &str) {
        for _ in 0..3000 {
            if self
                .state()
                .leases
                .values()
                .any(|held| held.contains(digest))
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("no lease holds {digest}");
    }

    /// Puts a blob in; returns its digest.
    pub fn put(&self, bytes: &[u8]) -> String {
        let digest = digest_like("sha256", bytes);
        let blob = Bytes::copy_from_slice(bytes);
        self.state().blobs.insert(digest.clone(), blob);
        digest
    }
}

pub fn failure(kind: Kind, message: &str) -> Failure {
    Failure {
        kind,
        message: message.to_owned(),
        reason: String::new(),
        hints: Vec::new(),
        metadata: HashMap::new(),
    }
}

fn ready<'a, T: Send + 'a>(answer: Result<T, Failure>) -> Answer<'a, T> {
    std::future::ready(answer).boxed()
}

impl Content for Memory {
    fn size<'a>(&'a self, digest: &'a str) -> Answer<'a, Option<u64>> {
        ready(Ok(self.state().blobs.get(digest).map(|b| b.len() as u64)))
    }

    fn find_missing(&self, digests: Vec<String>) -> Answer<'_, Vec<String>> {
        let state = self.state();
        let missing = digests.into_iter();
        ready(Ok(missing
            .filter(|digest| !state.blobs.contains_key(digest))
            .collect()))
    }

    fn read<'a>(&'a self, digest: &'a str, offset: u64, length: u64) -> Answer<'a, ByteStream> {
        let Some(blob) = self.state().blobs.get(digest).cloned() else {
            return ready(Err(failure(Kind::NotFound, "no such blob")));
        };
        let offset = usize::try_from(offset).unwrap();
        let end = match usize::try_from(length).unwrap() {
            0 => blob.len(),
            length => offset + length,
        };
        let part = blob.slice(offset..end);
        let starts = (0..part.len()).step_by(64 * 1024);
        let chunks: Vec<_> = starts
            .map(|at| Ok(part.slice(at..part.len().min(at + 64 * 1024))))
            .collect();
        ready(Ok(stream::iter(chunks).boxed()))
    }

    fn locate<'a>(&'a self, _digest: &'a str) -> Answer<'a, Option<(PathBuf, u64)>> {
        ready(Ok(None))
    }

    fn ingest_offset<'a>(&'a self, id: &'a str) -> Answer<'a, Option<u64>> {
        ready(Ok(self.state().ingests.get(id).map(|i| i.len() as u64)))
    }

    fn write(&self, open: Open, mut pieces: mpsc::Receiver<Piece>) -> Answer<'_, u64> {
        async move {
            {
                let mut state = self.state();
                let ingest = state.ingests.entry(open.id.clone()).or_default();
                if open.truncate {
                    ingest.clear();
                }
                if ingest.len() as u64 != open.offset {
                    return Err(failure(Kind::OutOfRange, "not the durable offset"));
                }
            }
            while let Some(piece) = pieces.recv().await {
                let mut state = self.state();
                match piece {
                    Piece::Data(data) => {
                        assert!(data.len() <= 1024 * 1024);
                        let ingest = state.ingests.get_mut(&open.id).unwrap();
                        ingest.extend_from_slice(&data);
                    }
                    Piece::Commit { digest, size } => {
                        let bytes = state.ingests.remove(&open.id).unwrap();
                        let length = bytes.len() as u64;
                        if digest_like(&digest, &bytes) != digest || (size != 0 && size != length) {
                            return Err(failure(Kind::InvalidArgument, "digest mismatch"));
                        }
                        state.blobs.insert(digest.clone(), bytes.into());
                        state.diff_ids.insert(digest.clone(), open.diff_id.clone());
                        if let Some(lease) = state.leases.get_mut(&open.lease) {
                            lease.insert(digest);
                        }
                        return Ok(length);
                    }
                }
            }
            Ok(self
                .state()
                .ingests
                .get(&open.id)
                .map_or(0, |i| i.len() as u64))
        }
        .boxed()
    }

    fn abort<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.state().ingests.remove(id);
        ready(Ok(()))
    }

    fn put<'a>(&'a self, blobs: Vec<(String, Bytes)>, lease: &'a str) -> Answer<'a, ()> {
        let mut state = self.state();
        for (digest, bytes) in blobs {
            if digest_like(&digest, &bytes) != digest {
                return ready(Err(failure(Kind::InvalidArgument, "digest mismatch")));
            }
            if let Some(lease) = state.leases.get_mut(lease) {
                lease.insert(digest.clone());
            }
            state.blobs.insert(digest, bytes);
        }
        ready(Ok(()))
    }
}

impl Images for Memory {
    fn get<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Descriptor>> {
        ready(Ok(self.state().images.get(name).cloned()))
    }

    fn put<'a>(&'a self, name: &'a str, target: Descriptor) -> Answer<'a, ()> {
        let mut state = self.state();
        if !state.blobs.contains_key(&target.digest) {
            return ready(Err(failure(Kind::FailedPrecondition, "no such manifest")));
        }
        state.images.insert(name.to_owned(), target);
        ready(Ok(()))
    }
}

impl Leases for Memory {
    fn put<'a>(&'a self, id: &'a str, _ttl_seconds: u64) -> Answer<'a, ()> {
        self.state().leases.entry(id.to_owned()).or_default();
        ready(Ok(()))
    }

    fn add<'a>(&'a self, id: &'a str, digests: Vec<String>) -> Answer<'a, ()> {
        ready(match self.state().leases.get_mut(id) {
            Some(lease) => {
                lease.extend(digests);
                Ok(())
            }
            None => Err(failure(Kind::NotFound, "no such lease")),
        })
    }

    fn release<'a>(&'a self, id: &'a str, digests: Vec<String>) -> Answer<'a, ()> {
        ready(match self.state().leases.get_mut(id) {
            Some(lease) => {
                lease.retain(|digest| !digests.contains(digest));
                Ok(())
            }
            None => Err(failure(Kind::NotFound, "no such lease")),
        })
    }

    fn delete<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.state().leases.remove(id);
        ready(Ok(()))
    }
}

impl Snapshots for Memory {
    fn unpack<'a>(&'a self, digest: &'a str, _lease: &'a str) -> Answer<'a, ()> {
        let mut state = self.state();
        if state.unpack_fails {
            return ready(Err(failure(Kind::InvalidArgument, "the diff id is wrong")));
        }
        state.unpacked.push(digest.to_owned());
        ready(Ok(()))
    }
}
