//! Holding the host's side of published ports. Unless they are relayed, the packet filter takes the packets
//! before any socket sees them; the sockets are there so that the host and every other instance find the port taken, and
//! so that a port that is taken is an error here (K11).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::error::{NetworkError, Result};
use super::request::{PortBinding, PortRequest, Protocol};

const ANY_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const BACKLOG: i32 = 64;
/// To find a port that is free in both families.
const ATTEMPTS: u32 = 16;

/// A port of the host that nobody else can have while this lives.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) binding: PortBinding,
    socket: Arc<OwnedFd>,
}

impl Reservation {
    /// One more handle of its socket, for who listens on it.
    pub(crate) fn socket(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

/// Reserves all of the ports, or none. Port 0 becomes a free one. `ipv6`: whether the container has it.
pub(crate) fn reserve(ports: &[PortRequest], ipv6: bool) -> Result<Vec<Reservation>> {
    let mut reserved = Vec::new();
    for port in ports {
        match port.host_address {
            Some(IpAddr::V6(address)) if !ipv6 => {
                return Err(NetworkError::NoIpv6Port(address.into()));
            }
            Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) if port.protocol == Protocol::Udp => {
                return Err(NetworkError::UdpOnLoopback);
            }
            Some(address) => reserved.push(reserve_at(port, address, port.host_port)?),
            None if ipv6 => reserved.extend(reserve_everywhere(port)?),
            None => reserved.push(reserve_at(port, ANY_IPV4, port.host_port)?),
        }
    }
    Ok(reserved)
}

/// The port of every address of both families; a free one is free in both.
fn reserve_everywhere(port: &PortRequest) -> Result<[Reservation; 2]> {
    let mut attempts = 1..=ATTEMPTS;
    loop {
        let ipv4 = reserve_at(port, ANY_IPV4, port.host_port)?;
        match reserve_at(port, ANY_IPV6, ipv4.binding.host_port) {
            Err(NetworkError::PortInUse { .. })
                if port.host_port == 0 && attempts.next().is_some() => {}
            ipv6 => return Ok([ipv4, ipv6?]),
        }
    }
}

/// Reserves a port again that an earlier process had.
pub(crate) fn reserve_again(binding: &PortBinding) -> Result<Reservation> {
    let port = PortRequest {
        protocol: binding.protocol,
        container_port: binding.container_port,
        host_address: Some(binding.host_address),
        host_port: binding.host_port,
    };
    reserve_at(&port, binding.host_address, binding.host_port)
}

fn reserve_at(port: &PortRequest, address: IpAddr, number: u16) -> Result<Reservation> {
    let wanted = SocketAddr::new(address, number);
    let (socket, bound) =
        bind(port.protocol, wanted).map_err(|errno| refusal(port.protocol, wanted, errno))?;
    Ok(Reservation {
        binding: PortBinding {
            protocol: port.protocol,
            container_port: port.container_port,
            host_address: address,
            host_port: bound,
        },
        socket: Arc::new(socket),
    })
}

/// A TCP socket listens, because two that are only bound may share a port when both say REUSEADDR; and
/// it says REUSEADDR, because otherwise connections of an earlier owner that linger in TIME_WAIT would
/// count as a conflict.
fn bind(protocol: Protocol, address: SocketAddr) -> Result<(OwnedFd, u16), Errno> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

fn refusal(protocol: Protocol, address: SocketAddr, errno: Errno) -> NetworkError {
    match errno {
        Errno::ADDRINUSE => NetworkError::PortInUse { address, protocol },
        Errno::ADDRNOTAVAIL => NetworkError::AddressNotHere(address.ip()),
        errno => NetworkError::Reserve {
            address,
            protocol,
            source: io::Error::from(errno),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn port(protocol: Protocol, host_address: Ipv4Addr, host_port: u16) -> PortRequest {
        PortRequest {
            protocol,
            container_port: 80,
            host_address: Some(host_address.into()),
            host_port,
        }
    }

    fn refused(port: PortRequest) -> String {
        reserve(&[port], false).unwrap_err().to_string()
    }

    #[test]
    fn k11_a_tcp_port_in_use_is_refused_by_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            let message = refused(port(Protocol::Tcp, address, taken));
            assert!(
                message.contains(&format!("{address}:{taken}/tcp")),
                "{message}"
            );
        }
    }

    #[test]
    fn k11_a_udp_port_in_use_is_refused_by_name() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let taken = socket.local_addr().unwrap().port();
        let message = refused(port(Protocol::Udp, Ipv4Addr::LOCALHOST, taken));
        assert!(
            message.contains(&format!("127.0.0.1:{taken}/udp")),
            "{message}"
        );
    }

    #[test]
    fn k11_a_socket_of_both_families_is_a_conflict_too() {
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            return; // a host without IPv6
        };
        let taken = listener.local_addr().unwrap().port();
        refused(port(Protocol::Tcp, Ipv4Addr::UNSPECIFIED, taken));
    }

    #[test]
    fn k11_what_is_reserved_nobody_else_can_have() {
        let held = reserve(&[port(Protocol::Tcp, Ipv4Addr::LOCALHOST, 0)], false).unwrap();
        let taken = held[0].binding.host_port;
        assert_ne!(taken, 0);
        refused(port(Protocol::Tcp, Ipv4Addr::UNSPECIFIED, taken));
        assert!(TcpListener::bind(("127.0.0.1", taken)).is_err());
        drop(held);
        assert!(TcpListener::bind(("127.0.0.1", taken)).is_ok());
    }

    #[test]
    fn k11_one_request_for_a_port_twice_is_refused_and_leaves_nothing() {
        let free = reserve(&[port(Protocol::Tcp, Ipv4Addr::LOCALHOST, 0)], false).unwrap();
        let wanted = port(
            Protocol::Tcp,
            Ipv4Addr::LOCALHOST,
            free[0].binding.host_port,
        );
        drop(free);
        assert!(reserve(&[wanted, wanted], false).is_err());
        assert!(reserve(&[wanted], false).is_ok());
    }

    #[test]
    fn k11_a_port_of_all_addresses_is_the_same_in_both_families_and_kept_in_both() {
        let anywhere = PortRequest {
            host_address: None,
            ..port(Protocol::Tcp, Ipv4Addr::UNSPECIFIED, 0)
        };
        assert_eq!(reserve(&[anywhere], false).unwrap().len(), 1);
        let Ok(held) = reserve(&[anywhere], true) else {
            return; // a host without IPv6
        };
        let [ipv4, ipv6] = &held[..] else {
            unreachable!("{held:?}");
        };
        assert_eq!(ipv4.binding.host_port, ipv6.binding.host_port);
        let again = PortRequest {
            host_address: Some(Ipv6Addr::LOCALHOST.into()),
            host_port: ipv6.binding.host_port,
            ..anywhere
        };
        let message = reserve(&[again], true).unwrap_err().to_string();
        assert!(message.contains("[::1]:"), "{message}");
        let message = reserve(&[again], false).unwrap_err().to_string();
        assert!(message.contains("has IPv6"), "{message}");
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let message = refused(port(Protocol::Tcp, Ipv4Addr::new(198, 51, 100, 7), 0));
        assert!(message.contains("198.51.100.7"), "{message}");
    }
}
