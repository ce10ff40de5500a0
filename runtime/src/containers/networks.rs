//! Which networks containers are in: judged at creation, changed while they run or not.

use std::path::Path;
use std::sync::Arc;

use orlop_proto::runtime as wire;

use super::record::Record;
use super::{Container, Containers};
use crate::error::{Error, Result, blocking};
use crate::network::{Attachment, Membership, NetworkError, NetworkInfo, NetworkMode, Publishing};

impl Containers {
    /// The networks that a new container is to be in, by their names; `network` becomes what it means.
    pub(super) fn memberships(&self, request: &mut wire::CreateRequest) -> Result<Vec<Membership>> {
        let mode = NetworkMode::from(request.network.as_str());
        let main = match &mode {
            NetworkMode::Bridge(name) => self.parts().network.find(name)?.name,
            NetworkMode::Container(text) => {
                request.network = format!("container:{}", self.find(text)?.id);
                String::new()
            }
            NetworkMode::None | NetworkMode::Host => String::new(),
        };
        if main.is_empty() && !request.memberships.is_empty() {
            return Err(NetworkError::NoNamespace(mode.kind().name().to_owned()).into());
        }
        let mut memberships: Vec<Membership> = Vec::new();
        for asked in &request.memberships {
            let membership = self.membership(asked, &main)?;
            if memberships.iter().any(|m| m.network == membership.network) {
                let problem = format!("{:?} twice", membership.network);
                return Err(Error::invalid("network", problem));
            }
            memberships.push(membership);
        }
        if !main.is_empty() && !memberships.iter().any(|m| m.network == main) {
            let network = main.clone();
            memberships.insert(
                0,
                Membership {
                    network,
                    ..Membership::default()
                },
            );
        }
        if let NetworkMode::Bridge(_) = mode {
            request.network = main;
        }
        Ok(memberships)
    }

    /// How ports are published by the first of these networks that has a way out.
    pub(super) fn publishing(&self, memberships: &[Membership]) -> Option<Publishing> {
        let network = &self.parts().network;
        let mut names = memberships.iter().map(|membership| &membership.network);
        names.find_map(|name| network.publishing(name))
    }

    /// What is asked of one network; without a name, of `main`.
    fn membership(&self, asked: &wire::NetworkMembership, main: &str) -> Result<Membership> {
        let mut membership = Membership::try_from(asked)?;
        let name = match membership.network.as_str() {
            "" => main,
            name => name,
        };
        let network = self.parts().network.find(name)?;
        check(&membership, &network)?;
        if network.created.is_none() {
            // There its name is looked up whenever a line is written.
            for link in &mut membership.links {
                link.container = self.find(&link.container)?.id.clone();
            }
        }
        membership.network = network.name;
        Ok(membership)
    }

    /// Makes a network of a user's.
    pub(crate) async fn create_network(
        &self,
        request: wire::CreateNetworkRequest,
    ) -> Result<NetworkInfo> {
        let made = self.parts().network.create(request).await?;
        self.tell_network(&made, "create", &[]);
        Ok(made)
    }

    /// Removes a network of a user's.
    pub(crate) async fn remove_network(&self, name: &str) -> Result<()> {
        let network = self.parts().network.inspect(name)?;
        self.parts().network.remove(name).await?;
        self.tell_network(&network, "destroy", &[]);
        Ok(())
    }

    /// Puts a container into a network, at once if it runs.
    pub(crate) async fn connect(
        &self,
        container: &Arc<Container>,
        asked: &wire::NetworkMembership,
    ) -> Result<()> {
        let membership = self.membership(asked, "")?;
        let _gate = container.gate.lock().await;
        let record = container.record();
        changeable(&record)?;
        let is_same = |m: &Membership| m.network == membership.network;
        if record.is_running() && record.memberships.iter().any(is_same) {
            return Err(NetworkError::AlreadyConnected {
                container: record.title().to_owned(),
                network: membership.network,
            }
            .into());
        }
        let attachment = match record.is_running() {
            true => {
                let (network, names) = (&self.parts().network, record.names());
                Some(network.connect(&record.id, &membership, &names).await?)
            }
            false => None,
        };
        let name = membership.network.clone();
        let joins = attachment.is_some();
        let keep = |memberships: &mut Vec<Membership>| {
            let mut known = memberships.iter_mut();
            match known.find(|m| m.network == membership.network) {
                Some(before) => *before = membership,
                None => memberships.push(membership),
            }
        };
        self.keep_networks(container, attachment, keep).await?;
        if joins {
            self.tell_member(&record, "connect", &name);
        }
        Ok(())
    }

    /// Takes a container out of a network.
    pub(crate) async fn disconnect(&self, container: &Arc<Container>, name: &str) -> Result<()> {
        let network = self.parts().network.find(name)?.name;
        let _gate = container.gate.lock().await;
        let record = container.record();
        changeable(&record)?;
        if !record.memberships.iter().any(|m| m.network == network) {
            return Err(NetworkError::NotConnected {
                container: record.title().to_owned(),
                network,
            }
            .into());
        }
        let attachment = match record.is_running() {
            true => {
                let left = self.parts().network.disconnect(&record.id, &network);
                Some(left.await?)
            }
            false => None,
        };
        let leaves = attachment.is_some();
        let keep = |memberships: &mut Vec<Membership>| memberships.retain(|m| m.network != network);
        self.keep_networks(container, attachment, keep).await?;
        if leaves {
            self.tell_member(&record, "disconnect", &network);
        }
        Ok(())
    }

    /// Removes the networks of users that no container is in, whether it runs or not, and that pass the
    /// filter; answers their names.
    pub(crate) async fn prune_networks(
        &self,
        fits: impl Fn(&NetworkInfo) -> bool + Send,
    ) -> Vec<String> {
        let mut removed = Vec::new();
        for network in self.parts().network.list() {
            let name = network.name.clone();
            if network.created.is_none() || !fits(&network) || self.is_joined(&name) {
                continue;
            }
            match self.remove_network(&name).await {
                Ok(()) => removed.push(name),
                Err(error) => tracing::debug!(%error, name, "not pruned"),
            }
        }
        removed
    }

    fn is_joined(&self, network: &str) -> bool {
        let containers = self.all();
        let mut records = containers.iter().map(|container| container.record());
        records.any(|record| record.memberships.iter().any(|m| m.network == network))
    }

    /// Keeps in which networks a container is, and tells the container.
    async fn keep_networks(
        &self,
        container: &Arc<Container>,
        attachment: Option<Attachment>,
        change: impl FnOnce(&mut Vec<Membership>) + Send,
    ) -> Result<()> {
        let before = container.record();
        let after = container.update(|record| {
            change(&mut record.memberships);
            // One that ended meanwhile has no place any more.
            if record.attachment.is_some() && attachment.is_some() {
                record.attachment = attachment;
            }
        });
        let after = after.await?;
        let (this, container) = (self.clone(), Arc::clone(container));
        blocking(move || this.renew_etc(&container, &before, &after)).await
    }

    /// Writes the files of a running container's `/etc` anew that still say what was written before.
    fn renew_etc(&self, container: &Container, before: &Record, after: &Record) -> Result<()> {
        let (Some(old), Some(new)) = (&before.attachment, &after.attachment) else {
            return Ok(());
        };
        let old = self.etc_texts(before, old)?;
        let new = self.etc_texts(after, new)?;
        let targets = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
        for ((target, old), new) in targets.iter().zip(&old).zip(&new) {
            let path = container.etc_file(target);
            if old != new && says(&path, old) {
                std::fs::write(&path, new).map_err(Error::file("write", path))?;
            }
        }
        Ok(())
    }
}

/// A container may have made its file as large as it likes.
fn says(path: &Path, text: &str) -> bool {
    let same_size = std::fs::metadata(path).is_ok_and(|m| m.len() == text.len() as u64);
    same_size && std::fs::read(path).is_ok_and(|bytes| bytes == text.as_bytes())
}

/// Docker's rules: neither addresses nor aliases on the network of everyone.
fn check(membership: &Membership, network: &NetworkInfo) -> Result<()> {
    if network.driver != "bridge" {
        return Err(NetworkError::NoNamespace(network.name.clone()).into());
    }
    let addressed = membership.address.is_some() || membership.ipv6_address.is_some();
    let given = addressed || !membership.aliases.is_empty();
    if network.created.is_none() && given {
        let problem = format!(
            "addresses and aliases are for networks of users, and {} is none",
            network.name
        );
        return Err(Error::invalid("network", problem));
    }
    Ok(())
}

/// Only a namespace of the container's own with bridges can be changed.
fn changeable(record: &Record) -> Result<()> {
    match record.network_mode() {
        NetworkMode::Bridge(_) => Ok(()),
        mode => Err(NetworkError::NoNamespace(mode.kind().name().to_owned()).into()),
    }
}
