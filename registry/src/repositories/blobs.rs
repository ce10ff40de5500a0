//! Blobs of a repository: membership, and mounts from one repository to another.

use orlop_proto::error::Kind as ErrorKind;

use super::files::Kind;
use super::{Repositories, not_found};
use crate::index::Table;
use crate::names::Repository;
use crate::{Error, Result};

impl Repositories {
    /// Whether the repository has the blob.
    pub fn has_blob(&self, repository: &Repository, digest: &str) -> Result<bool> {
        Ok(self
            .index
            .has(Table::Blobs, &[repository.as_str(), digest])?)
    }

    /// The size of a blob of the repository; `None` when it has none such.
    pub async fn blob_size(&self, repository: &Repository, digest: &str) -> Result<Option<u64>> {
        if !self.has_blob(repository, digest)? {
            return Ok(None);
        }
        Ok(self.store.content.size(digest).await?)
    }

    /// Makes a blob that the store has, and that the repository's lease holds, one of the
    /// repository's.
    pub async fn link_blob(&self, repository: &Repository, digest: &str) -> Result<()> {
        let _lock = self.lock(repository).await;
        self.put_file(repository, Kind::Blobs, digest, String::new())
            .await?;
        super::index_entry(&self.index, repository, Kind::Blobs, digest, "")
    }

    /// Takes a blob out of the repository.
    pub async fn unlink_blob(&self, repository: &Repository, digest: &str) -> Result<()> {
        let _lock = self.lock(repository).await;
        if !self.has_blob(repository, digest)? {
            return Err(not_found(repository, digest));
        }
        self.remove_file(repository, Kind::Blobs, digest).await?;
        self.index
            .remove(Table::Blobs, &[repository.as_str(), digest])?;
        self.index
            .remove(Table::Holders, &[digest, repository.as_str()])?;
        self.release(repository, digest).await
    }

    /// Makes a blob of `from` (or, with none, of any repository) one of `to`; whether that could be
    /// done.
    pub async fn mount(
        &self,
        from: Option<&Repository>,
        to: &Repository,
        digest: &str,
    ) -> Result<bool> {
        let allowed = match from {
            Some(from) => self.has_blob(from, digest)?,
            None => !self
                .index
                .list(Table::Holders, &[digest], "", 1)?
                .is_empty(),
        };
        if !allowed {
            return Ok(false);
        }
        let lease = self.lease(to).await?;
        self.store
            .leases
            .add(&lease, vec![digest.to_owned()])
            .await?;
        // Asked after the lease holds it: from here on it cannot go away.
        if self.store.content.size(digest).await?.is_none() {
            return Ok(false);
        }
        self.link_blob(to, digest).await?;
        Ok(true)
    }

    /// Takes a blob or a manifest out of the repository's lease.
    pub(super) async fn release(&self, repository: &Repository, digest: &str) -> Result<()> {
        let lease = super::lease_id(repository);
        let released = self.store.leases.release(&lease, vec![digest.to_owned()]);
        match released.await {
            Err(failure) if failure.kind != ErrorKind::NotFound => Err(Error::Store(failure)),
            _ => Ok(()),
        }
    }
}
