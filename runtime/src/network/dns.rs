//! Names in the networks of users: a name server for each, on its bridge's address. Containers see it on
//! port 53; it listens on a port that nobody else wants, and the firewall leads there, so that a name
//! server of the host's own is no conflict.
//!
//! Who asks is told by the address that a question comes from, on a socket that hears its own bridge
//! only. A container is answered with the names of all networks that it is in; what is no container's
//! is asked of the name servers that the container asked for, or of the host's. A container that has no
//! way out gets no answer from outside either (K7).
//!
//! - [`answer`]: what follows from a question, without I/O. [`forward`]: asking others.

mod answer;
mod forward;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use self::answer::{Names, Verdict};
use self::forward::Transport;
use super::bridge::Bridge;
use super::error::{NetworkError, Result};
use super::firewall::Published;
use super::request::{PortBinding, Protocol};
use super::segment::{Member, Segment};
use super::{Inner, Network, resolver};

/// The port of name servers.
const PORT: u16 = 53;
/// Questions of one network that are being answered at once; more get no answer, and are asked again.
const OPEN_MAX: usize = 256;
/// Connections of one network at once.
const CONNECTIONS_MAX: usize = 64;
/// What a question by UDP can have; an answer that is longer says so, and is asked for by TCP.
const DATAGRAM_BYTES: usize = 4096;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// A socket that fails is left alone for a moment.
const PAUSE: Duration = Duration::from_millis(100);
const BACKLOG: u32 = 64;

/// The name server of one network, until this is dropped.
#[derive(Debug)]
pub(crate) struct NameServer {
    /// The bridge that it hears.
    pub(crate) bridge: u32,
    /// Where the firewall leads questions.
    pub(crate) doors: [Published; 2],
    tasks: [AbortHandle; 2],
}

/// What a name server knows of its network: it must not keep the network.
#[derive(Clone, Debug)]
struct Desk {
    network: Weak<Inner>,
    segment: Weak<Segment>,
    open: Arc<Semaphore>,
}

/// A container that asks.
struct Asker {
    container: String,
    segments: Vec<Arc<Segment>>,
    member: Member,
}

impl NameServer {
    /// Starts answering on a bridge.
    pub(crate) fn start(
        network: &Network,
        segment: &Arc<Segment>,
        bridge: &Bridge,
    ) -> Result<Self> {
        let gateway = bridge.addresses.gateway();
        let failed = || NetworkError::kernel(format!("answer for names on {gateway}"));
        let (datagrams, port) = udp(gateway, &bridge.name).map_err(failed())?;
        let (streams, tcp_port) = tcp(gateway, &bridge.name).map_err(failed())?;
        let desk = Desk {
            network: Arc::downgrade(&network.inner),
            segment: Arc::downgrade(segment),
            open: Arc::new(Semaphore::new(OPEN_MAX)),
        };
        let udp = tokio::spawn(serve_datagrams(Arc::new(datagrams), desk.clone()));
        let tcp = tokio::spawn(serve_streams(streams, desk));
        Ok(Self {
            bridge: bridge.index,
            doors: [
                door(Protocol::Udp, gateway, port),
                door(Protocol::Tcp, gateway, tcp_port),
            ],
            tasks: [udp.abort_handle(), tcp.abort_handle()],
        })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

fn udp(address: Ipv4Addr, bridge: &str) -> io::Result<(UdpSocket, u16)> {
    let socket = std::net::UdpSocket::bind((address, 0))?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.bind_device(Some(bridge.as_bytes()))?;
    let port = socket.local_addr()?.port();
    Ok((socket, port))
}

fn tcp(address: Ipv4Addr, bridge: &str) -> io::Result<(TcpListener, u16)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind_device(Some(bridge.as_bytes()))?;
    socket.bind((address, 0).into())?;
    let listener = socket.listen(BACKLOG)?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// A published port that leads to the host itself.
fn door(protocol: Protocol, gateway: Ipv4Addr, port: u16) -> Published {
    Published {
        binding: PortBinding {
            protocol,
            container_port: port,
            host_address: gateway.into(),
            host_port: PORT,
        },
        container: gateway.into(),
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, desk: Desk) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(turn) = Arc::clone(&desk.open).try_acquire_owned() else {
            continue;
        };
        let (socket, desk, question) = (socket.clone(), desk.clone(), buffer[..length].to_vec());
        tokio::spawn(async move {
            if let Some(answer) = desk.answer(&question, from, Transport::Udp).await
                && let Err(error) = socket.send_to(&answer, from).await
            {
                tracing::debug!(%error, %from, "cannot answer a question for a name");
            }
            drop(turn);
        });
    }
}

async fn serve_streams(listener: TcpListener, desk: Desk) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(turn) = Arc::clone(&connections).try_acquire_owned() else {
            continue;
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_stream(stream, from, &desk).await {
                tracing::debug!(%error, %from, "a connection to the name server ended");
            }
            drop(turn);
        });
    }
}

/// One question after the other, each with its length before it (RFC 1035, 4.2.2).
async fn serve_stream(mut stream: TcpStream, from: SocketAddr, desk: &Desk) -> io::Result<()> {
    loop {
        let question = tokio::time::timeout(IDLE, read_message(&mut stream)).await??;
        let answer = desk.answer(&question, from, Transport::Tcp).await;
        let Some(answer) = answer else {
            return Ok(());
        };
        tokio::time::timeout(IDLE, write_message(&mut stream, &answer)).await??;
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await
}

impl Desk {
    /// `None`: not worth an answer, or nobody that we know.
    async fn answer(
        &self,
        question: &[u8],
        from: SocketAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let asker = self.who(from.ip())?;
        match answer::to(question, &asker) {
            Verdict::Answer(answer) => Some(answer),
            Verdict::Nothing => None,
            Verdict::Elsewhere if !asker.has_way_out() => answer::refusal(question),
            Verdict::Elsewhere => {
                let answer = forward::ask(&asker.servers(), question, transport).await;
                answer.or_else(|| answer::failure(question))
            }
        }
    }

    fn who(&self, from: IpAddr) -> Option<Asker> {
        let network = Network {
            inner: self.network.upgrade()?,
        };
        let (container, member) = self.segment.upgrade()?.member_at(from)?;
        let mut segments = network.all_segments();
        segments.retain(|segment| segment.definition.number != 0 && segment.has(&container));
        Some(Asker {
            container,
            segments,
            member,
        })
    }
}

impl Asker {
    fn has_way_out(&self) -> bool {
        let mut segments = self.segments.iter();
        segments.any(|segment| !segment.definition.internal)
    }

    /// The container's loopback addresses are its own, and not those of the host, which asks.
    fn servers(&self) -> Vec<IpAddr> {
        let asked = &self.member.servers;
        if asked.is_empty() {
            return resolver::servers_of_the_host();
        }
        let reachable = asked.iter().filter(|server| !server.is_loopback());
        reachable.copied().collect()
    }
}

impl Names for Asker {
    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let segments = self.segments.iter();
        segments
            .flat_map(|segment| segment.addresses_for(&self.container, name))
            .collect()
    }

    fn name(&self, address: IpAddr) -> Option<String> {
        let mut segments = self.segments.iter();
        segments.find_map(|segment| segment.name_at(address))
    }
}
