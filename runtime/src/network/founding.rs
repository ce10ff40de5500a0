//! Making and removing networks, and telling what there is.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use orlop_proto::runtime as wire;

use super::bridge::Taken;
use super::definition::{DEFAULT, Definition};
use super::error::{NetworkError, Result};
use super::request::{EndpointInfo, NetworkKind};
use super::segment::Segment;
use super::{Network, blocking, bridge};

/// Each needs a number and a bridge; the firewall's rules grow with them.
const NETWORKS_MAX: u32 = 1024;
const ID_LENGTH: usize = 64;

/// One network, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkInfo {
    /// Which.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// `bridge`, `host` or `null`.
    pub driver: &'static str,
    /// Absent for one that always exists.
    pub created: Option<Timestamp>,
    /// `172.18.0.0/16`; empty where there is none (also on the bridge, before its first container).
    pub subnet: String,
    /// The bridge's address.
    pub gateway: String,
    /// Where addresses are taken from; empty: all of the subnet.
    pub ip_range: String,
    /// `fd00:5::/64`; empty: it has no IPv6.
    pub ipv6_subnet: String,
    /// The bridge's IPv6 address.
    pub ipv6_gateway: String,
    /// Where IPv6 addresses are taken from; empty: all of the subnet.
    pub ipv6_range: String,
    /// The bridge's interface on the host.
    pub interface: String,
    /// Addresses that no container gets.
    pub aux_addresses: BTreeMap<String, IpAddr>,
    /// As given.
    pub attachable: bool,
    /// No way out.
    pub internal: bool,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub options: BTreeMap<String, String>,
    /// Running containers in it: id, title, place. Only [`Network::inspect`] tells.
    pub members: Vec<(String, String, EndpointInfo)>,
}

impl Network {
    /// Makes a network. Its bridge is there when this answers, so that nobody else takes the subnet.
    pub(crate) async fn create(&self, request: wire::CreateNetworkRequest) -> Result<NetworkInfo> {
        let mut definition = Definition::parse(request)?;
        let _turn = self.inner.founding.lock().await;
        if self.segments().contains_key(&definition.name) {
            return Err(NetworkError::NetworkExists(definition.name));
        }
        definition.number = self.free_number()?;
        let taken = self.subnets();
        let instance = self.inner.instance.clone();
        let founded = blocking(move || {
            definition.subnet = Some(bridge::found(&instance, &definition, &taken)?);
            let saved = definition.save(&instance.state);
            if saved.is_err() {
                bridge::remove(&instance.bridge_of(definition.number))?;
            }
            saved.map(|()| definition)
        });
        let segment = Arc::new(Segment::new(founded.await?)?);
        let name = segment.definition.name.clone();
        self.segments().insert(name, Arc::clone(&segment));
        Ok(self.describe(&segment))
    }

    /// Removes a network of a user's that no running container is in.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        let _turn = self.inner.founding.lock().await;
        let segment = self.user_segment(name)?;
        segment.close()?;
        let definition = segment.definition.clone();
        let state = self.inner.instance.state.clone();
        let name = definition.name.clone();
        if let Err(error) = blocking(move || definition.remove(&state)).await {
            segment.reopen();
            return Err(error);
        }
        self.segments().remove(&name);
        self.forget_bridge(&segment).await
    }

    /// All networks, by name, without who is in them.
    pub fn list(&self) -> Vec<NetworkInfo> {
        let plain = self.inner.plain_ids.iter();
        let mut all: Vec<_> = plain.map(|(kind, id)| plain_network(*kind, id)).collect();
        let segments = self.all_segments();
        all.extend(segments.iter().map(|segment| self.describe(segment)));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// One network, and who is in it.
    pub fn inspect(&self, text: &str) -> Result<NetworkInfo> {
        let mut network = self.find(text)?;
        if let Ok(segment) = self.segment(&network.name) {
            let members = segment.members().into_iter();
            network.members = members
                .filter_map(|(id, member)| Some((id, member.title, member.endpoint?)))
                .collect();
        }
        Ok(network)
    }

    /// One network, by name, id, or the unique beginning of an id.
    pub(crate) fn find(&self, text: &str) -> Result<NetworkInfo> {
        let unknown = || NetworkError::UnknownNetwork(text.chars().take(128).collect());
        let mut all = self.list();
        if let Some(named) = all.iter().position(|network| network.name == text) {
            return Ok(all.swap_remove(named));
        }
        if text.is_empty() || text.len() > ID_LENGTH {
            return Err(unknown());
        }
        all.retain(|network| network.id.starts_with(text));
        match all.len() {
            0 | 1 => all.pop().ok_or_else(unknown),
            _ => Err(NetworkError::AmbiguousNetwork(text.to_owned())),
        }
    }

    fn user_segment(&self, text: &str) -> Result<Arc<Segment>> {
        let name = self.find(text)?.name;
        let found = self.segments().get(&name).cloned();
        found.ok_or(NetworkError::ReservedName(name))
    }

    fn free_number(&self) -> Result<u32> {
        let segments = self.segments();
        let is_free = |number: &u32| segments.values().all(|s| s.definition.number != *number);
        let free = (1..=NETWORKS_MAX).find(is_free);
        free.ok_or(NetworkError::NetworksExhausted(NETWORKS_MAX))
    }

    /// Those of all networks, also of the ones whose bridge is not there.
    fn subnets(&self) -> Taken {
        let segments = self.segments();
        let users = segments.values().filter_map(|s| s.definition.subnet);
        let ipv6 = segments.values().filter_map(|s| s.definition.ipv6);
        Taken {
            ipv4: users
                .chain(bridge::recorded(&self.inner.instance))
                .collect(),
            ipv6: ipv6.map(|ipv6| ipv6.subnet).collect(),
        }
    }

    fn describe(&self, segment: &Segment) -> NetworkInfo {
        let definition = &segment.definition;
        let is_default = definition.name == DEFAULT;
        let recorded = || bridge::recorded(&self.inner.instance);
        let subnet = definition.subnet.or_else(recorded);
        let ipv6 = definition.ipv6;
        NetworkInfo {
            name: definition.name.clone(),
            id: definition.id.clone(),
            driver: "bridge",
            created: (!is_default).then_some(definition.created),
            subnet: text(subnet),
            ipv6_subnet: text(ipv6.map(|ipv6| ipv6.subnet)),
            ipv6_gateway: text(ipv6.map(|ipv6| ipv6.gateway)),
            ipv6_range: text(ipv6.and_then(|ipv6| ipv6.ip_range)),
            gateway: text(subnet.map(|subnet| definition.gateway_in(subnet))),
            ip_range: text(definition.ip_range),
            interface: self.inner.instance.bridge_of(definition.number),
            aux_addresses: definition.aux_addresses.clone(),
            attachable: definition.attachable,
            internal: definition.internal,
            labels: definition.labels.clone(),
            options: definition.options.clone(),
            members: Vec::new(),
        }
    }
}

/// Nothing is an empty text.
fn text(thing: Option<impl Display>) -> String {
    thing.map(|thing| thing.to_string()).unwrap_or_default()
}

fn plain_network(kind: NetworkKind, id: &str) -> NetworkInfo {
    NetworkInfo {
        name: kind.name().to_owned(),
        id: id.to_owned(),
        driver: match kind {
            NetworkKind::None => "null",
            kind => kind.name(),
        },
        ..NetworkInfo::default()
    }
}
