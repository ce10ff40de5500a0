//! The services on the wire: parse the request, call, map the error. Nothing is decided here.

mod attach;
mod containers;
mod convert;
mod copy;
mod events;
mod exec;
mod logs;
mod networks;
mod stats;
mod volumes;

use std::pin::Pin;

use futures_util::Stream;
use orlop_proto::runtime::containers_server::{self, ContainersServer};
use orlop_proto::runtime::events_server::{self, EventsServer};
use orlop_proto::runtime::networks_server::{self, NetworksServer};
use orlop_proto::runtime::volumes_server::{self, VolumesServer};
use orlop_wire::MESSAGE_BYTES_MAX;
use tonic::Status;
use tonic::service::Routes;

use crate::containers::Containers;
use crate::error::Error;

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The routes of all services, and their full names.
pub(crate) fn routes(containers: &Containers) -> (Routes, [&'static str; 4]) {
    let container_service = ContainersServer::new(self::containers::Service(containers.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let network_service = NetworksServer::new(networks::Service(containers.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let volume_service = VolumesServer::new(volumes::Service(containers.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let routes = Routes::new(container_service)
        .add_service(network_service)
        .add_service(volume_service)
        .add_service(EventsServer::new(events::Service(
            containers.events().clone(),
        )));
    let names = [
        containers_server::SERVICE_NAME,
        networks_server::SERVICE_NAME,
        volumes_server::SERVICE_NAME,
        events_server::SERVICE_NAME,
    ];
    (routes, names)
}

/// The error as it travels. Faults of ours are logged here, once.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn status(error: Error) -> Status {
    use orlop_proto::error::{Classify as _, Kind, chain, to_status};
    if error.kind() == Kind::Internal {
        tracing::error!(error = chain(&error), "request failed");
    }
    to_status(&error)
}
