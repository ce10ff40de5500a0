//! What others are told of containers, in Docker's words.

use std::collections::BTreeMap;

use super::Containers;
use super::record::{Mount, MountKind, Record};
use crate::events::Kind;
use crate::network::{Attachment, NetworkInfo, NetworkKind};

impl Containers {
    /// Tells that something happened to a container; `details` belong to the action. Of a build's
    /// containers nobody is told.
    pub(crate) fn tell(&self, record: &Record, action: &str, details: &[(&str, String)]) {
        if record.hidden {
            return;
        }
        let labels = record.config.labels.clone();
        let own = [
            ("image", record.image.clone()),
            ("name", record.name.clone()),
        ];
        let own = own.iter().chain(details);
        let own = own.map(|(key, value)| ((*key).to_owned(), value.clone()));
        let attributes = labels.into_iter().chain(own).collect();
        self.events()
            .tell(Kind::Container, action, &record.id, attributes);
    }

    /// Tells that a container joined or left its networks.
    pub(super) fn tell_networks(&self, record: &Record, action: &str, attachment: &Attachment) {
        match attachment.kind {
            NetworkKind::Bridge => {
                for endpoint in &attachment.endpoints {
                    self.tell_member(record, action, &endpoint.network);
                }
            }
            NetworkKind::None | NetworkKind::Host => {
                self.tell_member(record, action, attachment.kind.name());
            }
            // It is in no network of its own.
            NetworkKind::Container => {}
        }
    }

    /// Tells that a container joined or left one network.
    pub(super) fn tell_member(&self, record: &Record, action: &str, network: &str) {
        // A network with a container in it is not removed.
        if let Ok(network) = self.network().inspect(network)
            && !record.hidden
        {
            self.tell_network(&network, action, &[("container", &record.id)]);
        }
    }

    /// Tells that something happened to a network.
    pub(super) fn tell_network(&self, network: &NetworkInfo, action: &str, more: &[(&str, &str)]) {
        let own = [("name", network.name.as_str()), ("type", network.driver)];
        let attributes = own.iter().chain(more);
        let attributes = attributes.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.events()
            .tell(Kind::Network, action, &network.id, attributes.collect());
    }

    /// Tells of each volume that a container begins or ceases to use.
    pub(super) fn tell_volumes(&self, record: &Record, action: &str) {
        for mount in &record.mounts {
            let MountKind::Volume { name, .. } = &mount.kind else {
                continue;
            };
            if !record.hidden {
                let attributes = volume(record, mount, action);
                self.events().tell(Kind::Volume, action, name, attributes);
            }
        }
    }
}

fn volume(record: &Record, mount: &Mount, action: &str) -> BTreeMap<String, String> {
    let mut attributes = vec![
        ("container", record.id.clone()),
        ("driver", "local".to_owned()),
    ];
    if action == "mount" {
        attributes.push(("destination", mount.target.clone()));
        attributes.push(("propagation", mount.propagation.clone()));
        attributes.push(("read/write", (!mount.read_only).to_string()));
    }
    let attributes = attributes.into_iter();
    attributes
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}
