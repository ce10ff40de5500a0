//! Blobs: GET with ranges and HEAD (end-2), DELETE (end-10).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, RANGE,
};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;

use super::errors::{Code, Refusal};
use super::range::{Asked, asked};
use super::{Answer, Body, CONTENT_DIGEST, V2, empty, set};
use crate::Error;
use crate::names::Repository;

/// One read of a file: large enough that the system calls cost little beside the copy, small enough for
/// many responses at once.
const READ_BYTES: u64 = 256 * 1024;
/// Reads under way for one response: the next while one is sent.
const READ_AHEAD: usize = 2;

impl V2 {
    pub(super) async fn head_blob(&self, name: &Repository, digest: &str) -> Answer {
        let size = self.size(name, digest).await?;
        let mut response = empty(StatusCode::OK);
        describe(&mut response, digest, size);
        Ok(response)
    }

    pub(super) async fn get_blob(
        &self,
        name: &Repository,
        digest: &str,
        headers: &HeaderMap,
    ) -> Answer {
        let size = self.size(name, digest).await?;
        let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
        let (status, first, length) = match asked(range, size) {
            Asked::Whole => (StatusCode::OK, 0, size),
            Asked::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
            Asked::Beyond => {
                let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE);
                set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
                return Ok(response);
            }
        };
        let body = self.bytes(digest, first, length).await;
        let body = body.map_err(|error| Refusal::of(error, Code::BlobUnknown))?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        describe(&mut response, digest, length);
        if status == StatusCode::PARTIAL_CONTENT {
            let last = first + length - 1;
            set(
                &mut response,
                CONTENT_RANGE,
                &format!("bytes {first}-{last}/{size}"),
            );
        }
        Ok(response)
    }

    pub(super) async fn delete_blob(&self, name: &Repository, digest: &str) -> Answer {
        let deleted = self.repositories.unlink_blob(name, digest).await;
        deleted.map_err(|error| Refusal::of(error, Code::BlobUnknown))?;
        Ok(empty(StatusCode::ACCEPTED))
    }

    async fn size(&self, name: &Repository, digest: &str) -> Result<u64, Refusal> {
        let size = self.repositories.blob_size(name, digest).await;
        size.map_err(|error| Refusal::of(error, Code::BlobUnknown))?
            .ok_or_else(|| {
                let message = format!("repository {name} has no blob {digest}");
                Refusal::not_found(Code::BlobUnknown, message)
            })
    }

    /// The blob's bytes from its file, where the store is on this host, else through the store.
    async fn bytes(&self, digest: &str, first: u64, length: u64) -> crate::Result<Body> {
        if length == 0 {
            return Ok(empty(StatusCode::OK).into_body());
        }
        if let Some((path, _)) = self.store.content.locate(digest).await? {
            return file_body(path, first, length).await;
        }
        let chunks = self.store.content.read(digest, first, length).await?;
        let frames = chunks.map_ok(Frame::data).map_err(io::Error::other);
        Ok(StreamBody::new(frames).boxed_unsync())
    }
}

fn describe(response: &mut Response<Body>, digest: &str, length: u64) {
    set(response, CONTENT_TYPE, "application/octet-stream");
    set(response, CONTENT_LENGTH, &length.to_string());
    set(response, CONTENT_DIGEST, digest);
    set(response, ETAG, &format!("\"{digest}\""));
    set(response, ACCEPT_RANGES, "bytes");
}

/// Reads a file while it is sent. No thread waits for a slow client.
async fn file_body(path: PathBuf, first: u64, length: u64) -> crate::Result<Body> {
    let opened = path.clone();
    let file = tokio::task::spawn_blocking(move || File::open(opened)).await?;
    let file = Arc::new(file.map_err(Error::io(path))?);
    let end = first + length;
    let step = usize::try_from(READ_BYTES).unwrap_or(usize::MAX);
    let reads = stream::iter((first..end).step_by(step)).map(move |offset| {
        let file = Arc::clone(&file);
        let count = usize::try_from(READ_BYTES.min(end - offset)).unwrap_or_default();
        async move {
            tokio::task::spawn_blocking(move || read_at(&file, offset, count))
                .await
                .map_err(io::Error::other)?
        }
    });
    let frames = reads.buffered(READ_AHEAD).map_ok(Frame::data);
    Ok(StreamBody::new(frames).boxed_unsync())
}

fn read_at(file: &File, offset: u64, count: usize) -> io::Result<Bytes> {
    let mut buffer = vec![0; count];
    file.read_exact_at(&mut buffer, offset)?;
    Ok(buffer.into())
}
