//! One bridge network: its definition, its bridge once a container needs it, and who is in it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bridge::Bridge;
use super::definition::{Definition, Options};
use super::dns::NameServer;
use super::error::{NetworkError, Result};
use super::firewall::Published;
use super::request::EndpointInfo;

/// A bridge network.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) definition: Definition,
    pub(crate) options: Options,
    /// Absent until the first container needs it, and after it was found gone.
    pub(crate) bridge: tokio::sync::Mutex<Option<Bridge>>,
    members: Mutex<Members>,
    names: Mutex<Option<NameServer>>,
    /// Whose turn it is to be the first of those who share a name.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Members {
    by_container: BTreeMap<String, Member>,
    /// Nobody joins any more.
    closed: bool,
}

/// A container in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// What to call it before a person.
    pub(crate) title: String,
    /// Absent while it is made.
    pub(crate) endpoint: Option<EndpointInfo>,
    /// Name servers that it asked for.
    pub(crate) servers: Vec<IpAddr>,
}

/// That a container is in a network, until this is dropped.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) segment: Arc<Segment>,
    container: String,
}

impl Segment {
    /// Nobody is in it.
    pub(crate) fn new(definition: Definition) -> Result<Self> {
        Ok(Self {
            options: definition.options()?,
            definition,
            bridge: tokio::sync::Mutex::default(),
            members: Mutex::default(),
            names: Mutex::default(),
            turn: AtomicUsize::default(),
        })
    }

    /// Puts a container in. An error if it is in, or if the network is being removed.
    pub(crate) fn join(self: &Arc<Self>, container: &str, member: Member) -> Result<Joined> {
        let mut members = self.lock();
        let name = &self.definition.name;
        if members.closed {
            return Err(NetworkError::UnknownNetwork(name.clone()));
        }
        if members.by_container.contains_key(container) {
            return Err(NetworkError::AlreadyConnected {
                container: member.title,
                network: name.clone(),
            });
        }
        members.by_container.insert(container.to_owned(), member);
        Ok(Joined {
            segment: Arc::clone(self),
            container: container.to_owned(),
        })
    }

    /// Lets nobody in any more. An error, which names it, if a container is in.
    pub(crate) fn close(&self) -> Result<()> {
        let mut members = self.lock();
        if let Some(member) = members.by_container.values().next() {
            return Err(NetworkError::NetworkInUse {
                network: self.definition.name.clone(),
                container: member.title.clone(),
            });
        }
        members.closed = true;
        Ok(())
    }

    /// Lets containers in again, after a removal that failed.
    pub(crate) fn reopen(&self) {
        self.lock().closed = false;
    }

    /// Whether nobody is in.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().by_container.is_empty()
    }

    /// Everybody with a place, by id.
    pub(crate) fn members(&self) -> Vec<(String, Member)> {
        let members = self.lock();
        let all = members.by_container.iter();
        all.filter(|(_, member)| member.endpoint.is_some())
            .map(|(id, member)| (id.clone(), member.clone()))
            .collect()
    }

    /// Whether a container is in.
    pub(crate) fn has(&self, container: &str) -> bool {
        self.lock().by_container.contains_key(container)
    }

    /// Who has an address.
    pub(crate) fn member_at(&self, address: IpAddr) -> Option<(String, Member)> {
        let members = self.lock();
        let (id, member) = members
            .by_container
            .iter()
            .find(|(_, member)| member.is_at(address))?;
        Some((id.clone(), member.clone()))
    }

    /// What a container of the network means by a name in lower case: its links come first.
    pub(crate) fn addresses_for(&self, container: &str, name: &str) -> Vec<IpAddr> {
        let members = self.lock();
        let own = members.by_container.get(container);
        let mut links = own
            .and_then(|own| own.endpoint.as_ref())
            .into_iter()
            .flat_map(|endpoint| &endpoint.links);
        let link = links.find(|link| link.alias.eq_ignore_ascii_case(name));
        let target = link.map(|link| link.container.to_ascii_lowercase());
        drop(members);
        self.addresses(target.as_deref().unwrap_or(name))
    }

    /// The addresses of a name in lower case, alone or with the network's after a dot. Who has a name
    /// together with others is found as often as they are.
    pub(crate) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let network = self.definition.name.to_ascii_lowercase();
        let alone = name
            .strip_suffix(&network)
            .and_then(|name| name.strip_suffix('.'));
        let members = self.lock();
        let endpoints = members
            .by_container
            .values()
            .filter_map(|m| m.endpoint.as_ref());
        let is_named = |endpoint: &&EndpointInfo| {
            let mut names = endpoint.names.iter();
            names.any(|own| {
                [Some(name), alone]
                    .iter()
                    .flatten()
                    .any(|n| own.eq_ignore_ascii_case(n))
            })
        };
        let mut found: Vec<_> = endpoints.filter(is_named).collect();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = found.len().max(1);
        found.rotate_left(first % count);
        found
            .into_iter()
            .flat_map(EndpointInfo::addresses)
            .collect()
    }

    /// The name, with the network's, of who has an address.
    pub(crate) fn name_at(&self, address: IpAddr) -> Option<String> {
        let (_, member) = self.member_at(address)?;
        Some(format!("{}.{}", member.title, self.definition.name))
    }

    /// The name server of this bridge, if it is already there.
    pub(crate) fn doors_of(&self, bridge: u32) -> Option<[Published; 2]> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let server = names.as_ref().filter(|server| server.bridge == bridge)?;
        Some(server.doors)
    }

    /// Another name server in place of the one that there was, if any.
    pub(crate) fn answer_by(&self, server: Option<NameServer>) {
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn is_at(&self, address: IpAddr) -> bool {
        let mut addresses = self.endpoint.iter().flat_map(EndpointInfo::addresses);
        addresses.any(|own| own == address)
    }
}

impl Joined {
    /// The container's place is made.
    pub(crate) fn settle(&self, endpoint: EndpointInfo) {
        if let Some(member) = self.segment.lock().by_container.get_mut(&self.container) {
            member.endpoint = Some(endpoint);
        }
    }

    /// The container has another name.
    pub(crate) fn rename(&self, title: &str, endpoint: EndpointInfo) {
        if let Some(member) = self.segment.lock().by_container.get_mut(&self.container) {
            member.title = title.to_owned();
            member.endpoint = Some(endpoint);
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.segment.lock().by_container.remove(&self.container);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(title: &str) -> Member {
        Member {
            title: title.to_owned(),
            ..Member::default()
        }
    }

    #[test]
    fn a_network_is_closed_only_while_nobody_is_in_and_then_nobody_gets_in() {
        let definition = Definition::of_everyone("id".to_owned());
        let segment = Arc::new(Segment::new(definition).unwrap());
        let joined = segment.join("a", member("web")).unwrap();
        assert!(segment.join("a", member("web")).is_err());
        assert!(segment.close().unwrap_err().to_string().contains("web"));
        drop(joined);
        segment.close().unwrap();
        assert!(segment.join("b", member("db")).is_err());
        segment.reopen();
        segment.join("b", member("db")).unwrap();
    }
}
