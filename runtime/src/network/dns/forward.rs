//! Asking other name servers, in the words of who asked.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};

use super::{DATAGRAM_BYTES, PORT, read_message, write_message};

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// As many as resolv.conf(5) has.
const SERVERS_MAX: usize = 3;
/// Bytes of a message's header, of which the first two are its number.
const HEADER: usize = 12;

/// How a question came, and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// The answer of the first server that has one.
pub(super) async fn ask(
    servers: &[IpAddr],
    question: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    for server in servers.iter().take(SERVERS_MAX) {
        let server = SocketAddr::new(*server, PORT);
        let asked = match transport {
            Transport::Udp => tokio::time::timeout(PATIENCE, by_datagram(server, question)).await,
            Transport::Tcp => tokio::time::timeout(PATIENCE, by_stream(server, question)).await,
        };
        match asked {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%error, %server, "a name server fails"),
            Err(_) => tracing::debug!(%server, "a name server is silent"),
        }
    }
    None
}

/// A port of its own for each question: guessing both port and number is what a forger must do.
async fn by_datagram(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        if length >= HEADER && answer[..2] == question[..2] {
            return Ok(answer.to_vec());
        }
    }
}

async fn by_stream(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, question).await?;
    read_message(&mut stream).await
}
