//! The wire's side: translate, call, map the error.

mod build;
mod cache;

use orlop_proto::builder::build_server::BuildServer;
use orlop_proto::builder::cache_server::CacheServer;
use orlop_wire::MESSAGE_BYTES_MAX;
use tonic::service::Routes;

use crate::build::Builder;

/// The names of the services, for the health service.
pub const SERVICES: [&str; 2] = ["orlop.builder.v1.Build", "orlop.builder.v1.Cache"];

/// Both services.
pub fn routes(builder: &Builder) -> Routes {
    let build = BuildServer::new(build::Build(builder.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let cache = CacheServer::new(cache::Cache(builder.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Routes::new(build).add_service(cache)
}
