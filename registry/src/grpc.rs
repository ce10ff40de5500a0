//! The contract `orlop.registry.v1`: parse, call, map the error. Nothing else happens here.

mod repositories;
mod transfer;

use std::net::SocketAddr;
use std::sync::Arc;

use orlop_proto::registry::repositories_server::RepositoriesServer;
use orlop_proto::registry::transfer_server::TransferServer;
use orlop_wire::MESSAGE_BYTES_MAX;
use tonic::service::Routes;

use crate::repositories::Repositories;
use crate::transfer::Transfer;

/// The full names of our services, for the health service.
pub const SERVICES: [&str; 2] = [
    "orlop.registry.v1.Transfer",
    "orlop.registry.v1.Repositories",
];

/// Where `/v2/` is, or why it is nowhere.
pub type Where = Result<SocketAddr, String>;

/// All rpcs of the registry.
pub fn routes(transfer: Arc<Transfer>, repositories: Arc<Repositories>, http: Where) -> Routes {
    let transfer = TransferServer::new(transfer::Rpc(transfer))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let repositories = RepositoriesServer::new(repositories::Rpc { repositories, http })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Routes::new(transfer).add_service(repositories)
}
