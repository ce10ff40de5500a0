//! Connections.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::{PAUSE, Way, is_address_taken};

/// Connections of one port; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 4096;
/// That wait there.
const BACKLOG: i32 = 1024;
/// Of each direction of a connection.
const BUFFER_BYTES: usize = 64 * 1024;

pub(super) fn start(socket: OwnedFd, way: Way) -> io::Result<AbortHandle> {
    rustix::net::listen(&socket, BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    Ok(tokio::spawn(serve(listener, way)).abort_handle())
}

async fn serve(listener: TcpListener, way: Way) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((client, peer)) => drop(connections.spawn(relay(client, peer, way))),
            // The client is gone again, or this process has no more files.
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn relay(mut client: TcpStream, peer: SocketAddr, way: Way) {
    let SocketAddr::V4(peer) = peer else {
        return;
    };
    match connect(peer, way).await {
        Ok(mut container) => {
            // How it ends is between the two.
            let copied = prepare(&client, &container);
            if copied.is_ok() {
                copy(&mut client, &mut container).await.ok();
            }
        }
        Err(error) => {
            tracing::debug!(%error, container = %way.container, "cannot reach a container");
            // So that the client hears of it as of a port that is closed.
            client.set_zero_linger().ok();
        }
    }
}

/// What waits to be sent goes at once; a client that is lost is noticed some time.
fn prepare(client: &TcpStream, container: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    container.set_nodelay(true)?;
    Ok(sockopt::set_socket_keepalive(client, true)?)
}

async fn copy(client: &mut TcpStream, container: &mut TcpStream) -> io::Result<(u64, u64)> {
    tokio::io::copy_bidirectional_with_sizes(client, container, BUFFER_BYTES, BUFFER_BYTES).await
}

async fn connect(peer: SocketAddrV4, way: Way) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for source in way.sources(peer) {
        match connect_from(source, way).await {
            Err(error) if is_address_taken(&error) => failed = error,
            result => return result,
        }
    }
    Err(failed)
}

async fn connect_from(source: Option<SocketAddrV4>, way: Way) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(source) = source {
        way.disguise(&socket)?;
        socket.bind(source.into())?;
    }
    socket.connect(way.container.into()).await
}
