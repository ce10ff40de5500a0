//! IPv6 of a network whose user asked for it; any other has none at all (K8).

use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;

use orlop_proto::runtime as wire;
use serde::{Deserialize, Serialize};

use super::definition::{check_inside, invalid, optional};
use super::error::{NetworkError, Result};
use super::family::Address as _;
use super::namespace::set;
use super::subnet::Subnet;

/// There if the kernel has IPv6.
const SETTINGS: &str = "/proc/sys/net/ipv6/conf";
/// Bits of a user's subnet: two containers need room.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=126;
/// Bits of a subnet that nobody asked for.
const PREFIX: u8 = 64;
/// Hexadecimal digits of a network's id that make its subnet another than everybody else's.
const UNIQUE_DIGITS: usize = 14;

/// Of links that ask for no other prefix.
pub(crate) const LINK_LOCAL: Subnet<Ipv6Addr> =
    Subnet::fixed(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);
/// A bridge's address on its link, from which it asks where a container is. One that the kernel makes
/// would be there only after the first container is.
pub(crate) const BRIDGE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Addresses of a network with IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ipv6 {
    pub(crate) subnet: Subnet<Ipv6Addr>,
    /// The bridge's.
    pub(crate) gateway: Ipv6Addr,
    /// Where addresses are taken from; absent: all of the subnet.
    pub(crate) ip_range: Option<Subnet<Ipv6Addr>>,
}

impl Ipv6 {
    /// What was asked for, judged. Without a subnet the network, whose id is random, gets one of its
    /// own.
    pub(crate) fn parse(request: &wire::CreateNetworkRequest, id: &str) -> Result<Option<Self>> {
        let subnet = optional("IPv6 subnet", &request.ipv6_subnet)?;
        let gateway = optional("IPv6 gateway", &request.ipv6_gateway)?;
        let ip_range = optional("IPv6 ip-range", &request.ipv6_range)?;
        let inside = gateway.is_some() || ip_range.is_some();
        if inside && subnet.is_none() {
            return Err(invalid("an IPv6 gateway or ip-range needs a subnet"));
        }
        if !request.ipv6 {
            return match subnet {
                Some(subnet) => Err(invalid(format!("subnet {subnet} needs --ipv6"))),
                None => Ok(None),
            };
        }
        if !Path::new(SETTINGS).exists() {
            return Err(invalid("the kernel of this host has no IPv6"));
        }
        let subnet = subnet.unwrap_or_else(|| unique_local(id));
        check_subnet(subnet)?;
        let gateway = gateway.unwrap_or_else(|| subnet.host(1));
        check_inside(subnet, gateway, ip_range)?;
        Ok(Some(Self {
            subnet,
            gateway,
            ip_range,
        }))
    }
}

fn check_subnet(subnet: Subnet<Ipv6Addr>) -> Result<()> {
    let first = subnet.network();
    let special = [Ipv6Addr::LOOPBACK]
        .iter()
        .chain(Ipv6Addr::ON_LINK)
        .any(|special| special.overlaps(subnet));
    let usable = !special && !first.is_unspecified() && first.to_ipv4_mapped().is_none();
    if PREFIXES.contains(&subnet.prefix()) && usable {
        return Ok(());
    }
    Err(invalid(format!(
        "{subnet} is no subnet for containers: give a unicast one of 16 to 126 bits"
    )))
}

/// RFC 4193, section 3.2: `fd`, then a number that nobody else has.
fn unique_local(id: &str) -> Subnet<Ipv6Addr> {
    let digits = id.get(..UNIQUE_DIGITS).unwrap_or_default();
    let unique = u128::from_str_radix(digits, 16).unwrap_or(0);
    let network = Ipv6Addr::of_number(0xfd << 120 | unique << 64);
    Subnet::fixed(network, PREFIX)
}

/// How the interface of a bridge or of a container, in the network namespace of this thread, is to use
/// IPv6. Nothing that a neighbour says changes its routes (K1), and an address that this instance gave
/// out once is used at once, without asking for one that has it too.
pub(crate) fn configure(interface: &str, on: bool) -> Result<()> {
    let setting =
        |name: &str, value: &str| set(&format!("net/ipv6/conf/{interface}/{name}"), value);
    setting("accept_ra", "0")?;
    if on {
        setting("accept_redirects", "0")?;
        setting("accept_dad", "0")?;
    }
    setting("disable_ipv6", if on { "0" } else { "1" })
}

/// Lets the host forward IPv6. A host that forwards stops believing its own routers, and would lose its
/// way out, so each interface that believes them is told to go on.
pub(crate) fn forward() -> Result<()> {
    if is_on("all/forwarding", "1") {
        return Ok(());
    }
    let entries = fs::read_dir(SETTINGS).map_err(NetworkError::file(SETTINGS))?;
    for entry in entries {
        let name = entry.map_err(NetworkError::file(SETTINGS))?.file_name();
        let setting = format!("{}/accept_ra", name.to_string_lossy());
        // Interfaces that come later are not to believe more than they would have.
        let is_interface = name != "all" && name != "default";
        if is_interface && is_on(&setting, "1") {
            set(&format!("net/ipv6/conf/{setting}"), "2")?;
        }
    }
    set("net/ipv6/conf/all/forwarding", "1")
}

fn is_on(setting: &str, value: &str) -> bool {
    let text = fs::read_to_string(Path::new(SETTINGS).join(setting));
    text.is_ok_and(|text| text.trim() == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subnet: &str, gateway: &str, range: &str) -> wire::CreateNetworkRequest {
        wire::CreateNetworkRequest {
            ipv6: true,
            ipv6_subnet: subnet.to_owned(),
            ipv6_gateway: gateway.to_owned(),
            ipv6_range: range.to_owned(),
            ..Default::default()
        }
    }

    fn refused(subnet: &str, gateway: &str, range: &str) -> String {
        let parsed = Ipv6::parse(&request(subnet, gateway, range), "");
        parsed.unwrap_err().to_string()
    }

    #[test]
    fn a_network_that_asks_for_no_subnet_gets_a_unique_local_one() {
        let id = "0123456789abcdef";
        let ipv6 = Ipv6::parse(&request("", "", ""), id).unwrap().unwrap();
        assert_eq!(ipv6.subnet.to_string(), "fd01:2345:6789:abcd::/64");
        assert_eq!(ipv6.gateway.to_string(), "fd01:2345:6789:abcd::1");
    }

    #[test]
    fn addresses_fit_into_one_another_or_are_refused_by_name() {
        assert!(Ipv6::parse(&request("fd00::/64", "fd00::9", "fd00::80/121"), "").is_ok());
        assert!(refused("fd00::/64", "fd01::1", "").contains("fd01::1"));
        assert!(refused("fd00::/64", "fd00::", "").contains("gateway fd00::"));
        assert!(refused("fd00::/64", "", "fd00::/48").contains("fd00::/48"));
        assert!(refused("", "fd00::1", "").contains("needs a subnet"));
        for subnet in [
            "::/64",
            "::1/128",
            "fe80::/64",
            "ff02::/64",
            "fd00::/127",
            "fd00::/8",
            "::/0",
        ] {
            assert!(refused(subnet, "", "").contains(subnet), "{subnet}");
        }
        assert!(refused("10.0.0.0/8", "", "").contains("10.0.0.0/8"));
        let off = wire::CreateNetworkRequest {
            ipv6: false,
            ..request("fd00::/64", "", "")
        };
        assert!(Ipv6::parse(&off, "").is_err());
    }
}
