//! Client connections.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint as TonicEndpoint};
use tower::service_fn;

use crate::listen::with_address;
use crate::{CONNECTION_WINDOW_BYTES, Endpoint, STREAM_WINDOW_BYTES};

/// Long enough for a loaded host, short enough for a person.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A channel to a service. It connects at its first use, and again after the service was restarted.
pub fn connect(endpoint: &Endpoint) -> Channel {
    match endpoint {
        Endpoint::Unix(path) => {
            let path = path.clone();
            settings("http://localhost").connect_with_connector_lazy(service_fn(move |_| {
                let path = path.clone();
                async move { connect_unix(path).map(TokioIo::new) }
            }))
        }
        Endpoint::Tcp(address) => settings(&format!("http://{address}")).connect_lazy(),
    }
}

fn settings(uri: &str) -> TonicEndpoint {
    let uri = uri
        .parse()
        .unwrap_or_else(|_| http::Uri::from_static("http://localhost"));
    TonicEndpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true)
}

/// Connecting to a Unix socket does not block unless its backlog is full, so it is done in place.
fn connect_unix(path: PathBuf) -> io::Result<UnixStream> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    with_address(&path, |address| Ok(rustix::net::connect(&socket, address)?))
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let stream = StdUnixStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
