//! One blob of a push: not at all if the remote has it, by a mount if it has it elsewhere, else its
//! bytes, which go on after a broken connection where the remote says that they stopped.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use orlop_proto::error::Failure;
use reqwest::Body;

use super::fetch::passes;
use super::plan::Blob;
use super::progress::Progress;
use super::{Tally, Transfer};
use crate::remote::{Mount, Remote, Started, Upload, delay};
use crate::{Error, Result};

/// Blobs up to this size go in one request; a larger one is worth resuming.
const ONE_REQUEST_BYTES_MAX: usize = 1024 * 1024;

impl Transfer {
    pub(super) async fn upload(
        &self,
        remote: &Remote<'_>,
        repository: &str,
        blob: &Blob,
        progress: &Progress,
    ) -> Result<Tally> {
        let digest = &blob.digest;
        if remote.has_blob(digest).await? {
            self.known.learn(remote.host(), repository, digest);
            progress
                .state(digest, "exists", blob.size, String::new())
                .await;
            return Ok(Tally::existed());
        }
        let (started, detail) = self.start(remote, repository, digest).await?;
        let tally = match started {
            Started::Mounted => {
                progress.state(digest, "mounted", blob.size, detail).await;
                Tally::mounted()
            }
            Started::Upload(upload) => {
                let _turn = self.turn().await;
                let wire = self.send(remote, blob, upload, progress).await?;
                progress
                    .state(digest, "pushed", blob.size, String::new())
                    .await;
                Tally::transferred(wire)
            }
        };
        self.known.learn(remote.host(), repository, digest);
        Ok(tally)
    }

    /// Begins an upload, by way of every repository that may have the blob, or of all of them. Tells the
    /// repository of a mount, where it is known.
    async fn start(
        &self,
        remote: &Remote<'_>,
        repository: &str,
        digest: &str,
    ) -> Result<(Started, String)> {
        let mut session = None;
        for from in self.known.candidates(remote.host(), repository, digest) {
            match remote.start_upload(digest, Mount::From(&from)).await {
                Ok(Started::Mounted) => {
                    return Ok((Started::Mounted, from));
                }
                Ok(started) => session = Some(started),
                Err(error) if passes(&error) => return Err(error),
                // Not to be read by us, for example.
                Err(error) => tracing::debug!(%error, from, "no mount"),
            }
            self.known.forget(remote.host(), &from, digest);
        }
        if let Some(started) = session {
            return Ok((started, String::new()));
        }
        match remote.start_upload(digest, Mount::Anywhere).await {
            Ok(started) => Ok((started, String::new())),
            Err(Error::Status { .. }) => {
                let started = remote.start_upload(digest, Mount::No).await?;
                Ok((started, String::new()))
            }

            Err(error) => Err(error),
        }
    }

    /// Sends the bytes; returns how many travelled.
    async fn send(
        &self,
        remote: &Remote<'_>,
        blob: &Blob,
        mut upload: Upload,
        progress: &Progress,
    ) -> Result<u64> {
        if blob.size <= ONE_REQUEST_BYTES_MAX as u64 {
            let bytes = self
                .store
                .read_small(&blob.digest, ONE_REQUEST_BYTES_MAX)
                .await?;
            let wire = bytes.len() as u64;
            remote.finish_upload(&upload, &blob.digest, bytes).await?;
            return Ok(wire);
        }
        let (mut offset, mut failures, mut wire) = (0, 0, 0);
        while offset < blob.size {
            let sent = self
                .send_rest(remote, blob, &mut upload, offset, progress)
                .await;
            let Err(error) = sent else {
                wire += blob.size - offset;
                break;
            };
            let again = passes(&error)
                || matches!(
                    error,
                    Error::Unauthenticated { .. } | Error::Status { status: 416, .. }
                );
            let Some(pause) = delay(failures).filter(|_| again) else {
                return Err(error);
            };
            tokio::time::sleep(pause).await;
            let reached = remote.upload_offset(&mut upload).await?;
            failures = if reached > offset { 0 } else { failures + 1 };
            wire += reached.saturating_sub(offset);
            offset = reached;
        }
        let done = Bytes::new();
        remote.finish_upload(&upload, &blob.digest, done).await?;
        Ok(wire)
    }

    async fn send_rest(
        &self,
        remote: &Remote<'_>,
        blob: &Blob,
        upload: &mut Upload,
        offset: u64,
        progress: &Progress,
    ) -> Result<()> {
        let chunks = self.store.content.read(&blob.digest, offset, 0).await?;
        let fault: Arc<Mutex<Option<Failure>>> = Arc::default();
        let (seen, mut at) = (Arc::clone(&fault), offset);
        let mut steps = progress.steps(&blob.digest, "pushing", blob.size);
        let body = Body::wrap_stream(chunks.map(move |chunk| match chunk {
            Ok(bytes) => {
                at += bytes.len() as u64;
                steps.at(at);
                Ok(bytes)
            }
            Err(failure) => {
                let mut slot = seen.lock().unwrap_or_else(PoisonError::into_inner);
                *slot = Some(failure.clone());
                Err(failure)
            }
        }));
        let length = blob.size.saturating_sub(offset);
        let sent = remote.send_chunk(upload, offset, length, body).await;
        let own = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        match own {
            Some(failure) => Err(failure.into()),
            None => sent,
        }
    }
}
