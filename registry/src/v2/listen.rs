//! The HTTP listener: connections bounded in number, in the time that their headers take, and in how
//! long a body may stand still.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::V2;
use crate::config::{Config, HttpAddress};
use crate::{Error, Result};

/// `SECURITY` section 6.2.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// As long as a body may stand still.
pub(super) const BODY_IDLE: Duration = Duration::from_secs(60);
/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// What is read of a connection at a time. An upload has a few of these under way, and there are many uploads.
const READ_BYTES: usize = 128 * 1024;
/// After an error of `accept` (too many open files, most often) the next try waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What became of `/v2/`.
#[derive(Debug)]
pub enum Http {
    /// It listens.
    Listening(TcpListener, SocketAddr),
    /// It does not, and why.
    Off(String),
}

/// Binds what the options ask for. The default address in use is a warning; one that was asked for
/// is an error.
pub async fn bind(config: &Config) -> Result<Http> {
    let (address, explicit) = config.http();
    let HttpAddress::At(address) = address else {
        return Ok(Http::Off(
            "it is switched off (--registry-http none)".to_owned(),
        ));
    };
    if !address.ip().is_loopback() && !config.registry_http_anonymous {
        return Err(Error::Anonymous(address.to_string()));
    }
    let bound = TcpListener::bind(address).await;
    match bound.and_then(|listener| Ok((listener.local_addr()?, listener))) {
        Ok((address, listener)) => Ok(Http::Listening(listener, address)),
        Err(source) if explicit => Err(Error::Bind {
            address: address.to_string(),
            source,
        }),
        Err(source) => {
            tracing::warn!(%address, error = %source, "/v2/ is not served");
            Ok(Http::Off(format!(
                "{address}: {source}; choose another address with --registry-http"
            )))
        }
    }
}

/// Serves until `stop` changes.
pub(crate) async fn serve(listener: TcpListener, v2: Arc<V2>, mut stop: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (v2, stop) = (Arc::clone(&v2), stop.clone());
                tokio::spawn(async move {
                    connection(stream, v2, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, v2: Arc<V2>, mut stop: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY cannot be set");
    }
    let service = service_fn(move |request| {
        let v2 = Arc::clone(&v2);
        async move { Ok::<_, std::convert::Infallible>(v2.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(READ_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of /v2/ broke");
    }
}
