//! Making the kernel agree with what containers there are: at start-up, and when somebody flushed the
//! firewall or deleted the bridge.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::bridge::{self, Bridge};
use super::definition::DEFAULT;
use super::error::{NetworkError, Result};
use super::instance::Instance;
use super::namespace::{BridgePort, Ipv6Port};
use super::pool::Pooled;
use super::ports::{self, Reservation};
use super::request::{Attachment, EndpointInfo, Ipv6Info};
use super::route::Routes;
use super::segment::{Joined, Member, Segment};
use super::subnet::Subnet;
use super::watch::Watch;
use super::{Held, Network, behind, blocking, forwarded_ports_of, inhabited};
use crate::retry;

/// A container that runs.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: String,
    /// What [`Network::attach`] answered, also in an earlier process.
    pub(crate) attachment: Attachment,
    /// Its network namespace.
    pub(crate) namespace: Option<OwnedFd>,
}

impl Network {
    /// Takes up the containers that run, restores bridges, firewall and published ports for them, and
    /// removes what no container has. Connections that are open go on. Idempotent; to be called before
    /// the first attach.
    pub(crate) async fn reconcile(&self, live: Vec<Live>) -> Result<()> {
        let veths: HashSet<_> = live
            .iter()
            .flat_map(|live| &live.attachment.endpoints)
            .map(|endpoint| endpoint.veth.clone())
            .collect();
        let (instance, numbers) = (self.inner.instance.clone(), self.inner.veths.clone());
        let keep = move |name: &str, number| veths.contains(name) || numbers.is_taken(number);
        blocking(move || remove_veths(&instance, keep)).await?;
        for segment in self.all_segments() {
            self.restore_bridge(&segment, &live).await?;
        }
        self.remove_lost_bridges().await?;
        for live in live {
            self.adopt(live).await?;
        }
        self.restore_ports().await?;
        self.restore_relays().await?;
        self.keep_watch()
    }

    /// From now on what somebody else takes is put back at once.
    fn keep_watch(&self) -> Result<()> {
        if self.inner.watch.get().is_none() {
            let watch = Watch::start(self)?;
            // Of two that start at once, one is dropped.
            self.inner.watch.set(watch).ok();
        }
        Ok(())
    }

    /// The bridge of a network that a container or a waiting namespace is in; any other goes.
    pub(super) async fn restore_bridge(&self, segment: &Arc<Segment>, live: &[Live]) -> Result<()> {
        let mut endpoints = live.iter().flat_map(|live| &live.attachment.endpoints);
        let lived_in = endpoints
            .find(|endpoint| endpoint.network == segment.definition.name)
            .and_then(|endpoint| Subnet::new(endpoint.address, endpoint.prefix));
        let pool = self.inner.pools.of(Pooled::WithEveryone);
        let waiting = !pool.is_empty() && Arc::ptr_eq(segment, &self.inner.everyone);
        let fixed = lived_in.or_else(|| inhabited(segment));
        if fixed.is_none() && !waiting {
            return self.forget_bridge(segment).await;
        }
        let mut known = segment.bridge.lock().await;
        let fixed = fixed.or_else(|| known.as_ref().map(|bridge| bridge.addresses.subnet()));
        let (instance, definition) = (self.inner.instance.clone(), segment.definition.clone());
        let mut bridge = blocking(move || bridge::ensure(&instance, &definition, fixed)).await?;
        // The addresses that this process gave out stay given out.
        if let Some(known) = known.as_ref() {
            bridge.keep_addresses(known);
        }
        let veths = self.veths_in(segment, live);
        let (instance, to) = (self.inner.instance.clone(), bridge.clone());
        blocking(move || plug_in(&instance, &to, &veths)).await?;
        let doors = self.doors(segment, &bridge)?;
        let mut filter = self.inner.filter.lock().await;
        filter.cover(behind(segment, &bridge), &doors);
        drop(filter);
        *known = Some(bridge);
        Ok(())
    }

    /// The interfaces that belong into a network's bridge; all others are in another one's.
    fn veths_in(&self, segment: &Segment, live: &[Live]) -> HashSet<String> {
        let name = &segment.definition.name;
        let own = |endpoint: &&EndpointInfo| endpoint.network == *name;
        let found = live.iter().flat_map(|live| &live.attachment.endpoints);
        let mut veths: HashSet<_> = found.filter(own).map(|e| e.veth.clone()).collect();
        let held = self.held();
        let ports = held.values().flat_map(|held| &held.ports);
        veths.extend(ports.filter(|p| p.network == *name).map(|p| p.veth.clone()));
        if *name == DEFAULT {
            veths.extend(self.inner.pools.of(Pooled::WithEveryone).veths());
        }
        veths
    }

    /// Bridges of networks whose making or removal a crash cut short.
    async fn remove_lost_bridges(&self) -> Result<()> {
        let numbers: HashSet<_> = self
            .all_segments()
            .iter()
            .map(|segment| segment.definition.number)
            .collect();
        let instance = self.inner.instance.clone();
        blocking(move || {
            let failed = || NetworkError::kernel("remove bridges that no network has");
            let mut routes = Routes::open().map_err(failed())?;
            for link in routes.links().map_err(failed())? {
                let number = instance.bridge_number(&link.name);
                if number.is_some_and(|number| !numbers.contains(&number)) {
                    routes.delete(&link.name).map_err(failed())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Holds what an earlier process held; what this process holds already stays.
    async fn adopt(&self, live: Live) -> Result<()> {
        if self.held().contains_key(&live.id) {
            return Ok(());
        }
        let mut ports = Vec::new();
        let mut joined = Vec::new();
        for endpoint in &live.attachment.endpoints {
            let Ok(segment) = self.segment(&endpoint.network) else {
                tracing::error!(
                    id = live.id,
                    network = endpoint.network,
                    "a network is lost"
                );
                continue;
            };
            joined.push(rejoin(&segment, &live, endpoint)?);
            let bridge = self.bridge(&segment).await?;
            ports.extend(self.claim(&bridge, endpoint));
        }
        let reservations = rebind(&live.attachment);
        let held = Held {
            _loopback: self.answer_on_loopback(&live.id, &reservations)?,
            reservations,
            attachment: live.attachment,
            namespace: live.namespace,
            ports,
            joined,
        };
        self.held().insert(live.id, held);
        Ok(())
    }

    fn claim(&self, bridge: &Bridge, endpoint: &EndpointInfo) -> Option<BridgePort> {
        let number = self.inner.instance.veth_number(&endpoint.veth)?;
        Some(BridgePort {
            network: endpoint.network.clone(),
            veth: endpoint.veth.clone(),
            interface: endpoint.interface.clone(),
            lease: bridge.addresses.claim(endpoint.address)?,
            gateway: endpoint.gateway,
            routed: endpoint.routed,
            ipv6: endpoint.ipv6.and_then(|ipv6| claim_ipv6(bridge, ipv6)),
            _number: self.inner.veths.claim(number)?,
        })
    }

    /// The firewall anew, in one transaction, with every port of every container.
    async fn restore_ports(&self) -> Result<()> {
        let mut filter = self.inner.filter.lock().await;
        for held in self.held().values() {
            let ports = forwarded_ports_of(&held.attachment);
            let new: Vec<_> = ports
                .filter(|port| !filter.published.contains(port))
                .collect();
            filter.published.extend(new);
        }
        match filter.networks.is_empty() {
            true => Ok(()),
            false => self.install(&filter).await,
        }
    }

    /// The firewall anew, without what could not be taken from it, as soon as that can be done.
    pub(super) fn rewrite_later(&self) {
        let network = self.clone();
        retry::later("write the firewall anew", "", move || {
            let network = network.clone();
            async move {
                let filter = network.inner.filter.lock().await;
                match filter.networks.is_empty() {
                    true => Ok(()),
                    false => Ok(network.install(&filter).await?),
                }
            }
        });
    }
}

fn claim_ipv6(bridge: &Bridge, ipv6: Ipv6Info) -> Option<Ipv6Port> {
    Some(Ipv6Port {
        lease: bridge.ipv6.as_ref()?.claim(ipv6.address)?,
        gateway: ipv6.gateway,
        routed: ipv6.routed,
    })
}

fn rejoin(segment: &Arc<Segment>, live: &Live, endpoint: &EndpointInfo) -> Result<Joined> {
    let member = Member {
        title: endpoint.names.first().unwrap_or(&live.id).clone(),
        endpoint: Some(endpoint.clone()),
        servers: live.attachment.servers.clone(),
    };
    segment.join(&live.id, member)
}

/// A port that somebody took while nobody held it stays published (the firewall comes first), and is
/// said so.
fn rebind(attachment: &Attachment) -> Vec<Reservation> {
    let rebound = attachment.ports.iter().map(ports::reserve_again);
    rebound
        .filter_map(|reserved| {
            reserved
                .inspect_err(|error| tracing::warn!(%error, "a published port was taken meanwhile"))
                .ok()
        })
        .collect()
}

fn remove_veths(instance: &Instance, keep: impl Fn(&str, u128) -> bool) -> Result<()> {
    let failed = || NetworkError::kernel("remove interfaces that no container has");
    let mut routes = Routes::open().map_err(failed())?;
    for link in routes.links().map_err(failed())? {
        let number = instance.veth_number(&link.name);
        if number.is_some_and(|number| !keep(&link.name, number)) {
            routes.delete(&link.name).map_err(failed())?;
        }
    }
    Ok(())
}

/// Puts every interface of a network that is in no bridge into its own.
fn plug_in(instance: &Instance, bridge: &Bridge, veths: &HashSet<String>) -> Result<()> {
    let failed = || NetworkError::kernel("connect containers to the bridge again");
    let mut routes = Routes::open().map_err(failed())?;
    let mut lost = routes.links().map_err(failed())?;
    lost.retain(|link| {
        let ours = instance.veth_number(&link.name).is_some() && veths.contains(&link.name);
        ours && link.master != bridge.index
    });
    for link in &lost {
        routes.set_master(link, bridge).map_err(failed())?;
    }
    // A container may have its interface down, so that the bridge never runs.
    if !lost.is_empty()
        && let Err(error) = routes.wait_until_running(&bridge.name)
    {
        tracing::debug!(%error, bridge = bridge.name, "the bridge does not run yet");
    }
    Ok(())
}
