//! The ports on the wire: gRPC clients of the store, the runtime and the registry. They translate only.

mod exec;
mod store;

use std::sync::Arc;

use orlop_wire::{Endpoint, connect};

use crate::ports::Ports;

/// Where the other services are.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// The store.
    pub store: Endpoint,
    /// The runtime.
    pub runtime: Endpoint,
    /// The registry.
    pub registry: Endpoint,
}

/// Ports over channels that connect at their first use.
pub fn ports(endpoints: &Endpoints) -> Ports {
    let store = Arc::new(store::Store::new(connect(&endpoints.store)));
    Ports {
        layers: store.clone(),
        content: store.clone(),
        images: store.clone(),
        leases: store,
        exec: Arc::new(exec::Runtime::new(connect(&endpoints.runtime))),
        pull: Arc::new(exec::Registry::new(connect(&endpoints.registry))),
    }
}
