//! The rpcs: parse, call, map the error.

mod archives;
mod content;
mod images;
mod leases;
mod maintenance;
mod snapshots;
mod streams;
mod values;

use orlop_proto::error::{Classify as _, Kind, to_status};
use orlop_proto::store::archives_server::ArchivesServer;
use orlop_proto::store::content_server::ContentServer;
use orlop_proto::store::images_server::ImagesServer;
use orlop_proto::store::leases_server::LeasesServer;
use orlop_proto::store::maintenance_server::MaintenanceServer;
use orlop_proto::store::snapshots_server::SnapshotsServer;
use orlop_wire::MESSAGE_BYTES_MAX;
use tonic::Status;
use tonic::service::Routes;

use crate::{Store, StoreError};

/// Full names of the services, for the health service.
pub const SERVICES: [&str; 6] = [
    "orlop.store.v1.Content",
    "orlop.store.v1.Images",
    "orlop.store.v1.Snapshots",
    "orlop.store.v1.Leases",
    "orlop.store.v1.Archives",
    "orlop.store.v1.Maintenance",
];

macro_rules! bounded {
    ($server:expr) => {
        $server
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    };
}

/// All services of a store.
pub fn routes(store: &Store) -> Routes {
    let content = content::ContentRpc::new(store.clone());
    let images = images::ImagesRpc::new(store.images.clone(), store.snapshots.clone());
    let leases = leases::LeasesRpc::new(store.leases.clone(), store.maintenance.clone());
    let archives = archives::ArchivesRpc::new(store.archives.clone());
    let maintenance =
        maintenance::MaintenanceRpc::new(store.maintenance.clone(), store.check.clone());
    let snapshots = snapshots::SnapshotsRpc::new(store.snapshots.clone());
    Routes::new(bounded!(ContentServer::new(content)))
        .add_service(bounded!(ImagesServer::new(images)))
        .add_service(bounded!(LeasesServer::new(leases)))
        .add_service(bounded!(ArchivesServer::new(archives)))
        .add_service(bounded!(MaintenanceServer::new(maintenance)))
        .add_service(bounded!(SnapshotsServer::new(snapshots)))
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Status> {
    let rpc = tracing::Span::current();
    match tokio::task::spawn_blocking(move || rpc.in_scope(work)).await {
        Ok(result) => result.map_err(|error| status(&error)),
        Err(_) => Err(Status::internal("the work on this request was interrupted")),
    }
}

/// The error as it travels. Faults of ours are logged here, once.
pub(crate) fn status(error: &StoreError) -> Status {
    let status = to_status(error);
    if matches!(
        error.kind(),
        Kind::Internal | Kind::DataLoss | Kind::ResourceExhausted | Kind::Unavailable
    ) {
        tracing::error!(error = status.message(), "a request failed");
    }
    status
}
