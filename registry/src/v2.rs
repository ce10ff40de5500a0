//! `/v2/`: the OCI distribution specification over HTTP, end-1 to end-14, with the catalogue. One
//! route leads to one handler, and there is one way to write each path (`SECURITY` row F10).

mod blobs;
mod catalog;
mod errors;
mod listen;
mod manifests;
mod query;
mod range;
mod routes;
mod tags;
mod uploads;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;

use crate::ports::Store;
use crate::repositories::Repositories;
use errors::{Code, Refusal};
pub(crate) use listen::serve;
pub use listen::{Http, bind};
use routes::Route;

/// A response's body.
type Body = UnsyncBoxBody<Bytes, io::Error>;
type Answer = Result<Response<Body>, Refusal>;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// All headers of one request (`SECURITY` section 6.2).
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// What is read of a request after it was refused, and for how long.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Debug)]
pub struct V2 {
    repositories: Arc<Repositories>,
    store: Store,
    /// Only this host can connect, so only its names are a `Host` (`SECURITY` row J10).
    loopback: bool,
}

impl V2 {
    /// The handlers over our repositories.
    pub fn new(repositories: Arc<Repositories>, store: Store, loopback: bool) -> Self {
        Self {
            repositories,
            store,
            loopback,
        }
    }

    /// Answers one request.
    pub async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let head = request.method() == Method::HEAD;
        let answer = match self.check(&request) {
            Ok(()) => self.dispatch(&mut request).await,
            Err(refusal) => Err(refusal),
        };
        let served = answer.as_ref().is_ok_and(|r| !r.status().is_client_error());
        if !served {
            drain(request.body_mut()).await;
        }
        let mut response = answer.unwrap_or_else(|refusal| refusal.into_response(head));
        response
            .headers_mut()
            .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        response
    }

    /// What holds for every request, whatever its route.
    fn check(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let headers = request.headers();
        let bytes: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        if bytes > HEADER_BYTES_MAX {
            return Err(Refusal::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Code::Unsupported,
                format!("the headers are larger than {HEADER_BYTES_MAX} bytes"),
            ));
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        if self.loopback && !host.is_some_and(crate::remote::is_loopback) {
            return Err(Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                Code::Denied,
                "this registry serves its own host only".to_owned(),
            ));
        }
        Ok(())
    }

    async fn dispatch(&self, request: &mut Request<Incoming>) -> Answer {
        let route = routes::route(request.uri().path())?;
        let method = request.method().clone();
        match (route, method.as_str()) {
            (Route::Base, "GET" | "HEAD") => Ok(json("{}".to_owned())),
            (Route::Catalog, "GET") => self.catalog(request.uri().query()),
            (Route::Tags(name), "GET") => self.tags(&name, request.uri().query()),
            (Route::Referrers(name, digest), "GET") => {
                self.referrers(&name, &digest, request.uri().query())
            }
            (Route::Manifest(name, target), "GET" | "HEAD") => {
                self.get_manifest(&name, &target, method == Method::HEAD)
                    .await
            }
            (Route::Manifest(name, target), "PUT") => {
                self.put_manifest(&name, &target, request).await
            }
            (Route::Manifest(name, target), "DELETE") => self.delete_manifest(&name, &target).await,
            (Route::Blob(name, digest), "GET") => {
                self.get_blob(&name, &digest, request.headers()).await
            }
            (Route::Blob(name, digest), "HEAD") => self.head_blob(&name, &digest).await,
            (Route::Blob(name, digest), "DELETE") => self.delete_blob(&name, &digest).await,
            (Route::Uploads(name), "POST") => self.begin_upload(&name, request).await,
            (Route::Upload(name, id), "GET") => self.upload_status(&name, &id).await,
            (Route::Upload(name, id), "PATCH") => self.patch_upload(&name, &id, request).await,
            (Route::Upload(name, id), "PUT") => self.put_upload(&name, &id, request).await,
            (Route::Upload(name, id), "DELETE") => self.cancel_upload(&name, &id).await,
            (_, method) => Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::Unsupported,
                format!("{method} is not allowed here"),
            )),
        }
    }
}

/// Reads what a client still sends of a request that was refused, within bounds: most clients read no
/// answer before they have sent everything.
async fn drain(body: &mut Incoming) {
    let reading = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DRAIN_BYTES_MAX {
                return;
            }
        }
    };
    // Out of time, the client has had its chance.
    tokio::time::timeout(DRAIN_TIME, reading).await.ok();
}

/// A response without a body.
fn empty(status: StatusCode) -> Response<Body> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A response whose whole body is here.
fn full(bytes: Bytes) -> Response<Body> {
    Response::new(
        Full::new(bytes)
            .map_err(|never| match never {})
            .boxed_unsync(),
    )
}

fn json(text: String) -> Response<Body> {
    let mut response = full(text.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Sets a header whose value was made of validated parts.
fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
