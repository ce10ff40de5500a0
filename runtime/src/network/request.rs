//! What a container asks of the network, and what it got. Both are plain data: the caller keeps the
//! answer in the container's record.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use orlop_proto::runtime as wire;
use serde::{Deserialize, Serialize};

use super::definition::DEFAULT;
use super::error::NetworkError;
use super::link::Link;
use super::resolver::check_name;

/// Of one container in one network; of links as many.
const ALIASES_MAX: usize = 64;

/// How a container is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// A namespace of its own, with an interface in each of its bridge networks.
    #[default]
    Bridge,
    /// A namespace of its own with nothing but a loopback interface.
    None,
    /// The host's own namespace.
    Host,
    /// The namespace of another container.
    Container,
}

/// What a person asks a container's network to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// A bridge network, by name or id.
    Bridge(String),
    /// Nothing but a loopback interface.
    None,
    /// The host's own.
    Host,
    /// That of a container, by name or id.
    Container(String),
}

/// That a container is in a network, whenever it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network's name.
    pub network: String,
    /// A static address.
    pub address: Option<Ipv4Addr>,
    /// A static IPv6 address.
    pub ipv6_address: Option<Ipv6Addr>,
    /// Hardware address of its interface there.
    #[serde(default)]
    pub mac: Option<[u8; 6]>,
    /// Further names of the container in this network.
    pub aliases: Vec<String>,
    /// What it alone calls others in this network.
    #[serde(default)]
    pub links: Vec<Link>,
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

/// A port that is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// Protocol on both sides.
    pub protocol: Protocol,
    /// Port in the container, 1 to 65535.
    pub container_port: u16,
    /// Address of the host; absent: all of them, of each family that the container has.
    pub host_address: Option<IpAddr>,
    /// Port of the host; 0: a free one is chosen.
    pub host_port: u16,
}

/// How published ports reach their container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Publishing {
    /// Packets are forwarded to it, whatever the host's own input rules say.
    #[default]
    Forward,
    /// The host itself listens, behind its own input rules, and relays.
    Input,
}

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortBinding {
    /// Protocol on both sides.
    pub protocol: Protocol,
    /// Port in the container, 1 to 65535.
    pub container_port: u16,
    /// Address of the host; unspecified: all of its family. The container's is of the same.
    pub host_address: IpAddr,
    /// Port of the host.
    pub host_port: u16,
}

/// What a container asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRequest {
    /// How it is connected.
    pub kind: NetworkKind,
    /// Ports to publish. They mean something on a bridge only: elsewhere none is published (as with
    /// Docker, which warns of it when the container is created).
    pub ports: Vec<PortRequest>,
    /// The bridge networks to be in; none is possible.
    pub memberships: Vec<Membership>,
    /// What others in these networks call it; the first is also for people.
    pub names: Vec<String>,
    /// Name servers to ask in place of the host's.
    pub servers: Vec<IpAddr>,
    /// With [`NetworkKind::Container`]: the id of the container whose namespace to join.
    pub neighbour: String,
    /// A namespace to set up in place of one of ours, which the caller has open.
    pub prepared: Option<PathBuf>,
}

/// What a container got. The caller keeps it in the container's record, and gives it back to
/// `detach` and `reconcile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// How it is connected.
    pub kind: NetworkKind,
    /// The network namespace to start the container in; absent: the host's own. It is good while the
    /// service that answered lives; afterwards the container's processes keep the namespace alive, and
    /// nobody else does, so nothing is left behind when both are gone.
    pub netns: Option<PathBuf>,
    /// The places on bridges, in the order in which they were made.
    pub endpoints: Vec<EndpointInfo>,
    /// Ports as they are bound.
    pub ports: Vec<PortBinding>,
    /// Name servers that were asked for.
    pub servers: Vec<IpAddr>,
}

/// A container's place on a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// The network's name.
    pub network: String,
    /// And its id.
    pub network_id: String,
    /// The container's address.
    pub address: Ipv4Addr,
    /// Bits of the subnet.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// Absent: the network has no IPv6.
    pub ipv6: Option<Ipv6Info>,
    /// `02:42:ac:12:00:02`.
    pub mac: String,
    /// The interface in the container: `eth0`.
    pub interface: String,
    /// The host's end of the veth pair.
    pub veth: String,
    /// The container's way out is through this network.
    pub routed: bool,
    /// Published ports that lead here are relayed ([`Publishing::Input`]).
    #[serde(default)]
    pub relayed: bool,
    /// What others in the network call it.
    pub names: Vec<String>,
    /// Those of the names that were asked for in this network.
    pub aliases: Vec<String>,
    /// What it alone calls others in this network.
    #[serde(default)]
    pub links: Vec<Link>,
}

/// A container's IPv6 address in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Info {
    /// The container's address.
    pub address: Ipv6Addr,
    /// Bits of the subnet.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv6Addr,
    /// The container's way out by IPv6 is through this network.
    pub routed: bool,
}

// === impl Attachment ===

impl Attachment {
    /// The container is called otherwise from now on.
    pub fn rename(&mut self, before: &str, after: &str) {
        let names = self.endpoints.iter_mut().flat_map(|e| &mut e.names);
        names
            .filter(|name| *name == before)
            .for_each(|name| after.clone_into(name));
    }
}

// === impl NetworkKind ===

impl NetworkKind {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::None => "none",
            Self::Host => "host",
            Self::Container => "container",
        }
    }
}

impl NetworkMode {
    /// How a container is connected by it.
    pub fn kind(&self) -> NetworkKind {
        match self {
            Self::Bridge(_) => NetworkKind::Bridge,
            Self::None => NetworkKind::None,
            Self::Host => NetworkKind::Host,
            Self::Container(_) => NetworkKind::Container,
        }
    }
}

impl From<&str> for NetworkMode {
    /// An empty name, and Docker's `default`, is the bridge.
    fn from(text: &str) -> Self {
        match text {
            "" | "default" => Self::Bridge(DEFAULT.to_owned()),
            "none" => Self::None,
            "host" => Self::Host,
            other => match other.strip_prefix("container:") {
                Some(container) => Self::Container(container.to_owned()),
                None => Self::Bridge(other.to_owned()),
            },
        }
    }
}

// === impl NetworkRequest ===

impl Default for NetworkRequest {
    /// The network of everyone.
    fn default() -> Self {
        Self {
            kind: NetworkKind::Bridge,
            ports: Vec::new(),
            memberships: vec![Membership {
                network: DEFAULT.to_owned(),
                ..Membership::default()
            }],
            names: Vec::new(),
            servers: Vec::new(),
            neighbour: String::new(),
            prepared: None,
        }
    }
}

// === impl Membership ===

impl TryFrom<&wire::NetworkMembership> for Membership {
    type Error = NetworkError;

    fn try_from(membership: &wire::NetworkMembership) -> Result<Self, NetworkError> {
        for (what, names) in [
            ("aliases", &membership.aliases),
            ("links", &membership.links),
        ] {
            if names.len() > ALIASES_MAX {
                let most = ALIASES_MAX;
                return Err(NetworkError::TooMany { what, most });
            }
        }
        let links = membership.links.iter().map(|link| link.parse());
        membership
            .aliases
            .iter()
            .try_for_each(|alias| check_name(alias))?;
        Ok(Self {
            network: membership.network.clone(),
            address: static_address(&membership.address)?,
            ipv6_address: static_address(&membership.ipv6_address)?,
            mac: hardware_address(&membership.mac_address)?,
            aliases: membership.aliases.clone(),
            links: links.collect::<Result<_, _>>()?,
        })
    }
}

/// An empty text is none.
fn static_address<A: FromStr>(text: &str) -> Result<Option<A>, NetworkError> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = |_| NetworkError::InvalidAddress(text.chars().take(64).collect());
    text.parse().map(Some).map_err(invalid)
}

/// An empty text is none. One of a group is no interface's own.
fn hardware_address(text: &str) -> Result<Option<[u8; 6]>, NetworkError> {
    if text.is_empty() {
        return Ok(None);
    }
    let byte = |part: &str| {
        let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        let byte = digits.then(|| u8::from_str_radix(part, 16).ok());
        byte.flatten()
    };
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
    let mac = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    let own = mac.filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]);
    let invalid = || NetworkError::InvalidMac(text.chars().take(64).collect());
    own.map(Some).ok_or_else(invalid)
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

// === impl PortRequest ===

impl TryFrom<&wire::PortBinding> for PortRequest {
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

// === impl PortBinding ===

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

fn host_address(text: &str) -> Result<Option<IpAddr>, NetworkError> {
    match text {
        "" => Ok(None),
        "localhost" => Ok(Some(Ipv4Addr::LOCALHOST.into())),
        _ => match text.parse() {
            Ok(address) => Ok(Some(address)),
            Err(_) => Err(NetworkError::InvalidAddress(text.to_owned())),
        },
    }
}

// === impl Attachment ===

impl Attachment {
    /// The endpoints as the contract says them. Where there is none by nature, the network is still
    /// told.
    pub fn endpoints(&self) -> Vec<wire::Endpoint> {
        match self.kind {
            NetworkKind::Bridge => self.endpoints.iter().map(Into::into).collect(),
            NetworkKind::Container => Vec::new(),
            NetworkKind::None | NetworkKind::Host => vec![wire::Endpoint {
                network: self.kind.name().to_owned(),
                ..wire::Endpoint::default()
            }],
        }
    }

    /// Whether published ports that lead to this address pass the host's own input rules.
    pub(crate) fn relays(&self, address: IpAddr) -> bool {
        let mut endpoints = self.endpoints.iter().filter(|endpoint| endpoint.relayed);
        endpoints.any(|endpoint| endpoint.addresses().any(|own| own == address))
    }

    /// The endpoint that the container's way out is through.
    pub(crate) fn routed(&self) -> Option<&EndpointInfo> {
        self.endpoints.iter().find(|endpoint| endpoint.routed)
    }

    /// The endpoint that its way out by IPv6 is through.
    pub(crate) fn routed_by_ipv6(&self) -> Option<(&EndpointInfo, Ipv6Info)> {
        let mut endpoints = self.endpoints.iter();
        endpoints.find_map(|endpoint| Some((endpoint, endpoint.ipv6.filter(|ipv6| ipv6.routed)?)))
    }

    /// Where published ports lead to.
    pub(crate) fn ways_in(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.routed().map(|endpoint| endpoint.address.into());
        let ipv6 = self.routed_by_ipv6().map(|(_, ipv6)| ipv6.address.into());
        ipv4.into_iter().chain(ipv6)
    }
}

impl EndpointInfo {
    /// Those of the container, of each family.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let ipv6 = self.ipv6.map(|ipv6| ipv6.address.into());
        std::iter::once(self.address.into()).chain(ipv6)
    }
}

impl From<&EndpointInfo> for wire::Endpoint {
    fn from(endpoint: &EndpointInfo) -> Self {
        let ipv6 = endpoint.ipv6;
        Self {
            network: endpoint.network.clone(),
            address: endpoint.address.to_string(),
            prefix_length: endpoint.prefix.into(),
            gateway: endpoint.gateway.to_string(),
            mac: endpoint.mac.clone(),
            network_id: endpoint.network_id.clone(),
            aliases: endpoint.aliases.clone(),
            links: endpoint.links.iter().map(Link::to_string).collect(),
            ipv6_address: ipv6.map(|i| i.address.to_string()).unwrap_or_default(),
            ipv6_prefix_length: ipv6.map(|i| i.prefix.into()).unwrap_or_default(),
            ipv6_gateway: ipv6.map(|i| i.gateway.to_string()).unwrap_or_default(),
        }
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
        let request = PortRequest::try_from(&wire("", 80, "", 8080)).unwrap();
        assert_eq!(request.host_address, None);
        let request = PortRequest::try_from(&wire("", 80, "::1", 8080)).unwrap();
        let binding = PortBinding {
            protocol: request.protocol,
            container_port: request.container_port,
            host_address: request.host_address.unwrap(),
            host_port: request.host_port,
        };
        let back = wire::PortBinding::from(&binding);
        assert_eq!(back, wire("tcp", 80, "::1", 8080));
    }

    #[test]
    fn what_is_no_binding_is_refused_by_name() {
        let refused = |w: &wire::PortBinding| PortRequest::try_from(w).unwrap_err().to_string();
        assert!(refused(&wire("sctp", 80, "", 0)).contains("sctp"));
        assert!(refused(&wire("tcp", 0, "", 0)).contains('0'));
        assert!(refused(&wire("tcp", 65_536, "", 0)).contains("65536"));
        assert!(refused(&wire("tcp", 80, "::x", 0)).contains("::x"));
        assert!(refused(&wire("tcp", 80, "1.2.3", 0)).contains("1.2.3"));
    }

    #[test]
    fn a_static_address_is_one_and_aliases_are_names() {
        let parse = |address: &str, alias: &str| {
            Membership::try_from(&wire::NetworkMembership {
                network: "n".to_owned(),
                address: address.to_owned(),
                ipv6_address: "fd00::9".to_owned(),
                aliases: vec![alias.to_owned()],
                ..wire::NetworkMembership::default()
            })
        };
        assert!(parse("10.0.0.9", "db").is_ok());
        assert!(parse("10.0.0", "db").is_err());
        assert!(parse("::1", "db").is_err());
        for alias in ["", "a b", "a\nb"] {
            assert!(parse("", alias).is_err(), "{alias:?}");
        }
    }

    #[test]
    fn a_hardware_address_is_of_one_interface() {
        let good = [0x92, 0xd0, 0xc6, 0x0a, 0x29, 0x33];
        assert_eq!(hardware_address("92:d0:c6:0a:29:33").unwrap(), Some(good));
        assert_eq!(hardware_address("92-D0-C6-0A-29-33").unwrap(), Some(good));
        for bad in [
            "92:d0:c6:0a:29",
            "92:d0:c6:0a:29:33:44",
            "+2:d0:c6:0a:29:33",
            "93:d0:c6:0a:29:33",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "x",
        ] {
            assert!(hardware_address(bad).is_err(), "{bad}");
        }
    }
}
