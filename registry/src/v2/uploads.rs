//! Uploads: POST with and without a body or a mount (end-4, end-11), PATCH (end-5), PUT (end-6), GET
//! (end-13), DELETE (end-14).

use std::fmt::Display;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use orlop_proto::error::{Classify as _, Kind};
use tokio::sync::mpsc;

use super::errors::{Code, Refusal};
use super::listen::BODY_IDLE;
use super::query::parameter;
use super::range::chunk;
use super::routes::digest;
use super::{Answer, Body, CONTENT_DIGEST, V2, empty, set};
use crate::Error;
use crate::names::{NameError, Repository};
use crate::ports::Piece;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// Pieces between the client's connection and the store's.
const PIECES_WAITING: usize = 2;

/// What writing a body came to.
struct Written {
    /// The durable offset.
    offset: u64,
    /// Why the body ended before its end, if it did.
    broken: Option<String>,
}

impl V2 {
    pub(super) async fn begin_upload(
        &self,
        name: &Repository,
        request: &mut Request<Incoming>,
    ) -> Answer {
        let query = request.uri().query().map(str::to_owned);
        if let Some(text) = parameter(query.as_deref(), "mount") {
            let wanted = digest(&text)?;
            if self.mount(name, query.as_deref(), &wanted).await? {
                return Ok(created(name, &wanted));
            }
        }
        let wanted = parameter(query.as_deref(), "digest");
        let wanted = wanted.map(|text| digest(&text)).transpose()?;
        let id = self.repositories.begin_upload(name).await;
        let id = id.map_err(|error| Refusal::of(error, Code::NameUnknown))?;
        match wanted {
            Some(wanted) => self.complete(name, &id, 0, &wanted, request).await,
            None => Ok(accepted(StatusCode::ACCEPTED, name, &id, 0)),
        }
    }

    pub(super) async fn upload_status(&self, name: &Repository, id: &str) -> Answer {
        let offset = self.offset(name, id).await?;
        Ok(accepted(StatusCode::NO_CONTENT, name, id, offset))
    }

    pub(super) async fn patch_upload(
        &self,
        name: &Repository,
        id: &str,
        request: &mut Request<Incoming>,
    ) -> Answer {
        let offset = self.offset(name, id).await?;
        if let Some(refused) = out_of_order(name, id, offset, request)? {
            return Ok(refused);
        }
        let written = self.write(name, id, offset, None, request).await?;
        match written.broken {
            None => Ok(accepted(StatusCode::ACCEPTED, name, id, written.offset)),
            Some(reason) => Err(Refusal::bad(Code::BlobUploadInvalid, reason)),
        }
    }

    pub(super) async fn put_upload(
        &self,
        name: &Repository,
        id: &str,
        request: &mut Request<Incoming>,
    ) -> Answer {
        let offset = self.offset(name, id).await?;
        let wanted = parameter(request.uri().query(), "digest").ok_or_else(|| {
            Refusal::bad(Code::DigestInvalid, "the parameter `digest` is missing")
        })?;
        let wanted = digest(&wanted)?;
        if let Some(refused) = out_of_order(name, id, offset, request)? {
            return Ok(refused);
        }
        self.complete(name, id, offset, &wanted, request).await
    }

    pub(super) async fn cancel_upload(&self, name: &Repository, id: &str) -> Answer {
        let cancelled = self.repositories.cancel_upload(name, id).await;
        cancelled.map_err(|error| Refusal::of(error, Code::BlobUploadUnknown))?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn mount(
        &self,
        name: &Repository,
        query: Option<&str>,
        wanted: &str,
    ) -> Result<bool, Refusal> {
        let from = parameter(query, "from").map(|text| text.parse::<Repository>());
        let from = from
            .transpose()
            .map_err(|error: NameError| Refusal::bad(Code::NameInvalid, error.to_string()))?;
        let mounted = self.repositories.mount(from.as_ref(), name, wanted).await;
        mounted.map_err(|error| Refusal::of(error, Code::BlobUnknown))
    }

    async fn offset(&self, name: &Repository, id: &str) -> Result<u64, Refusal> {
        let offset = self.repositories.upload_offset(name, id).await;
        offset.map_err(|error| Refusal::of(error, Code::BlobUploadUnknown))
    }

    /// Writes the body, commits, and makes the blob the repository's.
    async fn complete(
        &self,
        name: &Repository,
        id: &str,
        offset: u64,
        wanted: &str,
        request: &mut Request<Incoming>,
    ) -> Answer {
        let written = self.write(name, id, offset, Some(wanted), request).await?;
        if let Some(reason) = written.broken {
            return Err(Refusal::bad(Code::BlobUploadInvalid, reason));
        }
        let finished = self.repositories.finish_upload(name, id, wanted).await;
        finished.map_err(|error| Refusal::of(error, Code::BlobUploadUnknown))?;
        Ok(created(name, wanted))
    }

    async fn write(
        &self,
        name: &Repository,
        id: &str,
        offset: u64,
        commit: Option<&str>,
        request: &mut Request<Incoming>,
    ) -> Result<Written, Refusal> {
        let (pieces, receiver) = mpsc::channel(PIECES_WAITING);
        let writing = self.repositories.write_upload(name, id, offset, receiver);
        let pumping = pump(request.body_mut(), pieces, commit);
        let (offset, broken) = tokio::join!(writing, pumping);
        match offset {
            Ok(offset) => Ok(Written { offset, broken }),
            Err(error) => Err(self.refused(name, id, commit, error).await),
        }
    }

    /// The store discards what did not match its digest, and so does the upload.
    async fn refused(
        &self,
        name: &Repository,
        id: &str,
        commit: Option<&str>,
        error: Error,
    ) -> Refusal {
        if commit.is_some()
            && error.kind() == Kind::InvalidArgument
            && let Err(error) = self.repositories.cancel_upload(name, id).await
        {
            tracing::warn!(%error, id, "an upload that failed was not cleared");
        }
        Refusal::of(error, Code::BlobUploadUnknown)
    }
}

/// Hands the body on as it comes; tells why it broke off, if it did. Without its end there is no
/// commit.
async fn pump(
    body: &mut Incoming,
    pieces: mpsc::Sender<Piece>,
    commit: Option<&str>,
) -> Option<String> {
    loop {
        let frame = match tokio::time::timeout(BODY_IDLE, body.frame()).await {
            Err(_) => return Some("the upload stood still for too long".to_owned()),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Some(format!("the upload broke off: {error}")),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(orlop_wire::CHUNK_BYTES));
            // The store has said why it stopped; that is the answer.
            pieces.send(Piece::Data(piece)).await.ok()?;
        }
    }
    if let Some(digest) = commit {
        let digest = digest.to_owned();
        pieces.send(Piece::Commit { digest, size: 0 }).await.ok()?;
    }
    None
}

/// The answer to a chunk that does not begin where the upload ends.
fn out_of_order(
    name: &Repository,
    id: &str,
    offset: u64,
    request: &Request<Incoming>,
) -> Result<Option<Response<Body>>, Refusal> {
    let Some(header) = request.headers().get(CONTENT_RANGE) else {
        return Ok(None);
    };
    let invalid = |message: String| Refusal::bad(Code::BlobUploadInvalid, message);
    let text = header.to_str().unwrap_or_default();
    let (first, last) =
        chunk(text).ok_or_else(|| invalid(format!("malformed Content-Range {text:?}")))?;
    if first != offset {
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        return Ok(Some(accepted(status, name, id, offset)));
    }
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if last.checked_sub(first) != length.checked_sub(1) => Err(invalid(format!(
            "Content-Range {text:?} and Content-Length {length} do not agree"
        ))),
        _ => Ok(None),
    }
}

/// The state of an upload; `Range` is inclusive, and `0-0` for none (as distribution has it).
fn accepted(
    status: StatusCode,
    name: &Repository,
    id: impl Display,
    offset: u64,
) -> Response<Body> {
    let mut response = empty(status);
    set(
        &mut response,
        LOCATION,
        &format!("/v2/{name}/blobs/uploads/{id}"),
    );
    set(
        &mut response,
        RANGE,
        &format!("0-{}", offset.saturating_sub(1)),
    );
    set(&mut response, UPLOAD_UUID, &id.to_string());
    response
}

fn created(name: &Repository, digest: &str) -> Response<Body> {
    let mut response = empty(StatusCode::CREATED);
    set(
        &mut response,
        LOCATION,
        &format!("/v2/{name}/blobs/{digest}"),
    );
    set(&mut response, CONTENT_DIGEST, digest);
    response
}
