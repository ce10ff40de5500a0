//! A container that runs joins a network, or leaves one.

use std::os::fd::OwnedFd;

use super::error::{NetworkError, Result};
use super::joining::{WayOut, endpoint, way_out};
use super::namespace::{self, BridgePort};
use super::ports::Reservation;
use super::request::{Attachment, EndpointInfo, Membership, NetworkKind};
use super::segment::{Joined, Member};
use super::{Held, Network};

/// What a container that leaves a network had of it, and what it still has.
struct Left {
    before: Attachment,
    after: Attachment,
    port: Option<BridgePort>,
    joined: Option<Joined>,
    namespace: OwnedFd,
}

impl Network {
    /// Gives a container that runs an interface in one more network; what it has then. `names`: what
    /// others call it, the first also for people. One change of a container at a time.
    pub(crate) async fn connect(
        &self,
        container: &str,
        membership: &Membership,
        names: &[String],
    ) -> Result<Attachment> {
        let joining = self.joining_one(membership, names)?;
        let (namespace, has) = self.namespace_of(container)?;
        let title = names.first().map_or(container, |name| name);
        let joined = joining.segment.join(
            container,
            Member {
                title: title.to_owned(),
                endpoint: None,
                servers: has.servers.clone(),
            },
        )?;
        let routed = way_out([&joining]).without(WayOut {
            ipv4: has.routed().is_some(),
            ipv6: has.routed_by_ipv6().is_some(),
        });
        let place = self.place(&joining, free_interface(&has), routed).await?;
        let port = namespace::plug_into(namespace, place).await?;
        let endpoint = endpoint(&joining, &port);
        joined.settle(endpoint.clone());
        let attachment = self.add(container, endpoint, port, joined)?;
        let reserved = self.reserved(container);
        if (routed.ipv4 || routed.ipv6)
            && let Err(error) = self.publish(&attachment, &reserved).await
        {
            self.disconnect(container, &membership.network).await?;
            return Err(error);
        }
        Ok(attachment)
    }

    fn add(
        &self,
        container: &str,
        endpoint: EndpointInfo,
        port: BridgePort,
        joined: Joined,
    ) -> Result<Attachment> {
        let mut held = self.held();
        let Some(held) = held.get_mut(container) else {
            // It ended meanwhile.
            self.inner.teardown.places(vec![port], None);
            return Err(NetworkError::NoSuchNeighbour(container.to_owned()));
        };
        held.attachment.endpoints.push(endpoint);
        held.ports.push(port);
        held.joined.push(joined);
        Ok(held.attachment.clone())
    }

    /// The namespace of a container that runs, for one more.
    pub(super) fn share(&self, neighbour: &str) -> Result<Held> {
        let held = self.held();
        let theirs = held
            .get(neighbour)
            .ok_or_else(|| NetworkError::NoSuchNeighbour(neighbour.to_owned()))?;
        let namespace = theirs.namespace.as_ref().map(OwnedFd::try_clone);
        let namespace = namespace
            .transpose()
            .map_err(NetworkError::kernel("open a container's namespace"))?;
        Ok(Held::without_ports(NetworkKind::Container, namespace))
    }

    /// Takes a running container's interface in a network away; what it has then. If its way out was
    /// through it, another network's is taken, and published ports lead there.
    pub(crate) async fn disconnect(&self, container: &str, network: &str) -> Result<Attachment> {
        let left = self.leave(container, network)?;
        let (before, after) = (&left.before, &left.after);
        let ipv4 = after.routed().filter(|_| before.routed() != after.routed());
        let is_moved = before.routed_by_ipv6() != after.routed_by_ipv6();
        let ipv6 = after.routed_by_ipv6().filter(|_| is_moved);
        if before.ways_in().ne(after.ways_in()) {
            self.withdraw(&left.before).await?;
        }
        drop(left.joined);
        self.inner.teardown.places(Vec::from_iter(left.port), None);
        self.inner.teardown.finish().await;
        if let Some(next) = ipv4 {
            let handle = share(&left.namespace)?;
            namespace::route_through(handle, next.interface.clone(), next.gateway).await?;
        }
        if let Some((next, ipv6)) = ipv6 {
            let handle = share(&left.namespace)?;
            namespace::route_through(handle, next.interface.clone(), ipv6.gateway).await?;
        }
        self.publish(after, &self.reserved(container)).await?;
        Ok(left.after)
    }

    /// The host's side of a container's published ports.
    fn reserved(&self, container: &str) -> Vec<Reservation> {
        let all = self.held();
        let held = all.get(container);
        held.map_or_else(Vec::new, |held| held.reservations.clone())
    }

    fn leave(&self, container: &str, network: &str) -> Result<Left> {
        let mut all = self.held();
        let missing = || NetworkError::NotConnected {
            container: container.to_owned(),
            network: network.to_owned(),
        };
        let held = all.get_mut(container).ok_or_else(missing)?;
        let endpoints = &held.attachment.endpoints;
        let index = endpoints.iter().position(|e| e.network == network);
        let index = index.ok_or_else(missing)?;
        let namespace = duplicate(held)?;
        let before = held.attachment.clone();
        let gone = held.attachment.endpoints.remove(index);
        let port = held.ports.iter().position(|p| p.veth == gone.veth);
        let port = port.map(|index| held.ports.remove(index));
        let joined = held
            .joined
            .iter()
            .position(|joined| joined.segment.definition.name == network)
            .map(|index| held.joined.remove(index));
        self.reroute(&mut held.attachment);
        Ok(Left {
            before,
            after: held.attachment.clone(),
            port,
            joined,
            namespace,
        })
    }

    /// Where a family has no way out any more, the first network that has one becomes it.
    fn reroute(&self, attachment: &mut Attachment) {
        let leads_out = |endpoint: &&mut EndpointInfo| {
            let segment = self.segment(&endpoint.network);
            segment.is_ok_and(|segment| !segment.definition.internal)
        };
        if attachment.routed().is_none()
            && let Some(next) = attachment.endpoints.iter_mut().find(leads_out)
        {
            next.routed = true;
        }
        if attachment.routed_by_ipv6().is_none() {
            let mut open = attachment.endpoints.iter_mut().filter(leads_out);
            if let Some(next) = open.find_map(|endpoint| endpoint.ipv6.as_mut()) {
                next.routed = true;
            }
        }
    }

    /// The namespace of a container that runs and has its own.
    fn namespace_of(&self, container: &str) -> Result<(OwnedFd, Attachment)> {
        let all = self.held();
        let none = || NetworkError::NoSuchNeighbour(container.to_owned());
        let held = all.get(container).ok_or_else(none)?;
        Ok((duplicate(held)?, held.attachment.clone()))
    }

    /// A container has another name: in its networks, too.
    pub fn rename(&self, container: &str, before: &str, after: &str) {
        let mut all = self.held();
        let Some(held) = all.get_mut(container) else {
            return;
        };
        held.attachment.rename(before, after);
        for joined in &held.joined {
            let network = &joined.segment.definition.name;
            let mut endpoints = held.attachment.endpoints.iter();
            if let Some(endpoint) = endpoints.find(|e| e.network == *network) {
                joined.rename(after, endpoint.clone());
            }
        }
    }
}

fn duplicate(held: &Held) -> Result<OwnedFd> {
    let kind = held.attachment.kind;
    let namespace = held.namespace.as_ref();
    let namespace = namespace.ok_or_else(|| NetworkError::NoNamespace(kind.name().to_owned()))?;
    share(namespace)
}

fn share(namespace: &OwnedFd) -> Result<OwnedFd> {
    let copy = namespace.try_clone();
    copy.map_err(NetworkError::kernel("open a container's namespace"))
}

/// The first `ethN` that the container does not have.
fn free_interface(attachment: &Attachment) -> String {
    let taken = |name: &String| attachment.endpoints.iter().any(|e| e.interface == *name);
    let mut names = (0..).map(|number| format!("eth{number}"));
    names.find(|name| !taken(name)).unwrap_or_default()
}
