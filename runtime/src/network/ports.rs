//! Holding the host's side of published ports. The packet filter takes the packets before any socket
//! sees them; the sockets are there so that the host and every other instance find the port taken, and
//! so that a port that is taken is an error here (K11).

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::error::{NetworkError, Result};
use super::request::{PortBinding, Protocol};

/// A port of the host that nobody else can have while this lives.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) binding: PortBinding,
    _socket: OwnedFd,
}

/// Reserves all of the ports, or none. Port 0 becomes a free one.
pub(crate) fn reserve(ports: &[PortBinding]) -> Result<Vec<Reservation>> {
    ports.iter().map(reserve_one).collect()
}

fn reserve_one(port: &PortBinding) -> Result<Reservation> {
    let wanted = SocketAddrV4::new(port.host_address, port.host_port);
    let (socket, bound) =
        bind(port.protocol, wanted).map_err(|errno| refusal(port.protocol, wanted, errno))?;
    Ok(Reservation {
        binding: PortBinding {
            host_port: bound,
            ..*port
        },
        _socket: socket,
    })
}

/// A TCP socket listens, because two that are only bound may share a port when both say REUSEADDR; and
/// it says REUSEADDR, because otherwise connections of an earlier owner that linger in TIME_WAIT would
/// count as a conflict.
fn bind(protocol: Protocol, address: SocketAddrV4) -> Result<(OwnedFd, u16), Errno> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
    if protocol == Protocol::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        rustix::net::listen(&socket, 1)?;
    }
    let bound = SocketAddrV4::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

fn refusal(protocol: Protocol, address: SocketAddrV4, errno: Errno) -> NetworkError {
    match errno {
        Errno::ADDRINUSE => NetworkError::PortInUse { address, protocol },
        Errno::ADDRNOTAVAIL => NetworkError::AddressNotHere(*address.ip()),
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
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};

    fn port(protocol: Protocol, host_address: Ipv4Addr, host_port: u16) -> PortBinding {
        PortBinding {
            protocol,
            container_port: 80,
            host_address,
            host_port,
        }
    }

    fn refused(binding: PortBinding) -> String {
        reserve(&[binding]).unwrap_err().to_string()
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
        let held = reserve(&[port(Protocol::Tcp, Ipv4Addr::LOCALHOST, 0)]).unwrap();
        let taken = held[0].binding.host_port;
        assert_ne!(taken, 0);
        refused(port(Protocol::Tcp, Ipv4Addr::UNSPECIFIED, taken));
        assert!(TcpListener::bind(("127.0.0.1", taken)).is_err());
        drop(held);
        assert!(TcpListener::bind(("127.0.0.1", taken)).is_ok());
    }

    #[test]
    fn k11_one_request_for_a_port_twice_is_refused_and_leaves_nothing() {
        let free = reserve(&[port(Protocol::Tcp, Ipv4Addr::LOCALHOST, 0)]).unwrap();
        let wanted = free[0].binding;
        drop(free);
        assert!(reserve(&[wanted, wanted]).is_err());
        assert!(reserve(&[wanted]).is_ok());
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let message = refused(port(Protocol::Tcp, Ipv4Addr::new(198, 51, 100, 7), 0));
        assert!(message.contains("198.51.100.7"), "{message}");
    }
}
