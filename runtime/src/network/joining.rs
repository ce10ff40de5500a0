//! A network that a container joins: the addresses that it gets there, and whether its way out is there.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::address::{Addresses, Lease, mac_of};
use super::bridge::Bridge;
use super::error::{NetworkError, Result};
use super::family::Address;
use super::link::Link;
use super::namespace::{BridgePort, Ipv6Port};
use super::ports::{self, Reservation};
use super::request::{EndpointInfo, Ipv6Info, NetworkRequest};
use super::route::Mac;
use super::segment::{Joined, Member, Segment};
use super::{blocking, relay};

/// A network that a container joins.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) segment: Arc<Segment>,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) ipv6_address: Option<Ipv6Addr>,
    pub(super) mac: Option<Mac>,
    pub(super) names: Vec<String>,
    pub(super) aliases: Vec<String>,
    pub(super) links: Vec<Link>,
    /// Ports that are published in it are relayed.
    pub(super) relayed: bool,
}

/// Of which families a place on a bridge is the way out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WayOut {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

/// Puts a container into all of them, or into none.
pub(super) fn join_all(
    container: &str,
    joining: &[Joining],
    request: &NetworkRequest,
) -> Result<Vec<Joined>> {
    let title = request.names.first().cloned();
    let join = |joining: &Joining| {
        let member = Member {
            title: title.clone().unwrap_or_else(|| container.to_owned()),
            endpoint: None,
            servers: request.servers.clone(),
        };
        joining.segment.join(container, member)
    };
    joining.iter().map(join).collect()
}

/// The host's side of the ports that are asked for. Those that are relayed are of IPv4.
pub(super) async fn reserve(
    request: &NetworkRequest,
    joining: &[Joining],
) -> Result<Vec<Reservation>> {
    let (wanted, way_out) = (request.ports.clone(), way_out(joining));
    if !way_out.ipv4 {
        return Ok(Vec::new());
    }
    let relayed = joining.iter().any(|joining| joining.relayed);
    if relayed {
        relay::check(&wanted)?;
    }
    blocking(move || ports::reserve(&wanted, way_out.ipv6 && !relayed)).await
}

/// The families that containers of these networks get out by.
pub(super) fn way_out<'a>(joining: impl IntoIterator<Item = &'a Joining>) -> WayOut {
    let definitions = joining.into_iter().map(|j| &j.segment.definition);
    let open = definitions.filter(|definition| !definition.internal);
    open.fold(WayOut::default(), |found, definition| WayOut {
        ipv4: true,
        ipv6: found.ipv6 || definition.ipv6.is_some(),
    })
}

impl Joining {
    /// Whether its user chose an address.
    pub(super) fn has_fixed_address(&self) -> bool {
        self.address.is_some() || self.ipv6_address.is_some()
    }

    /// Of the interface that has this address.
    pub(super) fn mac(&self, address: Ipv4Addr) -> Mac {
        self.mac.unwrap_or_else(|| mac_of(address))
    }
}

impl WayOut {
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            ipv4: self.ipv4 || other.ipv4,
            ipv6: self.ipv6 || other.ipv6,
        }
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self {
            ipv4: self.ipv4 && !other.ipv4,
            ipv6: self.ipv6 && !other.ipv6,
        }
    }
}

/// An address: the one that is wanted, or a free one.
pub(super) fn lease<A: Address>(
    addresses: &Addresses<A>,
    wanted: Option<A>,
    network: &str,
) -> Result<Lease<A>> {
    let Some(wanted) = wanted else {
        return addresses
            .take()
            .ok_or_else(|| NetworkError::AddressesExhausted {
                subnet: addresses.subnet().to_string(),
            });
    };
    let (address, network) = (wanted.into(), network.to_owned());
    if !addresses.has(wanted) || wanted == addresses.gateway() {
        return Err(NetworkError::AddressOutside { address, network });
    }
    let taken = NetworkError::AddressTaken { address, network };
    addresses.claim(wanted).ok_or(taken)
}

/// `None`: the network has no IPv6.
pub(super) fn ipv6_port(
    bridge: &Bridge,
    joining: &Joining,
    routed: bool,
) -> Result<Option<Ipv6Port>> {
    let network = &joining.segment.definition.name;
    let Some(addresses) = &bridge.ipv6 else {
        return match joining.ipv6_address {
            None => Ok(None),
            Some(address) => Err(NetworkError::NoIpv6 {
                address,
                network: network.clone(),
            }),
        };
    };
    Ok(Some(Ipv6Port {
        lease: lease(addresses, joining.ipv6_address, network)?,
        gateway: addresses.gateway(),
        routed,
    }))
}

/// What a container got there.
pub(super) fn endpoint(joining: &Joining, port: &BridgePort) -> EndpointInfo {
    let address = port.lease.address();
    EndpointInfo {
        network: port.network.clone(),
        network_id: joining.segment.definition.id.clone(),
        address,
        prefix: port.lease.subnet().prefix(),
        gateway: port.gateway,
        ipv6: port.ipv6.as_ref().map(|ipv6| Ipv6Info {
            address: ipv6.lease.address(),
            prefix: ipv6.lease.subnet().prefix(),
            gateway: ipv6.gateway,
            routed: ipv6.routed,
        }),
        mac: text_of(joining.mac(address)),
        interface: port.interface.clone(),
        veth: port.veth.clone(),
        routed: port.routed,
        relayed: joining.relayed,
        names: joining.names.clone(),
        aliases: joining.aliases.clone(),
        links: joining.links.clone(),
    }
}

/// A hardware address as people write it.
fn text_of(mac: Mac) -> String {
    let mut text = String::new();
    for byte in mac {
        let separator = if text.is_empty() { "" } else { ":" };
        write!(text, "{separator}{byte:02x}").ok();
    }
    text
}
