//! Datagrams: a flow for each client, which ends when nobody said anything for a while.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::{PAUSE, Way, is_address_taken};

/// What connection tracking gives a flow that was answered.
const IDLE: Duration = Duration::from_secs(120);
/// Flows of one port; what would be a further one is dropped.
const FLOWS_MAX: usize = 4096;
/// Of one flow that wait to be sent; further ones are dropped.
const WAITING_MAX: usize = 64;
/// Of a datagram.
const BYTES_MAX: usize = 65_536;

/// A client, and which of the host's addresses it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    client: SocketAddrV4,
    host: Ipv4Addr,
}

type Flows = HashMap<Ends, mpsc::Sender<Vec<u8>>>;

pub(super) fn start(socket: OwnedFd, way: Way) -> io::Result<AbortHandle> {
    // An answer has to come from the address that the question went to.
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    let socket = UdpSocket::from_std(socket.into())?;
    Ok(tokio::spawn(serve(Arc::new(socket), way)).abort_handle())
}

async fn serve(socket: Arc<UdpSocket>, way: Way) {
    let mut flows = Flows::new();
    let mut tasks = JoinSet::new();
    loop {
        let heard = socket.async_io(Interest::READABLE, || receive(&socket));
        tokio::select! {
            Some(ended) = tasks.join_next() => {
                if let Ok(ends) = ended {
                    flows.remove(&ends);
                }
            }
            heard = heard => match heard {
                Ok((ends, bytes)) => pass_on(ends, bytes, &mut flows, &mut tasks, &socket, way),
                Err(error) => {
                    tracing::debug!(%error, "cannot receive a datagram");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// Gives a datagram to its flow, which may be a new one.
fn pass_on(
    ends: Ends,
    bytes: Vec<u8>,
    flows: &mut Flows,
    tasks: &mut JoinSet<Ends>,
    socket: &Arc<UdpSocket>,
    way: Way,
) {
    if !flows.contains_key(&ends) && flows.len() < FLOWS_MAX {
        let (sender, inbox) = mpsc::channel(WAITING_MAX);
        flows.insert(ends, sender);
        let socket = Arc::clone(socket);
        tasks.spawn(async move {
            if let Err(error) = flow(ends, inbox, &socket, way).await {
                tracing::debug!(%error, container = %way.container, "a flow ended");
            }
            ends
        });
    }
    // Datagrams may be lost.
    if let Some(flow) = flows.get(&ends) {
        flow.try_send(bytes).ok();
    }
}

/// Both directions of one flow.
async fn flow(
    ends: Ends,
    mut inbox: mpsc::Receiver<Vec<u8>>,
    socket: &UdpSocket,
    way: Way,
) -> io::Result<()> {
    let container = connect(ends.client, way)?;
    loop {
        tokio::select! {
            Some(bytes) = inbox.recv() => drop(container.send(&bytes).await?),
            ready = container.readable() => {
                ready?;
                answer(ends, &container, socket)?;
            }
            () = tokio::time::sleep(IDLE) => return Ok(()),
        }
    }
}

/// What the container has to say, to the client.
fn answer(ends: Ends, container: &UdpSocket, socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; BYTES_MAX];
    let length = match container.try_recv(&mut buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        length => length?,
    };
    match send(socket, ends, buffer.get(..length).unwrap_or_default()) {
        // Lost, as on a line that is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        sent => sent,
    }
}

fn connect(client: SocketAddrV4, way: Way) -> io::Result<UdpSocket> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for source in way.sources(client) {
        match connect_from(source, way) {
            Err(error) if is_address_taken(&error) => failed = error,
            result => return result,
        }
    }
    Err(failed)
}

fn connect_from(source: Option<SocketAddrV4>, way: Way) -> io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    if let Some(source) = source {
        way.disguise(&socket)?;
        rustix::net::bind(&socket, &source)?;
    }
    rustix::net::connect(&socket, &way.container)?;
    UdpSocket::from_std(socket.into())
}

fn receive(socket: &UdpSocket) -> io::Result<(Ends, Vec<u8>)> {
    let mut buffer = [0; BYTES_MAX];
    let mut control = nix::cmsg_space!(in_pktinfo);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let host = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(address(info.ipi_spec_dst)),
        _ => None,
    });
    let (length, client) = (message.bytes, message.address);
    let (Some(client), Some(host)) = (client, host) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let ends = Ends {
        client: client.into(),
        host,
    };
    Ok((ends, buffer.get(..length).unwrap_or_default().to_vec()))
}

fn send(socket: &UdpSocket, ends: Ends, bytes: &[u8]) -> io::Result<()> {
    let info = in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr {
            s_addr: u32::from_ne_bytes(ends.host.octets()),
        },
        ipi_addr: in_addr { s_addr: 0 },
    };
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    let client = SockaddrIn::from(ends.client);
    let flags = MsgFlags::MSG_DONTWAIT;
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &control,
        flags,
        Some(&client),
    )?;
    Ok(())
}

fn address(address: in_addr) -> Ipv4Addr {
    Ipv4Addr::from(address.s_addr.to_ne_bytes())
}
