//! `GET /metrics` over plain HTTP.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Scrapers are few; more wait in the backlog.
const CONNECTIONS_MAX: usize = 8;
/// One request and its answer; then the connection is closed.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept: the process has no descriptor left, and others give theirs back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why metrics are not served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Where other hosts could read them.
    #[error(
        "refusing to serve metrics at {0}: other hosts could read them; use a loopback address, or \
         say --insecure"
    )]
    NotLoopback(SocketAddr),
    /// The system says no.
    #[error("cannot serve metrics at {address}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Serves the metrics of this process for as long as it lives (`SECURITY` row J9: loopback, unless
/// `insecure`). Returns where: the port is the system's choice if it was 0.
pub async fn serve(address: SocketAddr, insecure: bool) -> Result<SocketAddr, MetricsError> {
    if !insecure && !address.ip().is_loopback() {
        return Err(MetricsError::NotLoopback(address));
    }
    let failed = |source| MetricsError::Io { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tokio::spawn(accept(listener));
    Ok(bound)
}

async fn accept(listener: TcpListener) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = Arc::clone(&free).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(async move {
                converse(stream).await;
                drop(permit);
            })),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// A peer that breaks the connection or dawdles gets no answer, and nobody else is told.
async fn converse(stream: TcpStream) {
    let conversation = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, conversation).await {
        tracing::debug!(%error, "a connection for metrics ended early");
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET) => (StatusCode::OK, super::text()),
        ("/metrics", _) => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => (
            StatusCode::NOT_FOUND,
            "metrics are at /metrics\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
