//! What a network is, as its user said it: a small file each, `ROOT/runtime/networks/NAME.json`. The files
//! are the truth; what the kernel has of a network is made from them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum as _;
use jiff::Timestamp;
use orlop_proto::runtime as wire;
use serde::{Deserialize, Serialize};

use super::error::{NetworkError, Result};
use super::family::Address;
use super::ipv6::Ipv6;
use super::request::Publishing;
use super::subnet::Subnet;
use crate::containers::names;
use crate::files::{self, Durability};

/// The network of containers that ask for none.
pub(crate) const DEFAULT: &str = "bridge";
/// Names that cannot be given to a network.
const RESERVED: [&str; 4] = [DEFAULT, "default", "host", "none"];
const LABELS_MAX: usize = 1024;
const AUX_ADDRESSES_MAX: usize = 1024;
/// What stands for an address before a person.
const AUX_NAME_BYTES_MAX: usize = 256;
/// Bits of a user's subnet: Linux takes none with fewer, and two containers need room.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=30;
/// IPv4 needs 68; the rest is what a jumbo frame has.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65_535;
/// RFC 8200, section 5: the kernel gives a smaller link no IPv6.
const IPV6_MTU_MIN: u32 = 1280;

const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const BETWEEN: &str = "com.docker.network.bridge.enable_icc";
const MTU: &str = "com.docker.network.driver.mtu";
const PUBLISHED: &str = "com.orlop.published";

/// One bridge network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// Unique.
    pub(crate) name: String,
    /// In the name of its bridge; 0 for the network that always exists.
    pub(crate) number: u32,
    pub(crate) created: Timestamp,
    /// Absent: chosen when the bridge is made, and kept elsewhere.
    pub(crate) subnet: Option<Subnet>,
    /// Absent: the first address of the subnet.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// Where addresses are taken from; absent: all of the subnet.
    pub(crate) ip_range: Option<Subnet>,
    /// Absent: the network has no IPv6.
    pub(crate) ipv6: Option<Ipv6>,
    /// Addresses that no container gets.
    #[serde(default)]
    pub(crate) aux_addresses: BTreeMap<String, IpAddr>,
    /// Only told.
    #[serde(default)]
    pub(crate) attachable: bool,
    /// No way out.
    pub(crate) internal: bool,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) options: BTreeMap<String, String>,
}

/// What the options mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// What leaves has the host's address.
    pub(crate) masquerade: bool,
    /// Containers of the network reach each other.
    pub(crate) between: bool,
    /// Bytes; absent: the kernel's default.
    pub(crate) mtu: Option<u32>,
    /// How ports are published; absent: as everywhere.
    pub(crate) published: Option<Publishing>,
}

impl Definition {
    /// The network that always exists.
    pub(crate) fn of_everyone(id: String) -> Self {
        Self {
            id,
            name: DEFAULT.to_owned(),
            number: 0,
            created: Timestamp::UNIX_EPOCH,
            subnet: None,
            gateway: None,
            ip_range: None,
            ipv6: None,
            aux_addresses: BTreeMap::new(),
            attachable: false,
            internal: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }

    /// What was asked for, judged. Its number, and its subnet if none was asked for, are still to be
    /// found.
    pub(crate) fn parse(request: wire::CreateNetworkRequest) -> Result<Self> {
        names::check("network name", &request.name, 1)
            .map_err(|error| NetworkError::Invalid(error.to_string()))?;
        if RESERVED.contains(&request.name.as_str()) {
            return Err(NetworkError::ReservedName(request.name));
        }
        // A closed set (K10).
        if !matches!(request.driver.as_str(), "" | "bridge") {
            return Err(NetworkError::UnknownDriver(request.driver));
        }
        if request.labels.len() > LABELS_MAX {
            return Err(NetworkError::TooMany {
                what: "labels",
                most: LABELS_MAX,
            });
        }
        let id = names::new_id().map_err(|error| NetworkError::Invalid(error.to_string()))?;
        let definition = Self {
            ipv6: Ipv6::parse(&request, &id)?,
            aux_addresses: aux_addresses(&request)?,
            id,
            name: request.name,
            number: 0,
            created: Timestamp::now(),
            subnet: optional("subnet", &request.subnet)?,
            gateway: optional("gateway", &request.gateway)?,
            ip_range: optional("ip-range", &request.ip_range)?,
            attachable: request.attachable,
            internal: request.internal,
            labels: request.labels.into_iter().collect(),
            options: request.options.into_iter().collect(),
        };
        let mtu = definition.options()?.mtu;
        if definition.ipv6.is_some() && mtu.is_some_and(|mtu| mtu < IPV6_MTU_MIN) {
            return Err(invalid(format!(
                "IPv6 needs an MTU of {IPV6_MTU_MIN} bytes or more"
            )));
        }
        definition.check_addresses()?;
        definition.check_kept()?;
        Ok(definition)
    }

    fn check_addresses(&self) -> Result<()> {
        let Some(subnet) = self.subnet else {
            return match (self.gateway, self.ip_range) {
                (None, None) => Ok(()),
                _ => Err(invalid("a gateway or an ip-range needs a subnet")),
            };
        };
        let first = subnet.network();
        let usable = !first.is_loopback() && !first.is_multicast() && first.octets()[0] != 0;
        if !PREFIXES.contains(&subnet.prefix()) || !usable {
            return Err(invalid(format!(
                "{subnet} is no subnet for containers: give a unicast one of 8 to 30 bits"
            )));
        }
        check_inside(subnet, self.gateway_in(subnet), self.ip_range)
    }

    fn check_kept(&self) -> Result<()> {
        for address in self.aux_addresses.values() {
            let free = match *address {
                IpAddr::V4(own) => self.subnet.is_some_and(|subnet| {
                    subnet.number(own).is_some() && own != self.gateway_in(subnet)
                }),
                IpAddr::V6(own) => self
                    .ipv6
                    .is_some_and(|ipv6| ipv6.subnet.number(own).is_some() && own != ipv6.gateway),
            };
            if !free {
                let problem = "is in no subnet that was given, or its gateway";
                return Err(invalid(format!("aux-address {address} {problem}")));
            }
        }
        Ok(())
    }

    /// The addresses that no container gets, of each family.
    pub(crate) fn kept(&self) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
        let mut kept = (Vec::new(), Vec::new());
        for address in self.aux_addresses.values() {
            match *address {
                IpAddr::V4(address) => kept.0.push(address),
                IpAddr::V6(address) => kept.1.push(address),
            }
        }
        kept
    }

    /// The bridge's address in its subnet.
    pub(crate) fn gateway_in(&self, subnet: Subnet) -> Ipv4Addr {
        self.gateway.unwrap_or_else(|| subnet.host(1))
    }

    /// What the options mean; those that nobody knows are refused.
    pub(crate) fn options(&self) -> Result<Options> {
        let mut options = Options {
            masquerade: true,
            between: true,
            mtu: None,
            published: None,
        };
        for (name, value) in &self.options {
            let bad = || invalid(format!("option {name} cannot be {value:?}"));
            match name.as_str() {
                MASQUERADE => options.masquerade = value.parse().map_err(|_| bad())?,
                BETWEEN => options.between = value.parse().map_err(|_| bad())?,
                MTU => {
                    let mtu = value.parse().ok().filter(|mtu| MTUS.contains(mtu));
                    options.mtu = Some(mtu.ok_or_else(bad)?);
                }
                PUBLISHED => {
                    let way = Publishing::from_str(value, false).map_err(|_| bad())?;
                    options.published = Some(way);
                }
                _ => return Err(NetworkError::UnknownOption(name.clone())),
            }
        }
        Ok(options)
    }

    /// Keeps it, also over a loss of power.
    pub(crate) fn save(&self, state: &Path) -> Result<()> {
        let path = path(state, &self.name);
        let json = serde_json::to_vec(self).unwrap_or_default();
        files::make_directory(state, 0o700)
            .and_then(|()| files::replace(&path, &json, Durability::Power))
            .map_err(NetworkError::file(path))
    }

    /// Forgets it, also over a loss of power.
    pub(crate) fn remove(&self, state: &Path) -> Result<()> {
        let path = path(state, &self.name);
        files::remove_file(&path)
            .and_then(|()| files::sync_directory(state))
            .map_err(NetworkError::file(path))
    }
}

/// Every definition. One that cannot be read is told and left for a person to look at.
pub(crate) fn load(state: &Path) -> Result<Vec<Definition>> {
    let entries = match fs::read_dir(state) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(NetworkError::file(state))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(NetworkError::file(state))?.path();
        let named = path.file_stem().and_then(|stem| stem.to_str());
        let is_json = path
            .extension()
            .is_some_and(|extension| extension == "json");
        if !is_json || named.is_none_or(|name| RESERVED.contains(&name)) {
            continue;
        }
        let read = fs::read(&path).map_err(NetworkError::file(&path))?;
        match serde_json::from_slice::<Definition>(&read) {
            Ok(definition) if named == Some(&definition.name) => found.push(definition),
            _ => tracing::error!(path = %path.display(), "unreadable definition of a network"),
        }
    }
    Ok(found)
}

fn path(state: &Path, name: &str) -> PathBuf {
    state.join(format!("{name}.json"))
}

/// The bridge can have the gateway's address, and the range is a part of the subnet.
pub(super) fn check_inside<A: Address>(
    subnet: Subnet<A>,
    gateway: A,
    range: Option<Subnet<A>>,
) -> Result<()> {
    if subnet.number(gateway).is_none_or(|number| number == 0) || gateway == subnet.last() {
        return Err(invalid(format!("gateway {gateway} is not in {subnet}")));
    }
    let inside = |range: Subnet<A>| {
        range.prefix() >= subnet.prefix() && subnet.number(range.network()).is_some()
    };
    match range {
        Some(range) if !inside(range) => {
            Err(invalid(format!("ip-range {range} is not in {subnet}")))
        }
        _ => Ok(()),
    }
}

fn aux_addresses(request: &wire::CreateNetworkRequest) -> Result<BTreeMap<String, IpAddr>> {
    if request.aux_addresses.len() > AUX_ADDRESSES_MAX {
        return Err(NetworkError::TooMany {
            what: "aux-addresses",
            most: AUX_ADDRESSES_MAX,
        });
    }
    let parse = |(name, text): (&String, &String)| {
        let address = optional("aux-address", text)?;
        let named = !name.is_empty() && name.len() <= AUX_NAME_BYTES_MAX;
        match address.filter(|_| named) {
            Some(address) => Ok((name.clone(), address)),
            None => Err(invalid("an aux-address needs a name and an address")),
        }
    };
    request.aux_addresses.iter().map(parse).collect()
}

/// An empty text is none.
pub(super) fn optional<T: FromStr>(what: &str, text: &str) -> Result<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    let shown: String = text.chars().take(64).collect();
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| invalid(format!("{shown:?} is no {what}")))
}

pub(super) fn invalid(problem: impl Into<String>) -> NetworkError {
    NetworkError::Invalid(problem.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subnet: &str, gateway: &str, range: &str) -> wire::CreateNetworkRequest {
        wire::CreateNetworkRequest {
            name: "front".to_owned(),
            subnet: subnet.to_owned(),
            gateway: gateway.to_owned(),
            ip_range: range.to_owned(),
            ..Default::default()
        }
    }

    fn refused(request: wire::CreateNetworkRequest) -> String {
        Definition::parse(request).unwrap_err().to_string()
    }

    #[test]
    fn addresses_fit_into_one_another_or_are_refused_by_name() {
        assert!(Definition::parse(request("10.5.0.0/24", "10.5.0.9", "10.5.0.128/25")).is_ok());
        assert!(refused(request("10.5.0.0/24", "10.6.0.1", "")).contains("10.6.0.1"));
        assert!(refused(request("10.5.0.0/24", "10.5.0.255", "")).contains("10.5.0.255"));
        assert!(refused(request("10.5.0.0/24", "", "10.5.0.0/23")).contains("10.5.0.0/23"));
        assert!(refused(request("", "10.5.0.1", "")).contains("needs a subnet"));
        for subnet in [
            "10.0.0.0/31",
            "10.0.0.0/7",
            "127.0.0.0/8",
            "224.0.0.0/8",
            "x",
        ] {
            assert!(refused(request(subnet, "", "")).contains(subnet));
        }
    }

    #[test]
    fn addresses_that_are_kept_are_of_the_subnet() {
        let keeping = |name: &str, address: &str| wire::CreateNetworkRequest {
            aux_addresses: [(name.to_owned(), address.to_owned())].into(),
            ..request("10.5.0.0/24", "", "")
        };
        let kept = Definition::parse(keeping("router", "10.5.0.7")).unwrap();
        assert_eq!(kept.kept().0, [Ipv4Addr::new(10, 5, 0, 7)]);
        for address in ["10.5.0.1", "10.6.0.7", "fd00::7", "x"] {
            assert!(refused(keeping("router", address)).contains(address));
        }
        assert!(refused(keeping("", "10.5.0.7")).contains("name"));
    }

    #[test]
    fn k10_names_and_drivers_lead_nowhere_else() {
        for name in ["", "..", "a/b", "host", "bridge", "default", "../../bin/x"] {
            refused(wire::CreateNetworkRequest {
                name: name.to_owned(),
                ..Default::default()
            });
        }
        for driver in ["macvlan", "../../bin/x"] {
            let message = refused(wire::CreateNetworkRequest {
                driver: driver.to_owned(),
                ..request("", "", "")
            });
            assert!(message.contains(driver), "{message}");
        }
    }

    #[test]
    fn options_are_known_and_have_a_meaning() {
        let with = |name: &str, value: &str| wire::CreateNetworkRequest {
            options: [(name.to_owned(), value.to_owned())].into(),
            ..request("", "", "")
        };
        let mtu = Definition::parse(with(MTU, "1400")).unwrap().options();
        assert_eq!(mtu.unwrap().mtu, Some(1400));
        assert!(refused(with(MTU, "12")).contains("12"));
        let ipv6 = wire::CreateNetworkRequest {
            ipv6: true,
            ..with(MTU, "1200")
        };
        assert!(refused(ipv6).contains("1280"));
        let input = Definition::parse(with(PUBLISHED, "input")).unwrap();
        assert_eq!(input.options().unwrap().published, Some(Publishing::Input));
        assert!(refused(with(PUBLISHED, "anyhow")).contains("anyhow"));
        assert!(refused(with(MASQUERADE, "maybe")).contains("maybe"));
        assert!(refused(with("encrypted", "true")).contains("encrypted"));
    }

    #[test]
    fn definitions_are_found_again_and_others_files_are_not_theirs() {
        let state = tempfile::tempdir().unwrap();
        let made = Definition::parse(request("10.5.0.0/24", "", "")).unwrap();
        made.save(state.path()).unwrap();
        fs::write(state.path().join("bridge.json"), b"{}").unwrap();
        fs::write(state.path().join("damaged.json"), b"{").unwrap();
        assert_eq!(load(state.path()).unwrap(), std::slice::from_ref(&made));
        made.remove(state.path()).unwrap();
        assert!(load(state.path()).unwrap().is_empty());
    }
}
