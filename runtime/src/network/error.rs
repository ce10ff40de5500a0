//! What goes wrong with networks.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use orlop_proto::error::{Classify, Kind, reason};

use super::request::Protocol;

/// Why something about a network could not be done.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No network has this name.
    #[error("no such network: {0}")]
    UnknownNetwork(String),
    /// Several networks have ids that begin with this.
    #[error("{0:?} is the beginning of several networks' ids")]
    AmbiguousNetwork(String),
    /// A network has this name.
    #[error("network {0} exists already")]
    NetworkExists(String),
    /// One of the names that are not for users' networks.
    #[error("{0:?} is the name of a network that always exists, and cannot be made or removed")]
    ReservedName(String),
    /// Networks are bridges.
    #[error("no network driver {0:?}: there is only bridge")]
    UnknownDriver(String),
    /// An option of a network that means nothing here.
    #[error("unknown network option {0:?}")]
    UnknownOption(String),
    /// A part of a request that means nothing.
    #[error("{0}")]
    Invalid(String),
    /// A running container is in the network.
    #[error("network {network} is in use by container {container}")]
    NetworkInUse {
        /// Which network.
        network: String,
        /// Who is in it.
        container: String,
    },
    /// The container is in the network.
    #[error("container {container} is in network {network} already")]
    AlreadyConnected {
        /// Which container.
        container: String,
        /// Which network.
        network: String,
    },
    /// The container is not in the network.
    #[error("container {container} is not in network {network}")]
    NotConnected {
        /// Which container.
        container: String,
        /// Which network.
        network: String,
    },
    /// The container has no namespace of its own that could be connected.
    #[error("a container with network {0} cannot be in another one")]
    NoNamespace(String),
    /// The container whose namespace is wanted does not run.
    #[error("cannot join the network of container {0}: it does not run")]
    NoSuchNeighbour(String),
    /// Another network, or the host, uses the subnet.
    #[error("subnet {0} overlaps with another network, or with addresses or routes of this host")]
    SubnetTaken(String),
    /// A static address that is outside of the subnet, its ends or the gateway's.
    #[error("address {address} is not one that a container can have in network {network}")]
    AddressOutside {
        /// What was asked for.
        address: IpAddr,
        /// In which network.
        network: String,
    },
    /// A static address that a container has.
    #[error("address {address} of network {network} is in use")]
    AddressTaken {
        /// What was asked for.
        address: IpAddr,
        /// In which network.
        network: String,
    },
    /// Neither `tcp` nor `udp`.
    #[error("cannot publish a port of protocol {0:?}: only tcp and udp")]
    UnknownProtocol(String),
    /// Not between 1 and 65535 (a host port may be 0: choose one).
    #[error("{0} is not a port: give a number from 1 to 65535")]
    InvalidPort(u32),
    /// Not an IP address.
    #[error("{0:?} is not an IP address of this host")]
    InvalidAddress(String),
    /// A port on an IPv6 address, of a container that has none.
    #[error("cannot publish a port on {0}: no network of the container has IPv6 and a way out")]
    NoIpv6Port(IpAddr),
    /// A port on an IPv6 address, in a network whose ports are relayed.
    #[error(
        "cannot publish a port on {0}: behind the host's own input rules only IPv4 ports are published"
    )]
    RelayedIpv6Port(IpAddr),
    /// What neither the kernel nor a relay does.
    #[error("cannot publish a udp port on ::1: publish it on 127.0.0.1, or another address")]
    UdpOnLoopback,
    /// A static IPv6 address in a network without IPv6.
    #[error("cannot have address {address} in network {network}: it has no IPv6")]
    NoIpv6 {
        /// What was asked for.
        address: Ipv6Addr,
        /// In which network.
        network: String,
    },
    /// A host address that the host does not have.
    #[error("cannot publish a port on {0}: this host has no such address")]
    AddressNotHere(IpAddr),
    /// Another process or container has the port.
    #[error("port {address}/{protocol} of the host is already in use")]
    PortInUse {
        /// Address and port of the host.
        address: SocketAddr,
        /// Which protocol.
        protocol: Protocol,
    },
    /// The port cannot be reserved for another reason than that it is taken.
    #[error("cannot reserve port {address}/{protocol} of the host")]
    Reserve {
        /// Address and port of the host.
        address: SocketAddr,
        /// Which protocol.
        protocol: Protocol,
        /// What the system said.
        source: io::Error,
    },
    /// A name server that is no IP address.
    #[error("{0:?} is not a name server: give an IP address")]
    InvalidDns(String),
    /// An option of resolv.conf that is not one word.
    #[error("{0:?} is not a resolver option: give one of resolv.conf(5), such as ndots:2")]
    InvalidDnsOption(String),
    /// A hardware address that no interface can have.
    #[error("{0:?} is not a MAC address: give one such as 02:42:ac:12:00:02")]
    InvalidMac(String),
    /// Too many name servers or extra hosts.
    #[error("too many {what}: at most {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        most: usize,
    },
    /// Not `name:address`.
    #[error("{0:?} is not an extra host: write name:address")]
    InvalidExtraHost(String),
    /// Something that cannot stand in /etc/hosts.
    #[error("{0:?} is not a host name")]
    InvalidHostname(String),
    /// Every subnet of the pool overlaps with one that the host knows.
    #[error(
        "no free subnet for the bridge: all of 172.18-31.0.0/16 and 10.0-255.0.0/16 overlap with \
             addresses or routes of this host"
    )]
    SubnetsExhausted,
    /// All addresses of the bridge's subnet are taken.
    #[error("no free address in {subnet}")]
    AddressesExhausted {
        /// The bridge's subnet.
        subnet: String,
    },
    /// Every name of an interface is in use.
    #[error("no free name for a network interface")]
    InterfacesExhausted,
    /// Every network of users that there may be is there.
    #[error("too many networks: at most {0}")]
    NetworksExhausted(u32),
    /// The kernel refuses a change.
    #[error("cannot {operation}")]
    Kernel {
        /// What we asked for, as a verb and its object.
        operation: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of ours or a setting of the kernel.
    #[error("cannot access {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A background task ended without an answer.
    #[error("a network task ended without an answer")]
    TaskLost,
}

/// The usual result here.
pub type Result<T, E = NetworkError> = std::result::Result<T, E>;

impl NetworkError {
    /// For `map_err`: the kernel refused `operation`.
    pub(crate) fn kernel(operation: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let operation = operation.into();
        move |source| Self::Kernel { operation, source }
    }

    /// For `map_err`: the file at `path` could not be used.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

impl Classify for NetworkError {
    fn kind(&self) -> Kind {
        match self {
            Self::UnknownNetwork(_) | Self::NotConnected { .. } => Kind::NotFound,
            Self::NetworkExists(_) | Self::AlreadyConnected { .. } => Kind::AlreadyExists,
            Self::UnknownProtocol(_)
            | Self::UnknownDriver(_)
            | Self::UnknownOption(_)
            | Self::Invalid(_)
            | Self::AddressOutside { .. }
            | Self::InvalidPort(_)
            | Self::InvalidAddress(_)
            | Self::InvalidDns(_)
            | Self::InvalidDnsOption(_)
            | Self::InvalidMac(_)
            | Self::TooMany { .. }
            | Self::InvalidExtraHost(_)
            | Self::InvalidHostname(_) => Kind::InvalidArgument,
            Self::AddressNotHere(_)
            | Self::NoIpv6Port(_)
            | Self::RelayedIpv6Port(_)
            | Self::NoIpv6 { .. }
            | Self::UdpOnLoopback
            | Self::PortInUse { .. }
            | Self::AmbiguousNetwork(_)
            | Self::ReservedName(_)
            | Self::NetworkInUse { .. }
            | Self::NoNamespace(_)
            | Self::NoSuchNeighbour(_)
            | Self::SubnetTaken(_)
            | Self::AddressTaken { .. } => Kind::FailedPrecondition,
            Self::SubnetsExhausted
            | Self::AddressesExhausted { .. }
            | Self::InterfacesExhausted
            | Self::NetworksExhausted(_) => Kind::ResourceExhausted,
            Self::Kernel { .. } | Self::File { .. } | Self::Reserve { .. } | Self::TaskLost => {
                Kind::Internal
            }
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::PortInUse { .. } => Some(reason::PORT_IN_USE),
            Self::AddressNotHere(_)
            | Self::NoIpv6Port(_)
            | Self::RelayedIpv6Port(_)
            | Self::NoIpv6 { .. }
            | Self::UdpOnLoopback
            | Self::NoSuchNeighbour(_)
            | Self::AddressTaken { .. } => Some(reason::CANNOT_START),
            Self::NetworkInUse { .. } => Some(reason::IN_USE),
            Self::AmbiguousNetwork(_) => Some(reason::AMBIGUOUS_PREFIX),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::PortInUse { address, .. } => Some(format!(
                "publish another port of the host, or find who has it: ss -lntup 'sport = :{}'",
                address.port()
            )),
            Self::RelayedIpv6Port(_) => Some(
                "publish it on an IPv4 address, or in a network with -o com.orlop.published=forward"
                    .to_owned(),
            ),
            Self::NoIpv6Port(_) | Self::NoIpv6 { .. } => {
                Some("put the container into a network that was made with --ipv6".to_owned())
            }
            Self::UnknownNetwork(_) => Some("list networks with `orlop network ls`".to_owned()),
            Self::NetworkInUse { network, .. } => Some(format!(
                "stop the container, or take it out: orlop network disconnect {network} CONTAINER"
            )),
            _ => None,
        }
    }
}
