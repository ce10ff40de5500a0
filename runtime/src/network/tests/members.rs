//! Containers in networks: what they ask for, what they got, and how they leave.

use std::net::Ipv4Addr;

use orlop_proto::runtime as wire;

use super::support::Place;
use crate::network::{
    Attachment, EndpointInfo, Live, Membership, Network, NetworkRequest, PortRequest,
};

pub(super) fn named(name: &str) -> wire::CreateNetworkRequest {
    wire::CreateNetworkRequest {
        name: name.to_owned(),
        ..Default::default()
    }
}

pub(super) fn membership(network: &str) -> Membership {
    Membership {
        network: network.to_owned(),
        ..Membership::default()
    }
}

pub(super) fn member_of(networks: &[&str]) -> NetworkRequest {
    NetworkRequest {
        memberships: networks.iter().map(|network| membership(network)).collect(),
        ..NetworkRequest::default()
    }
}

pub(super) async fn attach(network: &Network, id: &str, networks: &[&str]) -> Attachment {
    network.attach(id, &member_of(networks)).await.unwrap()
}

/// A container in the network that always exists, with these ports.
pub(super) async fn published(network: &Network, id: &str, ports: Vec<PortRequest>) -> Attachment {
    let request = NetworkRequest {
        ports,
        ..NetworkRequest::default()
    };
    network.attach(id, &request).await.unwrap()
}

/// One in a network of a user's, with these ports.
pub(super) async fn published_in(
    network: &Network,
    name: &str,
    id: &str,
    ports: Vec<PortRequest>,
) -> Attachment {
    let request = NetworkRequest {
        ports,
        ..member_of(&[name])
    };
    network.attach(id, &request).await.unwrap()
}

/// Its address in its first network.
pub(super) fn address(attachment: &Attachment) -> Ipv4Addr {
    attachment.endpoints.first().unwrap().address
}

/// The gateway there.
pub(super) fn gateway(attachment: &Attachment) -> Ipv4Addr {
    attachment.endpoints.first().unwrap().gateway
}

/// As the service finds a container that runs, whose namespace has a path.
pub(super) fn live(id: &str, attachment: &Attachment) -> Live {
    Live {
        id: id.to_owned(),
        attachment: attachment.clone(),
        namespace: None,
    }
}

/// The same with the namespace of its process.
pub(super) fn live_in(place: &Place, id: &str, attachment: &Attachment) -> Live {
    Live {
        namespace: Some(place.handle()),
        ..live(id, attachment)
    }
}

pub(super) fn in_network<'a>(attachment: &'a Attachment, network: &str) -> &'a EndpointInfo {
    let mut endpoints = attachment.endpoints.iter();
    endpoints.find(|e| e.network == network).unwrap()
}

pub(super) async fn leave_all(
    network: &Network,
    attached: &[(&str, &Attachment)],
    networks: &[&str],
) {
    for (id, attachment) in attached {
        network.detach(id, attachment).await.unwrap();
    }
    for name in networks {
        network.remove(name).await.unwrap();
    }
    network.release_pool().await.unwrap();
}
