//! The instance's packet filter tables: address translation for its bridges, and who may reach what is
//! behind them.
//!
//! The rules are written once, in one transaction with every published port in it (so there is no
//! moment when a bridge is open, K4), and anew when a network comes or goes; publishing a port is one
//! map entry. Reading it, with BRIDGE and SUBNET for those of each network:
//!
//! ```text
//! table ip orlop {
//!   map published    { type inet_proto . inet_service : ipv4_addr . inet_service; }
//!   map published_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
//!   chain guard       { type filter hook prerouting priority raw;
//!                       iifname != lo ip daddr 127.0.0.0/8 drop                    # K2, K5
//!                       iifname BRIDGE ip daddr != SUBNET drop }        # internal ones only
//!   chain prerouting  { type nat hook prerouting priority dstnat;
//!                       fib daddr type local goto publish }                        # K6
//!   chain output      { type nat hook output priority dstnat;
//!                       fib daddr type local goto publish }
//!   chain publish     { dnat to ip daddr . meta l4proto . th dport map @published_at
//!                       dnat to meta l4proto . th dport map @published }
//!   chain postrouting { type nat hook postrouting priority srcnat;
//!                       ip saddr SUBNET oifname != BRIDGE masquerade
//!                       ip saddr 127.0.0.0/8 oifname BRIDGE masquerade
//!                       ip saddr SUBNET oifname BRIDGE ct status dnat masquerade } # hairpin
//!   chain forward     { type filter hook forward priority filter;
//!                       ct state established,related accept
//!                       iifname BRIDGE oifname BRIDGE accept     # unless its containers are kept apart
//!                       ct status dnat accept
//!                       oifname BRIDGE drop }             # K5, and other networks' containers
//! }
//! ```
//!
//! A network with IPv6 has the same rules once more, in a table of family `ip6` with the same name. There
//! an internal network's `guard` lets neighbour discovery through, and what the host sends to `::1` is
//! not translated.
//!
//! A client from outside keeps its address (K3): only the host's own loopback and containers that come
//! back through the host are masqueraded towards a container. Another table on the host can still drop
//! what this one accepts: where Docker runs too, its FORWARD policy is DROP, and connections from
//! containers here to the outside need a rule of the administrator in `DOCKER-USER`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::error::{NetworkError, Result};
use super::family::{Address, Family};
use super::nft::expression::{
    self as on, Expression, Field, Meta, Register, Verdict, concatenation,
};
use super::nft::{self, Batch, ChainType, Entry, FieldType, Hook, Map};
use super::request::PortBinding;
use super::subnet::Subnet;

const PRIORITY_RAW: i32 = -300;
const PRIORITY_DESTINATION: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SOURCE: i32 = 100;

/// Ports published on every address of the host.
const ANYWHERE: &str = "published";
/// Ports published on one address of the host.
const AT: &str = "published_at";

/// A published port and the container behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) binding: PortBinding,
    pub(crate) container: IpAddr,
}

/// What the rules must know of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) bridge: String,
    pub(crate) subnet: Subnet,
    /// Absent: it has no IPv6.
    pub(crate) ipv6: Option<Subnet<Ipv6Addr>>,
    /// The bridge's address.
    pub(crate) gateway: Ipv4Addr,
    /// No way out.
    pub(crate) internal: bool,
    /// Containers of the network reach each other.
    pub(crate) between: bool,
    /// What leaves has the host's address.
    pub(crate) masquerade: bool,
}

/// The table of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Firewall {
    pub(crate) table: String,
}

impl Firewall {
    /// Writes everything anew, with these networks and ports, at once: also over what is there. The
    /// table of IPv6 is there while a network has IPv6.
    pub(crate) fn install(&self, networks: &[Behind], ports: &[Published]) -> Result<()> {
        let mut batch = table::<Ipv4Addr>(Batch::new(&self.table), &by_ipv4(networks));
        let with_ipv6 = by_ipv6(networks);
        if with_ipv6.is_empty() {
            self.remove_of(Family::V6)?;
        } else {
            batch = table::<Ipv6Addr>(batch, &with_ipv6);
        }
        add(batch, ports)
            .commit()
            .map_err(NetworkError::kernel(format!(
                "write nftables table {}",
                self.table
            )))
    }

    /// Publishes ports: all or none.
    pub(crate) fn publish(&self, ports: &[Published]) -> Result<()> {
        add(Batch::new(&self.table), ports)
            .commit()
            .map_err(NetworkError::kernel("publish ports"))
    }

    /// Takes ports back. Those that are not there, because somebody flushed the table, are no error.
    pub(crate) fn withdraw(&self, ports: &[Published]) -> Result<()> {
        if delete(Batch::new(&self.table), ports).commit().is_ok() {
            return Ok(());
        }
        for port in ports {
            match delete(Batch::new(&self.table), &[*port]).commit() {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(NetworkError::kernel("withdraw a published port")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the tables still have all of their rules.
    pub(crate) fn is_whole(&self, networks: &[Behind]) -> Result<bool> {
        let count = |family| {
            let there = nft::count_rules(family, &self.table);
            there.map_err(NetworkError::kernel(format!(
                "read nftables table {}",
                self.table
            )))
        };
        let with_ipv6 = by_ipv6(networks);
        let whole = count(Family::V4)? == rules(&by_ipv4(networks)).len();
        Ok(whole && (with_ipv6.is_empty() || count(Family::V6)? == rules(&with_ipv6).len()))
    }

    /// Removes the tables, if they are there.
    pub(crate) fn remove(&self) -> Result<()> {
        self.remove_of(Family::V4)?;
        self.remove_of(Family::V6)
    }

    fn remove_of(&self, family: Family) -> Result<()> {
        match Batch::new(&self.table).of(family).delete_table().commit() {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(
                NetworkError::kernel(format!("remove nftables table {}", self.table))(error),
            ),
            _ => Ok(()),
        }
    }
}

/// One family of a network.
#[derive(Clone, Copy, Debug)]
struct Side<'a, A> {
    network: &'a Behind,
    subnet: Subnet<A>,
}

fn by_ipv4(networks: &[Behind]) -> Vec<Side<'_, Ipv4Addr>> {
    let side = |network| Side {
        network,
        subnet: network.subnet,
    };
    networks.iter().map(side).collect()
}

fn by_ipv6(networks: &[Behind]) -> Vec<Side<'_, Ipv6Addr>> {
    let with_ipv6 = networks.iter().filter_map(|network| {
        let subnet = network.ipv6?;
        Some(Side { network, subnet })
    });
    with_ipv6.collect()
}

/// The whole table of a family, without ports.
fn table<'a, A: Address>(batch: Batch<'a>, networks: &[Side<'_, A>]) -> Batch<'a> {
    let batch = batch
        .of(A::FAMILY)
        .add_table()
        .delete_table()
        .add_table()
        .add_map(&anywhere(A::FAMILY))
        .add_map(&at(A::FAMILY));
    let add = |batch: Batch<'a>, (chain, rule): (_, Vec<_>)| batch.add_rule(chain, &rule);
    rules(networks).into_iter().fold(chains(batch), add)
}

fn anywhere(family: Family) -> Map<'static> {
    Map {
        name: ANYWHERE,
        key: vec![FieldType::Protocol, FieldType::Port],
        value: vec![FieldType::Address(family), FieldType::Port],
    }
}

fn at(family: Family) -> Map<'static> {
    let address = FieldType::Address(family);
    Map {
        name: AT,
        key: vec![address, FieldType::Protocol, FieldType::Port],
        value: vec![address, FieldType::Port],
    }
}

fn chains(batch: Batch<'_>) -> Batch<'_> {
    use ChainType::{Filter, Nat};
    batch
        .add_base_chain("guard", Filter, Hook::Prerouting, PRIORITY_RAW)
        .add_base_chain("prerouting", Nat, Hook::Prerouting, PRIORITY_DESTINATION)
        .add_base_chain("output", Nat, Hook::Output, PRIORITY_DESTINATION)
        .add_base_chain("postrouting", Nat, Hook::Postrouting, PRIORITY_SOURCE)
        .add_base_chain("forward", Filter, Hook::Forward, PRIORITY_FILTER)
        .add_chain("publish")
}

/// A chain's name and a rule at its end.
type Rule<'a> = (&'static str, Vec<Expression<'a>>);

/// All rules of a family, in the order of the table above.
fn rules<'a, A: Address>(networks: &[Side<'a, A>]) -> Vec<Rule<'a>> {
    let each = |rules: fn(&Side<'a, A>) -> Vec<Rule<'a>>| networks.iter().flat_map(rules);
    let publish = |condition: Vec<_>| [condition, end(Verdict::Goto("publish"))].concat();
    let mut all = vec![guard_loopback::<A>()];
    all.extend(each(guard));
    all.extend([
        ("prerouting", publish(on::for_this_host())),
        ("output", publish(from_this_host::<A>())),
        ("publish", translate(A::FAMILY, &at(A::FAMILY))),
        ("publish", translate(A::FAMILY, &anywhere(A::FAMILY))),
    ]);
    all.extend(each(translate_source));
    all.push(forward([on::established(), end(Verdict::Accept)]));
    let together = networks.iter().filter(|side| side.network.between);
    all.extend(together.map(|side| {
        let bridge = side.network.bridge.as_str();
        let within = [on::input_is(bridge), on::output_is(bridge)];
        forward([within.concat(), end(Verdict::Accept)])
    }));
    all.push(forward([on::published(), end(Verdict::Accept)]));
    all.extend(each(|side| {
        let inwards = on::output_is(&side.network.bridge);
        vec![forward([inwards, end(Verdict::Drop)])]
    }));
    all
}

/// What the host sends to itself. What it sends to `::1` stays there: the kernel takes no answer to
/// that from another interface ([`super::loopback`]).
fn from_this_host<'a, A: Address>() -> Vec<Expression<'a>> {
    match A::FAMILY {
        Family::V4 => on::for_this_host(),
        Family::V6 => [on::for_this_host(), on::destination_not_in(A::LOOPBACK)].concat(),
    }
}

fn end<'a>(verdict: Verdict<'a>) -> Vec<Expression<'a>> {
    vec![Expression::Verdict(verdict)]
}

fn forward<'a>(parts: [Vec<Expression<'a>>; 2]) -> Rule<'a> {
    ("forward", parts.concat())
}

/// What says to be for the host's loopback comes from the host itself: a port that is published there would
/// be translated before the kernel looks where the packet came from.
fn guard_loopback<'a, A: Address>() -> Rule<'a> {
    let loopback = on::destination_in(A::LOOPBACK);
    let rule = [on::input_is_not("lo"), loopback, end(Verdict::Drop)];
    ("guard", rule.concat())
}

fn guard<'a, A: Address>(side: &Side<'a, A>) -> Vec<Rule<'a>> {
    if !side.network.internal {
        return Vec::new();
    }
    let near = std::iter::once(&side.subnet).chain(A::ON_LINK);
    let outside = near
        .flat_map(|near| on::destination_not_in(*near))
        .collect();
    let from_inside = on::input_is(&side.network.bridge);
    let rule = [from_inside, outside, end(Verdict::Drop)];
    vec![("guard", rule.concat())]
}

fn translate_source<'a, A: Address>(side: &Side<'a, A>) -> Vec<Rule<'a>> {
    let bridge = side.network.bridge.as_str();
    let from_subnet = || on::source_in(side.subnet);
    let from_loopback = on::source_in(A::LOOPBACK);
    let mut conditions = vec![
        [from_loopback, on::output_is(bridge)].concat(),
        [from_subnet(), on::output_is(bridge), on::published()].concat(),
    ];
    if side.network.masquerade && !side.network.internal {
        conditions.push([from_subnet(), on::output_is_not(bridge)].concat());
    }
    let masquerade = |mut rule: Vec<_>| {
        rule.push(Expression::Masquerade);
        ("postrouting", rule)
    };
    conditions.into_iter().map(masquerade).collect()
}

/// Looks the packet's destination up in a map and sends it to what is found.
fn translate<'a>(family: Family, map: &Map<'a>) -> Vec<Expression<'a>> {
    let mut register = Register::R0;
    let mut rule = Vec::new();
    for field in &map.key {
        rule.push(match field {
            FieldType::Address(family) => {
                Expression::Payload(Field::DestinationAddress(*family), register)
            }
            FieldType::Protocol => Expression::Meta(Meta::Transport, register),
            FieldType::Port => Expression::Payload(Field::DestinationPort, register),
        });
        register = register.after(field.registers());
    }
    rule.push(Expression::Lookup {
        map: map.name,
        key: Register::R0,
        value: Register::R0,
    });
    rule.push(Expression::DestinationNat {
        family,
        address: Register::R0,
        port: Register::R0.after(FieldType::Address(family).registers()),
    });
    rule
}

fn add<'a>(batch: Batch<'a>, ports: &[Published]) -> Batch<'a> {
    by_map(ports)
        .into_iter()
        .fold(batch, |batch, (family, map, entries)| {
            batch.of(family).add_entries(map, &entries)
        })
}

fn delete<'a>(batch: Batch<'a>, ports: &[Published]) -> Batch<'a> {
    by_map(ports)
        .into_iter()
        .fold(batch, |batch, (family, map, entries)| {
            batch.of(family).delete_entries(map, &entries)
        })
}

/// The entries of each map: for any address, and for one address.
fn by_map(ports: &[Published]) -> Vec<(Family, &'static str, Vec<Entry>)> {
    let maps = [Family::V4, Family::V6].map(|family| [(family, ANYWHERE), (family, AT)]);
    let entries = |(family, map)| {
        let own = ports.iter().filter(|port| place(port) == (family, map));
        (family, map, own.map(entry).collect())
    };
    maps.into_iter().flatten().map(entries).collect()
}

/// The map that a port is in.
fn place(port: &Published) -> (Family, &'static str) {
    let family = match port.container {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    match port.binding.host_address.is_unspecified() {
        true => (family, ANYWHERE),
        false => (family, AT),
    }
}

fn entry(port: &Published) -> Entry {
    let address = octets(port.binding.host_address);
    let protocol = [port.binding.protocol.number()];
    let host_port = port.binding.host_port.to_be_bytes();
    let mut key: Vec<&[u8]> = vec![&protocol, &host_port];
    if !port.binding.host_address.is_unspecified() {
        key.insert(0, &address);
    }
    let container = octets(port.container);
    let container_port = port.binding.container_port.to_be_bytes();
    Entry {
        key: concatenation(&key),
        value: concatenation(&[&container, &container_port]),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.bytes(),
        IpAddr::V6(address) => address.bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::request::Protocol;

    fn published(host_address: &str, container: &str) -> [Published; 1] {
        [Published {
            binding: PortBinding {
                protocol: Protocol::Udp,
                container_port: 53,
                host_address: host_address.parse().unwrap(),
                host_port: 5353,
            },
            container: container.parse().unwrap(),
        }]
    }

    fn only(ports: &[Published]) -> (Family, &'static str, Entry) {
        let mut maps = by_map(ports);
        maps.retain(|(_, _, entries)| !entries.is_empty());
        let (family, map, entries) = maps.pop().unwrap();
        assert!(maps.is_empty());
        (family, map, entries[0].clone())
    }

    #[test]
    fn a_port_on_one_address_has_the_address_in_its_key() {
        let (family, map, entry) = only(&published("127.0.0.1", "172.18.0.9"));
        assert_eq!((family, map), (Family::V4, AT));
        assert_eq!(entry.key, [127, 0, 0, 1, 17, 0, 0, 0, 0x14, 0xe9, 0, 0]);
        assert_eq!(entry.value, [172, 18, 0, 9, 0, 53, 0, 0]);
    }

    #[test]
    fn a_port_on_all_addresses_has_none() {
        let (family, map, entry) = only(&published("0.0.0.0", "172.18.0.9"));
        assert_eq!((family, map), (Family::V4, ANYWHERE));
        assert_eq!(entry.key, [17, 0, 0, 0, 0x14, 0xe9, 0, 0]);
    }

    #[test]
    fn a_port_of_ipv6_is_in_the_table_of_ipv6() {
        let (family, map, entry) = only(&published("::", "fd00::9"));
        assert_eq!((family, map), (Family::V6, ANYWHERE));
        assert_eq!(entry.key, [17, 0, 0, 0, 0x14, 0xe9, 0, 0]);
        assert_eq!(entry.value[..2], [0xfd, 0]);
        assert_eq!(entry.value[14..], [0, 9, 0, 53, 0, 0]);
        let (_, map, entry) = only(&published("2001:db8::1", "fd00::9"));
        assert_eq!((map, entry.key.len()), (AT, 24));
    }
}
