//! Published ports that pass the host's own input rules (moby#22054): nothing is translated, the host itself
//! listens, so that ufw, firewalld or a chain of the administrator's decide as for any other service, and
//! what is accepted is relayed to the container.
//!
//! A client from outside keeps its address: the connection to the container is made *from* it
//! (`IP_TRANSPARENT`), and [`WayBack`] leads the container's answers to the socket that has it. A relay is a
//! task of this service: connections end with the service, and new ones are refused until its next start.

mod tcp;
mod udp;
mod way_back;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::task::AbortHandle;

pub(crate) use self::way_back::WayBack;
use super::error::{NetworkError, Result};
use super::firewall::Published;
use super::ports::Reservation;
use super::request::{Attachment, EndpointInfo, PortRequest, Protocol, Publishing};
use super::segment::Segment;
use super::subnet::Subnet;
use super::{Network, blocking, ports_of};

/// Before the next attempt, when the kernel has no more of something.
const PAUSE: Duration = Duration::from_millis(50);

/// One published port that is relayed, until this is dropped.
#[derive(Debug)]
pub(crate) struct Relay(AbortHandle);

/// From a client to a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// Where the container listens.
    container: SocketAddrV4,
    /// The container's network: it answers to these addresses directly.
    subnet: Subnet,
    /// Of the packets that are sent from clients' addresses.
    mark: u32,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Relay {
    /// Relays what comes to this socket, which is bound to the port of the host.
    pub(crate) fn start(socket: OwnedFd, port: &Published, way: Way) -> Result<Self> {
        let started = match port.binding.protocol {
            Protocol::Tcp => tcp::start(socket, way),
            Protocol::Udp => udp::start(socket, way),
        };
        let failed = || NetworkError::kernel(format!("relay port {}", port.binding.host_port));
        Ok(Self(started.map_err(failed())?))
    }
}

impl Way {
    fn new(port: u16, endpoint: &EndpointInfo, way_back: &WayBack) -> Result<Self> {
        let subnet = Subnet::new(endpoint.address, endpoint.prefix);
        let none = || NetworkError::Invalid(format!("{} has no subnet", endpoint.address));
        Ok(Self {
            container: SocketAddrV4::new(endpoint.address, port),
            subnet: subnet.ok_or_else(none)?,
            mark: way_back.mark(),
        })
    }

    /// The addresses to try to be, one after the other; `None`: whatever the host has on the bridge. The
    /// client's port may be in use for another connection to this container.
    fn sources(&self, client: SocketAddrV4) -> Vec<Option<SocketAddrV4>> {
        match self.keeps(*client.ip()) {
            true => vec![Some(client), Some(SocketAddrV4::new(*client.ip(), 0))],
            false => vec![None],
        }
    }

    /// Whether a container's answer to this address comes back by the host.
    fn keeps(&self, client: Ipv4Addr) -> bool {
        !client.is_loopback() && self.subnet.number(client).is_none()
    }

    /// Lets a socket have an address that is not the host's.
    fn disguise(&self, socket: &impl AsFd) -> io::Result<()> {
        setsockopt(socket, sockopt::IpTransparent, &true)?;
        setsockopt(socket, sockopt::Mark, &self.mark)?;
        setsockopt(socket, sockopt::ReuseAddr, &true)?;
        Ok(())
    }
}

impl Network {
    /// How ports are published by a network; absent: it has no way out, or is none.
    pub(crate) fn publishing(&self, name: &str) -> Option<Publishing> {
        let segment = self.segment(name).ok()?;
        match self.relays_ports_of(&segment) {
            _ if segment.definition.internal => None,
            true => Some(Publishing::Input),
            false => Some(Publishing::Forward),
        }
    }

    /// Whether the ports that are published by a network are relayed.
    pub(super) fn relays_ports_of(&self, segment: &Segment) -> bool {
        let own = segment.options.published;
        own.unwrap_or(self.inner.publishing) == Publishing::Input
    }

    /// Relays those of a container's published ports, whose sockets are these, that are to be and are not
    /// yet. One of IPv6, to which a container can get by leaving a network, is closed.
    pub(super) async fn relay(
        &self,
        attachment: &Attachment,
        reserved: &[Reservation],
    ) -> Result<()> {
        let Some(endpoint) = attachment.routed().filter(|endpoint| endpoint.relayed) else {
            return Ok(());
        };
        if attachment.ports.is_empty() || self.relays().contains_key(&endpoint.address) {
            return Ok(());
        }
        let way_back = self.inner.way_back.clone();
        blocking(move || way_back.install()).await?;
        let mut started = Vec::new();
        let own = |port: &Published| port.container == IpAddr::from(endpoint.address);
        for port in ports_of(attachment).filter(own) {
            let Some(own) = reserved.iter().find(|own| own.binding == port.binding) else {
                continue;
            };
            let socket = own.socket().map_err(NetworkError::kernel("relay a port"))?;
            let way = Way::new(port.binding.container_port, endpoint, &self.inner.way_back)?;
            started.push(Relay::start(socket, &port, way)?);
        }
        self.relays().insert(endpoint.address, started);
        Ok(())
    }

    /// Relays what an earlier process relayed, and this one does not yet.
    pub(super) async fn restore_relays(&self) -> Result<()> {
        let held: Vec<_> = self
            .held()
            .values()
            .map(|held| (held.attachment.clone(), held.reservations.clone()))
            .collect();
        for (attachment, reserved) in held {
            self.relay(&attachment, &reserved).await?;
        }
        Ok(())
    }

    /// Puts the way back into the packet filter if somebody else took it.
    pub(super) async fn repair_way_back(&self) -> Result<()> {
        if self.relays().is_empty() {
            return Ok(());
        }
        let way_back = self.inner.way_back.clone();
        blocking(move || {
            if way_back.is_whole()? {
                return Ok(());
            }
            tracing::warn!("the way back to relayed ports was changed by somebody else");
            way_back.install()
        })
        .await
    }

    pub(super) fn relays(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, Vec<Relay>>> {
        let relays = self.inner.relays.lock();
        relays.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses ports that are not relayed: those of IPv6.
pub(super) fn check(ports: &[PortRequest]) -> Result<()> {
    let mut addresses = ports.iter().filter_map(|port| port.host_address);
    match addresses.find(IpAddr::is_ipv6) {
        Some(address) => Err(NetworkError::RelayedIpv6Port(address)),
        None => Ok(()),
    }
}

/// Whether another address may do.
fn is_address_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_the_container_reaches_without_the_host_is_not_imitated() {
        let way = Way {
            container: SocketAddrV4::new(Ipv4Addr::new(172, 18, 0, 2), 80),
            subnet: Subnet::new(Ipv4Addr::new(172, 18, 0, 0), 16).unwrap(),
            mark: 2,
        };
        let sources = |ip: [u8; 4]| way.sources(SocketAddrV4::new(ip.into(), 5000));
        for near in [[127, 0, 0, 1], [172, 18, 0, 1], [172, 18, 0, 9]] {
            assert_eq!(sources(near), [None]);
        }
        let ports: Vec<_> = sources([198, 51, 100, 2])
            .iter()
            .map(|source| source.unwrap().port())
            .collect();
        assert_eq!(ports, [5000, 0]);
    }
}
