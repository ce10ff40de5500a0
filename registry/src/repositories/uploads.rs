//! Uploads that were begun: a file each, so that they go on after a restart. Their bytes are an
//! ingest of the store with the same name.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::files::Kind;
use super::{Repositories, not_found};
use crate::Result;
use crate::names::{Repository, random_name};
use crate::ports::{Open, Piece};

impl Repositories {
    /// Begins an upload; returns its name.
    pub async fn begin_upload(&self, repository: &Repository) -> Result<String> {
        let upload = random_name()?;
        self.put_file(repository, Kind::Uploads, &upload, String::new())
            .await?;
        Ok(upload)
    }

    /// The durable bytes of an upload.
    pub async fn upload_offset(&self, repository: &Repository, upload: &str) -> Result<u64> {
        self.must_have_upload(repository, upload).await?;
        let offset = self.store.content.ingest_offset(&ingest(upload)).await?;
        Ok(offset.unwrap_or_default())
    }

    /// Writes pieces at the durable offset; returns the next one. A commit among the pieces leaves the
    /// blob to [`Repositories::finish_upload`].
    pub async fn write_upload(
        &self,
        repository: &Repository,
        upload: &str,
        offset: u64,
        pieces: mpsc::Receiver<Piece>,
    ) -> Result<u64> {
        let open = Open {
            id: ingest(upload),
            offset,
            truncate: false,
            lease: self.lease(repository).await?,
            diff_id: String::new(),
        };
        Ok(self.store.content.write(open, pieces).await?)
    }

    /// Makes the blob of a committed upload one of the repository's, and forgets the upload.
    pub async fn finish_upload(
        &self,
        repository: &Repository,
        upload: &str,
        digest: &str,
    ) -> Result<()> {
        self.link_blob(repository, digest).await?;
        self.remove_file(repository, Kind::Uploads, upload).await?;
        Ok(())
    }

    /// Cancels an upload.
    pub async fn cancel_upload(&self, repository: &Repository, upload: &str) -> Result<()> {
        self.must_have_upload(repository, upload).await?;
        self.store.content.abort(&ingest(upload)).await?;
        self.remove_file(repository, Kind::Uploads, upload).await?;
        Ok(())
    }

    async fn must_have_upload(&self, repository: &Repository, upload: &str) -> Result<()> {
        let well_formed = upload.len() == 32 && upload.bytes().all(|b| b.is_ascii_hexdigit());
        let (files, name, id) = (
            Arc::clone(&self.files),
            repository.clone(),
            upload.to_owned(),
        );
        let exists = move || well_formed && files.exists(&name, Kind::Uploads, &id);
        if tokio::task::spawn_blocking(exists).await? {
            return Ok(());
        }
        Err(not_found(repository, &format!("upload {upload}")))
    }
}

fn ingest(upload: &str) -> String {
    format!("upload-{upload}")
}
