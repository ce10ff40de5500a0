//! Errors as the specification writes them: a status, and JSON with codes of its table.

use http::{Response, StatusCode};
use orlop_proto::error::{Classify as _, Kind, chain};

use super::{Body, empty, json};
use crate::Error;

/// The codes of the specification ("Error Codes"), and `_catalog`'s of Docker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PaginationNumberInvalid,
    SizeInvalid,
    Denied,
    Unsupported,
    Unknown,
}

/// A request that is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: Code,
    pub(super) message: String,
}

impl Code {
    fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: Code, message: String) -> Self {
        Self {
            status,
            code,
            message,
        }
    }

    pub(super) fn bad(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message.into())
    }

    pub(super) fn not_found(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message.into())
    }

    /// The error of a handler, where `unknown` is the code for what it did not find.
    pub(super) fn of(error: Error, unknown: Code) -> Self {
        if let Error::MissingLink { .. } = error {
            return Self::not_found(Code::ManifestBlobUnknown, error.to_string());
        }
        let (status, code) = match error.kind() {
            Kind::NotFound => (StatusCode::NOT_FOUND, unknown),
            Kind::InvalidArgument => (StatusCode::BAD_REQUEST, Code::DigestInvalid),
            Kind::OutOfRange => (StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid),
            Kind::Aborted => (StatusCode::CONFLICT, Code::BlobUploadInvalid),
            Kind::ResourceExhausted => (StatusCode::INSUFFICIENT_STORAGE, Code::SizeInvalid),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Code::Unknown),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown),
        };
        let message = chain(&error);
        if status.is_server_error() {
            tracing::error!(error = message, "a request of /v2/ failed");
        }
        Self::new(status, code, message)
    }

    /// The response; to a HEAD without a body.
    pub(super) fn into_response(self, head: bool) -> Response<Body> {
        if head {
            return empty(self.status);
        }
        let body = serde_json::json!({
            "errors": [{"code": self.code.as_str(), "message": self.message, "detail": null}],
        });
        let mut response = json(body.to_string());
        *response.status_mut() = self.status;
        response
    }
}
