//! The repositories that we serve: which blobs, manifests and tags each one has. Membership is what
//! makes a blob visible in a repository (`SECURITY` rows F4 and F5); its bytes are the store's, where
//! one lease for each repository keeps them.
//!
//! Every change is a durable file first, then the store's lease, then the index.

mod blobs;
mod files;
mod manifests;
mod uploads;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use tokio::sync::MutexGuard;

use crate::index::{Index, Table};
use crate::names::{Repository, Tag};
use crate::ports::Store;
use crate::{Error, Result};

pub use files::Files;
use files::Kind;
pub use manifests::{Referrer, StoredManifest, Target};

/// More than the cores of a host; repositories that share a lock wait for each other's small files.
const LOCKS: usize = 64;
/// The most entries of one page (`SECURITY` row F2).
pub const PAGE_MAX: usize = 1000;

/// The repositories.
#[derive(Debug)]
pub struct Repositories {
    files: Arc<Files>,
    index: Arc<Index>,
    store: Store,
    locks: Vec<tokio::sync::Mutex<()>>,
    leased: Mutex<HashSet<String>>,
    manifests: Mutex<manifests::Cache>,
}

impl Repositories {
    /// Opens the repositories below a directory, with `index` over them; `rebuild` fills it.
    pub fn open(root: &Path, index: Arc<Index>, rebuild: bool, store: Store) -> Result<Self> {
        let files = Files::open(root)?;
        if rebuild {
            files.scan(|repository, kind, name, content| {
                index_entry(&index, repository, kind, name, content)
            })?;
        }
        Ok(Self {
            files: Arc::new(files),
            index,
            store,
            locks: (0..LOCKS).map(|_| tokio::sync::Mutex::new(())).collect(),
            leased: Mutex::default(),
            manifests: Mutex::default(),
        })
    }

    /// Makes the leases of all repositories anew, for a store that may have lost them. Idempotent.
    pub async fn hold_again(&self) -> Result<()> {
        for name in self.list("", usize::MAX)? {
            let repository: Repository = name.parse()?;
            let mut digests = Vec::new();
            for table in [Table::Blobs, Table::Manifests] {
                let entries = self.index.list(table, &[&name], "", usize::MAX)?;
                digests.extend(entries.into_iter().map(|(digest, _)| digest));
            }
            let lease = self.lease(&repository).await?;
            self.store.leases.add(&lease, digests).await?;
        }
        Ok(())
    }

    /// Names in order, after `last`.
    pub fn list(&self, last: &str, most: usize) -> Result<Vec<String>> {
        let entries = self.index.list(Table::Repositories, &[], last, most)?;
        Ok(entries.into_iter().map(|(name, _)| name).collect())
    }

    /// Tags in order, after `last`, each with its digest.
    pub fn tags(
        &self,
        repository: &Repository,
        last: &str,
        most: usize,
    ) -> Result<Vec<(String, String)>> {
        self.must_exist(repository)?;
        Ok(self
            .index
            .list(Table::Tags, &[repository.as_str()], last, most)?)
    }

    /// Removes a tag, and nothing that it points at.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<()> {
        let _lock = self.lock(repository).await;
        let key = [repository.as_str(), tag.as_str()];
        if !self.index.has(Table::Tags, &key)? {
            return Err(not_found(repository, tag.as_str()));
        }
        self.remove_file(repository, Kind::Tags, tag.as_str())
            .await?;
        self.index.remove(Table::Tags, &key)?;
        Ok(())
    }

    /// Removes a whole repository.
    pub async fn delete(&self, repository: &Repository) -> Result<()> {
        let _lock = self.lock(repository).await;
        self.must_exist(repository)?;
        let (files, name) = (Arc::clone(&self.files), repository.clone());
        tokio::task::spawn_blocking(move || files.remove_repository(&name)).await??;
        let name = repository.as_str();
        for (digest, _) in self.index.list(Table::Blobs, &[name], "", usize::MAX)? {
            self.index.remove(Table::Holders, &[&digest, name])?;
        }
        for table in [
            Table::Blobs,
            Table::Manifests,
            Table::Tags,
            Table::Referrers,
        ] {
            for (rest, _) in self.index.list(table, &[name], "", usize::MAX)? {
                self.index.remove(table, &[name, &rest])?;
            }
        }
        self.index.remove(Table::Repositories, &[name])?;
        let lease = lease_id(repository);
        self.leased().remove(&lease);
        Ok(self.store.leases.delete(&lease).await?)
    }

    /// An error unless the repository has been written to.
    pub fn must_exist(&self, repository: &Repository) -> Result<()> {
        if self
            .index
            .has(Table::Repositories, &[repository.as_str()])?
        {
            return Ok(());
        }
        Err(not_found(repository, "anything"))
    }

    /// The repository's lease, which exists from now on.
    pub async fn lease(&self, repository: &Repository) -> Result<String> {
        let lease = lease_id(repository);
        if !self.leased().contains(&lease) {
            self.store.leases.put(&lease, 0).await?;
            self.leased().insert(lease.clone());
        }
        Ok(lease)
    }

    fn leased(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lock(&self, repository: &Repository) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        repository.hash(&mut hasher);
        let position = usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or_default();
        self.locks[position].lock().await
    }

    async fn put_file(
        &self,
        repository: &Repository,
        kind: Kind,
        name: &str,
        content: String,
    ) -> Result<()> {
        let (files, repository, name) =
            (Arc::clone(&self.files), repository.clone(), name.to_owned());
        let put = move || files.put(&repository, kind, &name, content.as_bytes());
        tokio::task::spawn_blocking(put).await?
    }

    async fn remove_file(&self, repository: &Repository, kind: Kind, name: &str) -> Result<bool> {
        let (files, repository, name) =
            (Arc::clone(&self.files), repository.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || files.remove(&repository, kind, &name)).await?
    }
}

/// Puts what one file says into the index.
fn index_entry(
    index: &Index,
    repository: &Repository,
    kind: Kind,
    name: &str,
    content: &str,
) -> Result<()> {
    let repository = repository.as_str();
    match kind {
        Kind::Blobs => {
            index.set(Table::Blobs, &[repository, name], "")?;
            index.set(Table::Holders, &[name, repository], "")?;
        }
        Kind::Manifests => manifests::index_record(index, repository, name, content)?,
        Kind::Tags => index.set(Table::Tags, &[repository, name], content)?,
        Kind::Uploads => return Ok(()),
    }
    Ok(index.set(Table::Repositories, &[repository], "")?)
}

/// A repository's lease: the form of lease ids has no `/` and ends before long names do.
fn lease_id(repository: &Repository) -> String {
    let hash = hex::encode(Sha256::digest(repository.as_str()));
    format!("registry-{}", &hash[..32])
}

fn not_found(repository: &Repository, what: &str) -> Error {
    Error::NotFound {
        repository: repository.to_string(),
        what: what.to_owned(),
    }
}
