//! Making the kernel agree with what containers there are: at start-up, and when somebody flushed the
//! firewall or deleted the bridge.

use std::collections::HashSet;

use super::address::Addresses;
use super::bridge::{self, Bridge};
use super::error::{NetworkError, Result};
use super::firewall::Published;
use super::instance::Instance;
use super::namespace::BridgePort;
use super::ports::{self, Reservation};
use super::request::{Attachment, EndpointInfo};
use super::route::Routes;
use super::{Held, Hold, Network, blocking};

impl Network {
    /// Takes up the containers that run (`live`: id and what [`Network::attach`] answered, also in an
    /// earlier process), restores bridge, firewall and published ports for them, and removes what no
    /// container has. Connections that are open go on. Idempotent; to be called before the first
    /// attach.
    pub async fn reconcile(&self, live: &[(String, Attachment)]) -> Result<()> {
        let endpoints: Vec<_> = live
            .iter()
            .filter_map(|(_, a)| a.endpoint.clone())
            .collect();
        let idle = self.subnet_in_use().is_none() && self.inner.pool.is_empty();
        if endpoints.is_empty() && idle {
            self.remove_leftovers().await?;
            for (id, attachment) in live {
                self.adopt(id, attachment, None);
            }
            return Ok(());
        }
        self.restore_bridge(&endpoints).await?;
        let bridge = self.bridge().await?;
        for (id, attachment) in live {
            self.adopt(id, attachment, Some(&bridge.addresses));
        }
        self.restore_ports(&bridge).await
    }

    /// Nothing of ours is in use: everything with our names goes.
    async fn remove_leftovers(&self) -> Result<()> {
        let instance = self.inner.instance.clone();
        blocking(move || remove_veths(&instance, |_| false)).await?;
        self.forget_bridge().await
    }

    /// The bridge with the containers' subnet, and every container's interface in it.
    async fn restore_bridge(&self, endpoints: &[EndpointInfo]) -> Result<()> {
        let mut known = self.inner.bridge.lock().await;
        let subnet = endpoints
            .iter()
            .find_map(|e| super::subnet::Subnet::new(e.address, e.prefix));
        let fixed = subnet.or_else(|| self.subnet_in_use());
        let instance = self.inner.instance.clone();
        let mut bridge = blocking(move || bridge::ensure(&instance, fixed)).await?;
        // The addresses that this process gave out stay given out.
        if let Some(known) = known.as_ref() {
            bridge.addresses = known.addresses.clone();
        }
        let addresses = bridge.addresses.clone();
        let live: HashSet<_> = endpoints
            .iter()
            .filter_map(|e| addresses.subnet().number(e.address))
            .collect();
        let instance = self.inner.instance.clone();
        let index = bridge.index;
        blocking(move || {
            let keep = |number| live.contains(&number) || addresses.is_taken(number);
            remove_veths(&instance, keep)?;
            plug_in(&instance, index)
        })
        .await?;
        *known = Some(bridge);
        Ok(())
    }

    /// Holds what an earlier process held; what this process holds already stays.
    fn adopt(&self, id: &str, attachment: &Attachment, addresses: Option<&Addresses>) {
        if self.held().contains_key(id) {
            return;
        }
        let port = addresses
            .zip(attachment.endpoint.as_ref())
            .and_then(|(addresses, endpoint)| {
                let lease = addresses.claim(endpoint.address)?;
                Some(BridgePort {
                    veth: self.inner.instance.veth(lease.number()),
                    lease,
                    gateway: endpoint.gateway,
                })
            });
        let held = Held {
            attachment: attachment.clone(),
            hold: port.map_or(Hold::Nothing, Hold::Port),
            _reservations: rebind(attachment),
        };
        self.held().insert(id.to_owned(), held);
    }

    /// The firewall anew, in one transaction, with every port of every container.
    async fn restore_ports(&self, bridge: &Bridge) -> Result<()> {
        let mut published = self.inner.published.lock().await;
        let mut all = published.clone();
        for held in self.held().values() {
            let ports = ports_of(&held.attachment);
            let new: Vec<_> = ports.filter(|port| !all.contains(port)).collect();
            all.extend(new);
        }
        self.install(bridge, all.clone()).await?;
        *published = all;
        Ok(())
    }
}

fn ports_of(attachment: &Attachment) -> impl Iterator<Item = Published> {
    let container = attachment.endpoint.as_ref().map(|e| e.address);
    attachment.ports.iter().filter_map(move |binding| {
        Some(Published {
            binding: *binding,
            container: container?,
        })
    })
}

/// A port that somebody took while nobody held it stays published (the firewall comes first), and is
/// said so.
fn rebind(attachment: &Attachment) -> Vec<Reservation> {
    let one = |binding| ports::reserve(std::slice::from_ref(binding));
    let rebound = attachment.ports.iter().map(one);
    rebound
        .filter_map(|reserved| {
            reserved
                .inspect_err(|error| tracing::warn!(%error, "a published port was taken meanwhile"))
                .ok()
        })
        .flatten()
        .collect()
}

fn remove_veths(instance: &Instance, keep: impl Fn(u32) -> bool) -> Result<()> {
    let failed = || NetworkError::kernel("remove interfaces that no container has");
    let mut routes = Routes::open().map_err(failed())?;
    for link in routes.links().map_err(failed())? {
        let number = instance.veth_number(&link.name);
        if number.is_some_and(|number| !keep(number)) {
            routes.delete(&link.name).map_err(failed())?;
        }
    }
    Ok(())
}

/// Puts every interface of ours that is not in the bridge into it.
fn plug_in(instance: &Instance, bridge: u32) -> Result<()> {
    let failed = || NetworkError::kernel("connect containers to the bridge again");
    let mut routes = Routes::open().map_err(failed())?;
    for link in routes.links().map_err(failed())? {
        if instance.veth_number(&link.name).is_some() && link.master != bridge {
            routes.set_master(&link, bridge).map_err(failed())?;
        }
    }
    Ok(())
}
