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
//! - [`instance`]: names in the kernel. [`bridge`], [`subnet`], [`address`]: who has which address.
//! - [`namespace`], [`teardown`]: making and removing. [`ports`]: the host's side of published ports.
//! - [`resolver`]: `/etc/resolv.conf` and `/etc/hosts`.
//! - [`netlink`], [`route`], [`nft`]: what the kernel understands.

mod address;
mod bridge;
pub mod error;
mod firewall;
pub(crate) mod instance;
mod namespace;
mod netlink;
mod nft;
mod pool;
mod ports;
mod reconcile;
pub mod request;
mod resolver;
mod route;
mod subnet;
mod teardown;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use error::NetworkError;
pub use request::{Attachment, EndpointInfo, NetworkKind, NetworkRequest, PortBinding, Protocol};

use self::address::mac_of;
use self::bridge::Bridge;
use self::error::Result;
use self::firewall::{Firewall, Published};
use self::instance::Instance;
use self::namespace::{BridgePort, Namespace};
use self::pool::Pool;
use self::ports::Reservation;
use self::teardown::Teardown;

/// Namespaces that wait for a container, unless told otherwise.
pub const POOL_SIZE: usize = 4;

/// The networks of one instance. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Inner>,
}

/// One network, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInfo {
    /// Which.
    pub kind: NetworkKind,
    /// `172.18.0.0/16`; empty where there is none (also on the bridge, before its first container).
    pub subnet: String,
    /// The bridge's address.
    pub gateway: String,
    /// The bridge's interface on the host.
    pub interface: String,
}

#[derive(Debug)]
struct Inner {
    instance: Instance,
    /// Absent until the first container needs it, and after it was found gone.
    bridge: tokio::sync::Mutex<Option<Bridge>>,
    firewall: Firewall,
    /// Every published port that the firewall has; held while it changes.
    published: tokio::sync::Mutex<Vec<Published>>,
    pool: Pool,
    held: Mutex<HashMap<String, Held>>,
    teardown: Teardown,
}

/// What this process holds for one container.
#[derive(Debug)]
struct Held {
    attachment: Attachment,
    hold: Hold,
    /// Dropped after the firewall forgot the ports.
    _reservations: Vec<Reservation>,
}

#[derive(Debug)]
enum Hold {
    /// The host's namespace, or another process's without a place on the bridge.
    Nothing,
    /// A namespace that this process made.
    Namespace(Namespace),
    /// The place on the bridge of a container that an earlier process started.
    Port(BridgePort),
}

impl Network {
    /// The networks of the instance with this root, which keeps what it must remember in `state`
    /// (`ROOT/runtime/networks`). Changes nothing in the kernel: the bridge is made for the first
    /// container. `pool_size` namespaces are kept ready from then on.
    pub fn open(root: &Path, state: &Path, pool_size: usize) -> Result<Self> {
        let instance = Instance::new(root, state.to_owned());
        let firewall = Firewall {
            table: instance.table.clone(),
            bridge: instance.bridge.clone(),
        };
        let teardown = Teardown::start(instance.removal_group)?;
        let inner = Inner {
            instance,
            bridge: tokio::sync::Mutex::default(),
            firewall,
            published: tokio::sync::Mutex::default(),
            pool: Pool::new(pool_size),
            held: Mutex::default(),
            teardown,
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
                let namespace = namespace::build(None).await?;
                Held::without_ports(NetworkKind::None, Some(namespace))
            }
            NetworkKind::Bridge => self.attach_to_bridge(&request.ports).await?,
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

    /// A container's `/etc/resolv.conf`. `dns` replaces the host's name servers, if there are any.
    pub fn resolv_conf(&self, kind: NetworkKind, dns: &[String]) -> Result<String> {
        resolver::resolv_conf(kind, dns)
    }

    /// A container's `/etc/hosts`. An extra host is `name:address` (or `name:host-gateway`).
    pub fn hosts(
        &self,
        hostname: &str,
        endpoint: Option<&EndpointInfo>,
        extra: &[String],
    ) -> Result<String> {
        resolver::hosts(hostname, endpoint, extra)
    }

    /// All networks, by name.
    pub async fn list(&self) -> Result<Vec<NetworkInfo>> {
        let mut all = Vec::new();
        for kind in NetworkKind::ALL {
            all.push(self.inspect(kind).await?);
        }
        Ok(all)
    }

    /// One network.
    pub async fn inspect(&self, kind: NetworkKind) -> Result<NetworkInfo> {
        let mut info = NetworkInfo {
            kind,
            subnet: String::new(),
            gateway: String::new(),
            interface: String::new(),
        };
        if kind == NetworkKind::Bridge {
            let instance = self.inner.instance.clone();
            info.interface.clone_from(&instance.bridge);
            if let Some(subnet) = blocking(move || Ok(bridge::recorded(&instance))).await? {
                info.subnet = subnet.to_string();
                info.gateway = subnet.host(1).to_string();
            }
        }
        Ok(info)
    }

    /// Removes what waits for containers, and, if no container is attached, everything that this
    /// instance has in the kernel. For a shutdown in order, after the last attach and detach.
    pub async fn release_pool(&self) -> Result<()> {
        for namespace in self.inner.pool.close() {
            self.inner.teardown.namespace(namespace);
        }
        // One that is being made would bring the bridge back.
        while self.inner.pool.is_refilling() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.inner.teardown.finish().await;
        let in_use = |held: &Held| held.attachment.kind == NetworkKind::Bridge;
        if self.held().values().any(in_use) {
            return Ok(());
        }
        self.forget_bridge().await
    }

    async fn attach_to_bridge(&self, ports: &[PortBinding]) -> Result<Held> {
        let wanted = ports.to_vec();
        let reservations = blocking(move || ports::reserve(&wanted)).await?;
        let namespace = self.take_namespace().await?;
        let Some(port) = &namespace.port else {
            return Err(NetworkError::TaskLost);
        };
        let container = port.lease.address();
        let endpoint = EndpointInfo {
            address: container,
            prefix: port.lease.subnet().prefix(),
            gateway: port.gateway,
            mac: text_of(container),
        };
        let ports: Vec<_> = reservations.iter().map(|r| r.binding).collect();
        if let Err(error) = self.publish(&ports, container).await {
            self.inner.teardown.namespace(namespace);
            return Err(error);
        }
        Ok(Held {
            attachment: Attachment {
                kind: NetworkKind::Bridge,
                netns: Some(namespace.path()),
                endpoint: Some(endpoint),
                ports,
            },
            hold: Hold::Namespace(namespace),
            _reservations: reservations,
        })
    }

    /// One from the pool, which is filled again, or a new one.
    async fn take_namespace(&self) -> Result<Namespace> {
        let ready = self.inner.pool.take();
        let namespace = match ready {
            Some(namespace) => namespace,
            None => self.build_namespace().await?,
        };
        self.refill();
        Ok(namespace)
    }

    /// A bridge that somebody deleted is made anew, once.
    async fn build_namespace(&self) -> Result<Namespace> {
        let bridge = self.bridge().await?;
        match self.build_on(&bridge).await {
            Err(NetworkError::Kernel { .. }) => {
                self.inner
                    .bridge
                    .lock()
                    .await
                    .take_if(|b| b.index == bridge.index);
                let bridge = self.bridge().await?;
                self.build_on(&bridge).await
            }
            other => other,
        }
    }

    async fn build_on(&self, bridge: &Bridge) -> Result<Namespace> {
        let _turn = self.inner.pool.turn().await;
        let addresses = &bridge.addresses;
        let lease = addresses
            .take()
            .ok_or_else(|| NetworkError::AddressesExhausted {
                subnet: addresses.subnet().to_string(),
            })?;
        let port = BridgePort {
            veth: self.inner.instance.veth(lease.number()),
            lease,
            gateway: addresses.gateway(),
        };
        namespace::build(Some((bridge.clone(), port))).await
    }

    /// Fills the pool in the background.
    fn refill(&self) {
        if !self.inner.pool.begin_refill() {
            return;
        }
        let network = self.clone();
        tokio::spawn(async move {
            while network.inner.pool.wants() {
                match network.build_namespace().await {
                    Ok(namespace) => {
                        if let Some(surplus) = network.inner.pool.put(namespace) {
                            network.inner.teardown.namespace(surplus);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot prepare a network namespace");
                        break;
                    }
                }
            }
            network.inner.pool.end_refill();
        });
    }

    /// The bridge with its firewall, made if it is not there.
    async fn bridge(&self) -> Result<Bridge> {
        let mut known = self.inner.bridge.lock().await;
        if let Some(bridge) = known.as_ref() {
            return Ok(bridge.clone());
        }
        let fixed = self.subnet_in_use();
        let instance = self.inner.instance.clone();
        let bridge = blocking(move || bridge::ensure(&instance, fixed)).await?;
        let published = self.inner.published.lock().await;
        self.install(&bridge, published.clone()).await?;
        Ok(known.insert(bridge).clone())
    }

    /// The subnet that attached containers are in.
    fn subnet_in_use(&self) -> Option<subnet::Subnet> {
        let held = self.held();
        let mut endpoints = held
            .values()
            .filter_map(|held| held.attachment.endpoint.as_ref());
        endpoints.find_map(|e| subnet::Subnet::new(e.address, e.prefix))
    }

    async fn install(&self, bridge: &Bridge, ports: Vec<Published>) -> Result<()> {
        let firewall = self.inner.firewall.clone();
        let subnet = bridge.addresses.subnet();
        blocking(move || firewall.install(subnet, &ports)).await
    }

    /// If the firewall refuses, it was changed by somebody else: it is written anew, with all ports.
    async fn publish(&self, ports: &[PortBinding], container: Ipv4Addr) -> Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        let new: Vec<_> = ports
            .iter()
            .map(|binding| Published {
                binding: *binding,
                container,
            })
            .collect();
        let bridge = self.bridge().await?;
        let mut published = self.inner.published.lock().await;
        let firewall = self.inner.firewall.clone();
        let added = new.clone();
        if let Err(error) = blocking(move || firewall.publish(&added)).await {
            tracing::warn!(
                error = orlop_proto::error::chain(&error),
                "writing the firewall anew"
            );
            let all = [published.as_slice(), new.as_slice()].concat();
            self.install(&bridge, all).await?;
        }
        published.extend(new);
        Ok(())
    }

    async fn release(&self, held: Held) -> Result<()> {
        let withdrawn = self.withdraw(&held.attachment).await;
        match held.hold {
            Hold::Nothing => {}
            Hold::Namespace(namespace) => self.inner.teardown.namespace(namespace),
            Hold::Port(port) => self.inner.teardown.port(port),
        }
        withdrawn
    }

    async fn withdraw(&self, attachment: &Attachment) -> Result<()> {
        let Some(endpoint) = &attachment.endpoint else {
            return Ok(());
        };
        let container = endpoint.address;
        let mut published = self.inner.published.lock().await;
        let gone: Vec<_> = published
            .extract_if(.., |port| port.container == container)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let firewall = self.inner.firewall.clone();
        blocking(move || firewall.withdraw(&gone)).await
    }

    async fn forget_bridge(&self) -> Result<()> {
        let mut known = self.inner.bridge.lock().await;
        *known = None;
        let firewall = self.inner.firewall.clone();
        let instance = self.inner.instance.clone();
        blocking(move || {
            bridge::remove(&instance)?;
            firewall.remove()
        })
        .await
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.inner
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn without_ports(kind: NetworkKind, namespace: Option<Namespace>) -> Self {
        Self {
            attachment: Attachment {
                kind,
                netns: namespace.as_ref().map(Namespace::path),
                endpoint: None,
                ports: Vec::new(),
            },
            hold: namespace.map_or(Hold::Nothing, Hold::Namespace),
            _reservations: Vec::new(),
        }
    }
}

/// The hardware address that goes with an address, as people write it.
fn text_of(address: Ipv4Addr) -> String {
    let mut text = String::new();
    for byte in mac_of(address) {
        let separator = if text.is_empty() { "" } else { ":" };
        write!(text, "{separator}{byte:02x}").ok();
    }
    text
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| NetworkError::TaskLost)?
}
