//! The rpcs: parse, call, map the error.

use tonic::service::Routes;

use crate::Store;

/// Full names of the services, for the health service.
pub const SERVICES: [&str; 6] = [
    "orlop.store.v1.Content",
    "orlop.store.v1.Images",
    "orlop.store.v1.Snapshots",
    "orlop.store.v1.Leases",
    "orlop.store.v1.Archives",
    "orlop.store.v1.Maintenance",
];

/// All services of a store.
pub fn routes(_store: &Store) -> Routes {
    Routes::default()
}
