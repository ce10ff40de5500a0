//! Networks: namespaces for containers, the bridge that connects them, the ports that they publish.
//!
//! No helper program runs: links and addresses are netlink messages ([`route`]), the packet filter is
//! one transaction ([`firewall`]). What is slow is done ahead (namespaces wait in a small pool, each
//! with its interface, address and route) or afterwards ([`teardown`]).
//!
//! What a container has of the network lives in the kernel and in the container's record (an
//! [`Attachment`]), nowhere else: a namespace is kept alive by an open file of this process and by the
//! container's processes, so when both are gone the kernel removes it, its interfaces and its place on
//! the bridge. Killing this service takes nothing from a running container; [`Network::reconcile`]
//! takes up what is there.
//!
//! - [`request`]: what is asked and answered. [`error`]: what goes wrong.
//! - [`definition`]: networks as users said them. [`segment`]: one network and who is in it.
//!   [`founding`]: making and removing one. [`connect`]: a container that runs joins or leaves one.
//!   [`joining`]: the place that it gets there. [`link`]: what it alone calls others there.
//! - [`instance`]: names in the kernel. [`bridge`], [`subnet`], [`address`]: who has which address.
//!   [`family`]: what IPv4 and IPv6 have in common. [`ipv6`]: what only IPv6 has.
//! - [`relay`]: published ports behind the host's own input rules.
//! - [`watch`]: putting back what others took. [`namespace`], [`teardown`]: making and removing. [`ports`]: the host's side of published ports.
//!   [`loopback`]: what the packet filter cannot do for them.
//! - [`dns`]: names of containers. [`resolver`]: `/etc/resolv.conf` and `/etc/hosts`.
//! - [`netlink`], [`route`], [`nft`]: what the kernel understands.

mod address;
mod bridge;
mod connect;
mod definition;
mod dns;
pub mod error;
mod family;
mod firewall;
mod founding;
pub(crate) mod instance;
mod ipv6;
mod joining;
mod link;
mod loopback;
mod namespace;
mod netlink;
mod nft;
mod numbers;
mod pool;
mod ports;
mod reconcile;
mod relay;
pub mod request;
mod resolver;
mod route;
mod segment;
mod subnet;
mod teardown;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) use self::reconcile::Live;
pub use error::NetworkError;
pub use founding::NetworkInfo;
pub use link::Link;
pub use request::{
    Attachment, EndpointInfo, Ipv6Info, Membership, NetworkKind, NetworkMode, NetworkRequest,
    PortBinding, PortRequest, Protocol, Publishing,
};
pub(crate) use resolver::Lookup;

use self::address::Addresses;
use self::bridge::Bridge;
pub(crate) use self::definition::DEFAULT;
use self::definition::Definition;
use self::dns::NameServer;
use self::error::Result;
use self::firewall::{Behind, Firewall, Published};
use self::instance::Instance;
use self::joining::{Joining, WayOut, endpoint, ipv6_port, join_all, lease, reserve, way_out};
use self::loopback::LoopbackPort;
use self::namespace::{BridgePort, Namespace, Place};
use self::numbers::Numbers;
use self::pool::{Pooled, Pools};
use self::ports::Reservation;
use self::relay::{Relay, WayBack};
use self::segment::{Joined, Segment};
use self::teardown::Teardown;
use self::watch::Watch;

/// Namespaces that wait for a container, unless told otherwise.
pub const POOL_SIZE: usize = 4;

/// The networks of one instance. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    instance: Instance,
    /// The network that always exists, for containers that ask for none.
    everyone: Arc<Segment>,
    /// Ids of the networks without a bridge.
    plain_ids: [(NetworkKind, String); 2],
    /// Users' own, by name.
    segments: Mutex<BTreeMap<String, Arc<Segment>>>,
    /// Held while a network is made or removed.
    founding: tokio::sync::Mutex<()>,
    veths: Numbers,
    firewall: Firewall,
    /// What the firewall has; held while it changes.
    filter: tokio::sync::Mutex<Filter>,
    pools: Pools,
    held: Mutex<HashMap<String, Held>>,
    /// How ports are published in networks that do not say it.
    publishing: Publishing,
    /// Ports that are relayed, by the address of their container.
    relays: Mutex<HashMap<Ipv4Addr, Vec<Relay>>>,
    way_back: WayBack,
    teardown: Teardown,
    watch: OnceLock<Watch>,
}

/// What is behind the firewall.
#[derive(Debug, Default)]
struct Filter {
    /// Networks whose bridge is there.
    networks: Vec<Behind>,
    /// Every published port.
    published: Vec<Published>,
}

/// What this process holds for one container.
#[derive(Debug)]
struct Held {
    attachment: Attachment,
    /// Its network namespace; absent: the host's.
    namespace: Option<OwnedFd>,
    ports: Vec<BridgePort>,
    joined: Vec<Joined>,
    /// Dropped after the firewall forgot the ports.
    reservations: Vec<Reservation>,
    _loopback: Vec<LoopbackPort>,
}

impl Network {
    /// The networks of the instance with this root, which keeps what it must remember in `state`
    /// (`ROOT/runtime/networks`). Changes nothing in the kernel: the bridge is made for the first
    /// container. `pool_size` namespaces of its kind are kept ready from then on. Ports are published as `publishing`
    /// says, unless their network says something else.
    pub fn open(
        root: &Path,
        state: &Path,
        pool_size: usize,
        publishing: Publishing,
    ) -> Result<Self> {
        let instance = Instance::new(root, state.to_owned());
        let id = |name| instance::network_id(root, name);
        let firewall = Firewall {
            table: instance.table.clone(),
        };
        let mut segments = BTreeMap::new();
        for definition in definition::load(state)? {
            let name = definition.name.clone();
            segments.insert(name, Arc::new(Segment::new(definition)?));
        }
        let everyone = Segment::new(Definition::of_everyone(id(DEFAULT)))?;
        let plain = [NetworkKind::Host, NetworkKind::None];
        let inner = Inner {
            teardown: Teardown::start(instance.removal_group)?,
            everyone: Arc::new(everyone),
            plain_ids: plain.map(|kind| (kind, id(kind.name()))),
            segments: Mutex::new(segments),
            founding: tokio::sync::Mutex::default(),
            veths: Numbers::new(1..=instance::VETHS_MAX),
            way_back: WayBack::new(&instance.table, instance.removal_group),
            instance,
            firewall,
            filter: tokio::sync::Mutex::default(),
            pools: Pools::new(pool_size),
            held: Mutex::default(),
            publishing,
            relays: Mutex::default(),
            watch: OnceLock::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Gives a container its network: a namespace to start in, and its published ports. All or
    /// nothing. Any number at once; not twice for one container without a [`Network::detach`] between.
    ///
    /// PORT_IN_USE, a host address that is not there, no free subnet or address.
    pub async fn attach(&self, container: &str, request: &NetworkRequest) -> Result<Attachment> {
        let held = match request.kind {
            NetworkKind::Host => Held::without_ports(NetworkKind::Host, None),
            NetworkKind::None => {
                let namespace = match request.prepared.as_deref() {
                    None => self.take_namespace(Pooled::Nowhere).await?,
                    prepared => self.build_namespace(&[], prepared).await?,
                };
                Held::without_ports(NetworkKind::None, Some(namespace.handle))
            }
            NetworkKind::Container => self.share(&request.neighbour)?,
            NetworkKind::Bridge => self.attach_to_bridges(container, request).await?,
        };
        let attachment = held.attachment.clone();
        let before = self.held().insert(container.to_owned(), held);
        if let Some(before) = before {
            tracing::warn!(
                container,
                "attached twice; the first attachment is released"
            );
            self.release(before).await?;
        }
        Ok(attachment)
    }

    /// Takes a container's network back. Its ports are free when this answers; namespace and
    /// interfaces go afterwards. Idempotent.
    pub async fn detach(&self, container: &str, attachment: &Attachment) -> Result<()> {
        let held = self.held().remove(container);
        match held {
            Some(held) => self.release(held).await,
            None => self.withdraw(attachment).await,
        }
    }

    /// A container's `/etc/resolv.conf`.
    pub(crate) fn resolv_conf(&self, attachment: &Attachment, lookup: &Lookup) -> Result<String> {
        let mut endpoints = attachment.endpoints.iter();
        let own = endpoints.find(|endpoint| endpoint.network != DEFAULT);
        resolver::resolv_conf(
            attachment.kind,
            own.map(|endpoint| endpoint.gateway),
            lookup,
        )
    }

    /// A container's `/etc/hosts`. An extra host is `name:address` (or `name:host-gateway`).
    pub fn hosts(
        &self,
        hostname: &str,
        endpoints: &[EndpointInfo],
        extra: &[String],
    ) -> Result<String> {
        resolver::hosts(hostname, endpoints, extra)
    }

    /// Removes what waits for containers, and, if no container is attached, everything that this
    /// instance has in the kernel. For a shutdown in order, after the last attach and detach.
    pub async fn release_pool(&self) -> Result<()> {
        self.close_pools().await;
        self.inner.teardown.finish().await;
        for segment in self.all_segments() {
            if segment.is_empty() {
                self.forget_bridge(&segment).await?;
            }
        }
        Ok(())
    }

    async fn attach_to_bridges(&self, container: &str, request: &NetworkRequest) -> Result<Held> {
        let joining = self.joining(request)?;
        let joined = join_all(container, &joining, request)?;
        if joining.iter().any(Joining::has_fixed_address) {
            // It may be that of a run before, which is free when its interface is gone.
            self.inner.teardown.finish().await;
        }
        let reservations = reserve(request, &joining).await?;
        let plain = matches!(joining.as_slice(), [only] if self.is_pooled(only));
        let loopback = self.answer_on_loopback(container, &reservations)?;
        let prepared = request.prepared.as_deref();
        let namespace = match plain && prepared.is_none() {
            true => self.take_namespace(Pooled::WithEveryone).await?,
            false => self.build_namespace(&joining, prepared).await?,
        };
        let endpoints: Vec<_> = std::iter::zip(&joining, &namespace.ports)
            .map(|(joining, port)| endpoint(joining, port))
            .collect();
        let ports: Vec<_> = reservations.iter().map(|r| r.binding).collect();
        let attachment = Attachment {
            kind: NetworkKind::Bridge,
            netns: Some(namespace::path(&namespace.handle)),
            endpoints,
            ports,
            servers: request.servers.clone(),
        };
        if let Err(error) = self.publish(&attachment, &reservations).await {
            self.take_apart(namespace);
            return Err(error);
        }
        for (joined, endpoint) in joined.iter().zip(&attachment.endpoints) {
            joined.settle(endpoint.clone());
        }
        Ok(Held {
            attachment,
            namespace: Some(namespace.handle),
            ports: namespace.ports,
            joined,
            reservations,
            _loopback: loopback,
        })
    }

    fn joining(&self, request: &NetworkRequest) -> Result<Vec<Joining>> {
        let memberships = request.memberships.iter();
        memberships
            .map(|membership| self.joining_one(membership, &request.names))
            .collect()
    }

    fn joining_one(&self, membership: &Membership, names: &[String]) -> Result<Joining> {
        let mut names = names.to_vec();
        names.extend(membership.aliases.iter().cloned());
        let segment = self.segment(&membership.network)?;
        Ok(Joining {
            relayed: self.relays_ports_of(&segment),
            segment,
            address: membership.address,
            ipv6_address: membership.ipv6_address,
            mac: membership.mac,
            names,
            aliases: membership.aliases.clone(),
            links: membership.links.clone(),
        })
    }

    /// Whether what waits in the pool will do.
    fn is_pooled(&self, joining: &Joining) -> bool {
        let chosen = joining.has_fixed_address() || joining.mac.is_some();
        !chosen && Arc::ptr_eq(&joining.segment, &self.inner.everyone)
    }

    fn take_apart(&self, namespace: Namespace) {
        let Namespace { handle, ports } = namespace;
        self.inner.teardown.places(ports, Some(handle));
    }

    /// A bridge that somebody deleted is made anew, once.
    async fn build_namespace(
        &self,
        joining: &[Joining],
        prepared: Option<&Path>,
    ) -> Result<Namespace> {
        match self.build_once(joining, prepared).await {
            Err(NetworkError::Kernel { .. }) => {
                for joining in joining {
                    self.renew_bridge(&joining.segment).await?;
                }
                self.build_once(joining, prepared).await
            }
            other => other,
        }
    }

    async fn build_once(&self, joining: &[Joining], prepared: Option<&Path>) -> Result<Namespace> {
        let mut places = Vec::new();
        let mut before = WayOut::default();
        for (number, joining) in joining.iter().enumerate() {
            let first = way_out([joining]).without(before);
            before = before.or(first);
            places.push(self.place(joining, format!("eth{number}"), first).await?);
        }
        let _turn = self.inner.pools.turn().await;
        namespace::build(places, prepared.map(Path::to_owned)).await
    }

    /// A place for a container on a network's bridge, not yet in the kernel.
    async fn place(&self, joining: &Joining, interface: String, routed: WayOut) -> Result<Place> {
        let bridge = self.bridge(&joining.segment).await?;
        let network = &joining.segment.definition.name;
        let lease = lease(&bridge.addresses, joining.address, network)?;
        let ipv6 = ipv6_port(&bridge, joining, routed.ipv6)?;
        let number = self.inner.veths.take();
        let number = number.ok_or(NetworkError::InterfacesExhausted)?;
        let port = BridgePort {
            network: joining.segment.definition.name.clone(),
            veth: self.inner.instance.veth(number.value()),
            interface,
            gateway: bridge.addresses.gateway(),
            lease,
            routed: routed.ipv4,
            ipv6,
            _number: number,
        };
        let mac = joining.mac(port.lease.address());
        Ok(Place { bridge, port, mac })
    }

    /// A network's bridge with its firewall, made if it is not there.
    async fn bridge(&self, segment: &Arc<Segment>) -> Result<Bridge> {
        let mut known = segment.bridge.lock().await;
        if let Some(bridge) = known.as_ref() {
            return Ok(bridge.clone());
        }
        let bridge = self.make_bridge(segment).await?;
        Ok(known.insert(bridge).clone())
    }

    /// Makes a bridge that may be gone. The addresses that were given out stay given out.
    async fn renew_bridge(&self, segment: &Arc<Segment>) -> Result<()> {
        let mut known = segment.bridge.lock().await;
        let mut bridge = self.make_bridge(segment).await?;
        if let Some(before) = known.as_ref() {
            bridge.keep_addresses(before);
        }
        *known = Some(bridge);
        Ok(())
    }

    async fn make_bridge(&self, segment: &Arc<Segment>) -> Result<Bridge> {
        let fixed = inhabited(segment);
        let instance = self.inner.instance.clone();
        let definition = segment.definition.clone();
        let bridge = blocking(move || bridge::ensure(&instance, &definition, fixed)).await?;
        let mut filter = self.inner.filter.lock().await;
        filter.cover(behind(segment, &bridge), &self.doors(segment, &bridge)?);
        self.install(&filter).await?;
        Ok(bridge)
    }

    /// Where questions for names on this bridge go; in the network of everyone there are none.
    fn doors(&self, segment: &Arc<Segment>, bridge: &Bridge) -> Result<Vec<Published>> {
        if segment.definition.number == 0 {
            return Ok(Vec::new());
        }
        if let Some(doors) = segment.doors_of(bridge.index) {
            return Ok(doors.into());
        }
        let server = NameServer::start(self, segment, bridge)?;
        let doors = server.doors.into();
        segment.answer_by(Some(server));
        Ok(doors)
    }

    async fn install(&self, filter: &Filter) -> Result<()> {
        let firewall = self.inner.firewall.clone();
        let (networks, published) = (filter.networks.clone(), filter.published.clone());
        blocking(move || firewall.install(&networks, &published)).await
    }

    /// Lets a container's ports lead to its way out.
    async fn publish(&self, attachment: &Attachment, reserved: &[Reservation]) -> Result<()> {
        self.forward(attachment).await?;
        self.relay(attachment, reserved).await
    }

    /// If the firewall refuses, it was changed by somebody else: it is written anew, with all ports.
    async fn forward(&self, attachment: &Attachment) -> Result<()> {
        let mut new: Vec<_> = forwarded_ports_of(attachment).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut filter = self.inner.filter.lock().await;
        new.retain(|port| !filter.published.contains(port));
        let firewall = self.inner.firewall.clone();
        let added = new.clone();
        let refused = blocking(move || firewall.publish(&added)).await.err();
        filter.published.extend(&new);
        let Some(error) = refused else {
            return Ok(());
        };
        tracing::warn!(
            error = orlop_proto::error::chain(&error),
            "writing the firewall anew"
        );
        let installed = self.install(&filter).await;
        if installed.is_err() {
            filter.published.retain(|port| !new.contains(port));
        }
        installed
    }

    async fn release(&self, held: Held) -> Result<()> {
        let withdrawn = self.withdraw(&held.attachment).await;
        drop(held.joined);
        self.inner.teardown.places(held.ports, held.namespace);
        withdrawn
    }

    async fn withdraw(&self, attachment: &Attachment) -> Result<()> {
        let ways_in: Vec<_> = attachment.ways_in().collect();
        if ways_in.is_empty() {
            return Ok(());
        }
        if let Some(endpoint) = attachment.routed() {
            self.relays().remove(&endpoint.address);
        }
        let mut filter = self.inner.filter.lock().await;
        let gone: Vec<_> = filter
            .published
            .extract_if(.., |port| ways_in.contains(&port.container))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let firewall = self.inner.firewall.clone();
        let withdrawn = blocking(move || firewall.withdraw(&gone)).await;
        if withdrawn.is_err() {
            self.rewrite_later();
        }
        withdrawn
    }

    /// Removes a network's bridge, and the firewall with the last one.
    async fn forget_bridge(&self, segment: &Segment) -> Result<()> {
        let mut known = segment.bridge.lock().await;
        *known = None;
        let name = self.inner.instance.bridge_of(segment.definition.number);
        let mut filter = self.inner.filter.lock().await;
        let was_there = filter.uncover(&name);
        segment.answer_by(None);
        blocking(move || bridge::remove(&name)).await?;
        if filter.networks.is_empty() {
            let (firewall, way_back) = (self.inner.firewall.clone(), self.inner.way_back.clone());
            return blocking(move || firewall.remove().and_then(|()| way_back.remove())).await;
        }
        match was_there {
            true => self.install(&filter).await,
            false => Ok(()),
        }
    }

    /// A network by its name.
    fn segment(&self, name: &str) -> Result<Arc<Segment>> {
        if name == DEFAULT {
            return Ok(Arc::clone(&self.inner.everyone));
        }
        let segments = self.segments();
        let found = segments.get(name).cloned();
        found.ok_or_else(|| NetworkError::UnknownNetwork(name.chars().take(128).collect()))
    }

    /// Every bridge network, the one that always exists first.
    fn all_segments(&self) -> Vec<Arc<Segment>> {
        let segments = self.segments();
        let mut all = vec![Arc::clone(&self.inner.everyone)];
        all.extend(segments.values().cloned());
        all
    }

    fn segments(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Segment>>> {
        let segments = self.inner.segments.lock();
        segments.unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.inner
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn without_ports(kind: NetworkKind, namespace: Option<OwnedFd>) -> Self {
        Self {
            attachment: Attachment {
                kind,
                netns: namespace.as_ref().map(namespace::path),
                endpoints: Vec::new(),
                ports: Vec::new(),
                servers: Vec::new(),
            },
            namespace,
            ports: Vec::new(),
            joined: Vec::new(),
            reservations: Vec::new(),
            _loopback: Vec::new(),
        }
    }
}

impl Filter {
    /// One more network, or another state of it, with the doors of its name server.
    fn cover(&mut self, network: Behind, doors: &[Published]) {
        self.uncover(&network.bridge);
        self.networks.push(network);
        self.published.extend(doors);
    }

    /// One network less; whether it was there.
    fn uncover(&mut self, bridge: &str) -> bool {
        let known = self
            .networks
            .iter()
            .position(|known| known.bridge == bridge);
        let Some(index) = known else {
            return false;
        };
        let gateway = IpAddr::V4(self.networks.remove(index).gateway);
        self.published.retain(|port| port.container != gateway);
        true
    }
}

fn behind(segment: &Segment, bridge: &Bridge) -> Behind {
    Behind {
        bridge: bridge.name.clone(),
        subnet: bridge.addresses.subnet(),
        ipv6: bridge.ipv6.as_ref().map(Addresses::subnet),
        gateway: bridge.addresses.gateway(),
        internal: segment.definition.internal,
        between: segment.options.between,
        masquerade: segment.options.masquerade,
    }
}

/// The subnet that a network's containers are in.
fn inhabited(segment: &Segment) -> Option<subnet::Subnet> {
    let members = segment.members();
    let mut endpoints = members.iter().filter_map(|(_, m)| m.endpoint.as_ref());
    endpoints.find_map(|e| subnet::Subnet::new(e.address, e.prefix))
}

/// A container's ports lead to where its way out, of the same family, is.
fn ports_of(attachment: &Attachment) -> impl Iterator<Item = Published> {
    attachment.ports.iter().filter_map(|binding| {
        let is_same_family = |way: &IpAddr| way.is_ipv4() == binding.host_address.is_ipv4();
        Some(Published {
            binding: *binding,
            container: attachment.ways_in().find(is_same_family)?,
        })
    })
}

/// Those that packets are forwarded to.
fn forwarded_ports_of(attachment: &Attachment) -> impl Iterator<Item = Published> {
    ports_of(attachment).filter(|port| !attachment.relays(port.container))
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| NetworkError::TaskLost)?
}
