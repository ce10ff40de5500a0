//! What a container asks of the network, and what it got. Both are plain data: the caller keeps the
//! answer in the container's record.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use orlop_proto::runtime as wire;
use serde::{Deserialize, Serialize};

use super::error::NetworkError;

/// The networks that there are. A closed set: no name from outside becomes part of a path (K10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// A namespace of its own on the instance's bridge.
    #[default]
    Bridge,
    /// A namespace of its own with nothing but a loopback interface.
    None,
    /// The host's own namespace.
    Host,
}

/// A transport protocol whose ports can be published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortBinding {
    /// Protocol on both sides.
    pub protocol: Protocol,
    /// Port in the container, 1 to 65535.
    pub container_port: u16,
    /// Address of the host; unspecified: all of them.
    pub host_address: Ipv4Addr,
    /// Port of the host; 0 in a request: a free one is chosen.
    pub host_port: u16,
}

/// What a container asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Which network.
    pub kind: NetworkKind,
    /// Ports to publish. They mean something on the bridge only: elsewhere none is published (as with
    /// Docker, which warns of it when the container is created).
    pub ports: Vec<PortBinding>,
}

/// What a container got. The caller keeps it in the container's record, and gives it back to
/// `detach` and `reconcile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Which network.
    pub kind: NetworkKind,
    /// The network namespace to start the container in; absent: the host's own. It is good while the
    /// service that answered lives; afterwards the container's processes keep the namespace alive, and
    /// nobody else does, so nothing is left behind when both are gone.
    pub netns: Option<PathBuf>,
    /// The place on the bridge.
    pub endpoint: Option<EndpointInfo>,
    /// Ports as they are bound.
    pub ports: Vec<PortBinding>,
}

/// A container's place on the bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// The container's address.
    pub address: Ipv4Addr,
    /// Bits of the subnet.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// `02:42:ac:12:00:02`.
    pub mac: String,
}

// === impl NetworkKind ===

impl NetworkKind {
    /// All of them, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Bridge, Self::Host, Self::None];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::None => "none",
            Self::Host => "host",
        }
    }

    /// Docker's name of what is behind it.
    pub fn driver(self) -> &'static str {
        match self {
            Self::None => "null",
            other => other.name(),
        }
    }
}

impl FromStr for NetworkKind {
    type Err = NetworkError;

    /// An empty name, and Docker's `default`, is the bridge.
    fn from_str(name: &str) -> Result<Self, NetworkError> {
        match name {
            "" | "default" | "bridge" => Ok(Self::Bridge),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            other => Err(NetworkError::UnknownNetwork(other.to_owned())),
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// The number in an IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl FromStr for Protocol {
    type Err = NetworkError;

    fn from_str(name: &str) -> Result<Self, NetworkError> {
        match name {
            "" | "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            other => Err(NetworkError::UnknownProtocol(other.to_owned())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

// === impl PortBinding ===

impl TryFrom<&wire::PortBinding> for PortBinding {
    type Error = NetworkError;

    fn try_from(binding: &wire::PortBinding) -> Result<Self, NetworkError> {
        let port =
            |number: u32| u16::try_from(number).map_err(|_| NetworkError::InvalidPort(number));
        let container_port = port(binding.container_port)?;
        if container_port == 0 {
            return Err(NetworkError::InvalidPort(0));
        }
        Ok(Self {
            protocol: binding.protocol.parse()?,
            container_port,
            host_address: host_address(&binding.host_address)?,
            host_port: port(binding.host_port)?,
        })
    }
}

impl From<&PortBinding> for wire::PortBinding {
    fn from(binding: &PortBinding) -> Self {
        Self {
            protocol: binding.protocol.to_string(),
            container_port: binding.container_port.into(),
            host_address: binding.host_address.to_string(),
            host_port: binding.host_port.into(),
        }
    }
}

fn host_address(text: &str) -> Result<Ipv4Addr, NetworkError> {
    match text {
        "" => Ok(Ipv4Addr::UNSPECIFIED),
        "localhost" => Ok(Ipv4Addr::LOCALHOST),
        _ => match text.parse() {
            Ok(IpAddr::V4(address)) => Ok(address),
            Ok(address @ IpAddr::V6(_)) => Err(NetworkError::Ipv6Address(address)),
            Err(_) => Err(NetworkError::InvalidAddress(text.to_owned())),
        },
    }
}

// === impl Attachment ===

impl Attachment {
    /// The endpoints as the contract says them.
    pub fn endpoints(&self) -> Vec<wire::Endpoint> {
        let endpoint = self.endpoint.as_ref();
        vec![wire::Endpoint {
            network: self.kind.name().to_owned(),
            address: endpoint.map(|e| e.address.to_string()).unwrap_or_default(),
            prefix_length: endpoint.map(|e| e.prefix.into()).unwrap_or_default(),
            gateway: endpoint.map(|e| e.gateway.to_string()).unwrap_or_default(),
            mac: endpoint.map(|e| e.mac.clone()).unwrap_or_default(),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(protocol: &str, container: u32, address: &str, host: u32) -> wire::PortBinding {
        wire::PortBinding {
            protocol: protocol.to_owned(),
            container_port: container,
            host_address: address.to_owned(),
            host_port: host,
        }
    }

    #[test]
    fn a_binding_goes_there_and_back() {
        let binding = PortBinding::try_from(&wire("", 80, "", 8080)).unwrap();
        assert_eq!(binding.host_address, Ipv4Addr::UNSPECIFIED);
        let back = wire::PortBinding::from(&binding);
        assert_eq!(back, wire("tcp", 80, "0.0.0.0", 8080));
    }

    #[test]
    fn what_is_no_binding_is_refused_by_name() {
        let refused = |w: &wire::PortBinding| PortBinding::try_from(w).unwrap_err().to_string();
        assert!(refused(&wire("sctp", 80, "", 0)).contains("sctp"));
        assert!(refused(&wire("tcp", 0, "", 0)).contains('0'));
        assert!(refused(&wire("tcp", 65_536, "", 0)).contains("65536"));
        assert!(refused(&wire("tcp", 80, "::1", 0)).contains("::1"));
        assert!(refused(&wire("tcp", 80, "1.2.3", 0)).contains("1.2.3"));
    }

    #[test]
    fn networks_are_a_closed_set() {
        assert_eq!("".parse::<NetworkKind>().unwrap(), NetworkKind::Bridge);
        assert!("../../bin/x".parse::<NetworkKind>().is_err());
    }
}
