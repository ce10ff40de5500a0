//! Manifests: GET and HEAD (end-3), PUT (end-7), DELETE (end-9).

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, LOCATION};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};

use super::errors::{Code, Refusal};
use super::listen::BODY_IDLE;
use super::{Answer, CONTENT_DIGEST, V2, empty, full, set};
use crate::manifest::{self, MANIFEST_BYTES_MAX};
use crate::names::Repository;
use crate::repositories::Target;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

impl V2 {
    pub(super) async fn get_manifest(
        &self,
        name: &Repository,
        target: &Target,
        head: bool,
    ) -> Answer {
        let found = self.repositories.manifest(name, target).await;
        let found = found.map_err(|error| Refusal::of(error, Code::ManifestUnknown))?;
        let Some(found) = found else {
            let message = format!("repository {name} has no such manifest");
            return Err(Refusal::not_found(Code::ManifestUnknown, message));
        };
        let length = found.bytes.len().to_string();
        let mut response = if head {
            empty(StatusCode::OK)
        } else {
            full(found.bytes)
        };
        set(&mut response, CONTENT_TYPE, &found.media_type);
        set(&mut response, CONTENT_LENGTH, &length);
        set(&mut response, CONTENT_DIGEST, &found.digest);
        set(&mut response, ETAG, &format!("\"{}\"", found.digest));
        Ok(response)
    }

    pub(super) async fn put_manifest(
        &self,
        name: &Repository,
        target: &Target,
        request: &mut Request<Incoming>,
    ) -> Answer {
        let content_type = request.headers().get(CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let bytes = body(request.body_mut()).await?;
        if let Target::Digest(digest) = target {
            let actual = manifest::digest_like(digest, &bytes);
            if actual != *digest {
                let message = format!("the manifest's digest is {actual}, not {digest}");
                return Err(Refusal::bad(Code::DigestInvalid, message));
            }
        }
        let document = manifest::parse(&bytes, &content_type).map_err(|error| {
            let message = orlop_proto::error::chain(&error);
            Refusal::bad(Code::ManifestInvalid, message)
        })?;
        let put = self
            .repositories
            .put_manifest(name, target, &document, bytes);
        let digest = put
            .await
            .map_err(|error| Refusal::of(error, Code::NameUnknown))?;
        let mut response = empty(StatusCode::CREATED);
        set(
            &mut response,
            LOCATION,
            &format!("/v2/{name}/manifests/{digest}"),
        );
        set(&mut response, CONTENT_DIGEST, &digest);
        if let Some(subject) = document.subject() {
            set(&mut response, OCI_SUBJECT, subject.digest().as_ref());
        }
        Ok(response)
    }

    pub(super) async fn delete_manifest(&self, name: &Repository, target: &Target) -> Answer {
        let deleted = match target {
            Target::Tag(tag) => self.repositories.delete_tag(name, tag).await,
            Target::Digest(digest) => self.repositories.delete_manifest(name, digest).await,
        };
        deleted.map_err(|error| Refusal::of(error, Code::ManifestUnknown))?;
        Ok(empty(StatusCode::ACCEPTED))
    }
}

/// The whole body, unless it is larger than a manifest may be (`SECURITY` row F1).
async fn body(body: &mut Incoming) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Code::SizeInvalid,
            format!("the manifest is larger than {MANIFEST_BYTES_MAX} bytes"),
        )
    };
    if body.size_hint().lower() > MANIFEST_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let collected = Limited::new(body, MANIFEST_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_IDLE, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::bad(Code::ManifestInvalid, error.to_string())),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            Code::ManifestInvalid,
            "the manifest did not arrive in time".to_owned(),
        )),
    }
}
