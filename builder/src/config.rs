//! The service's options: the only place that reads arguments and environment.

use orlop_wire::{Endpoint, Paths, ServiceArgs};

use crate::clients::Endpoints;

/// `orlop-builder`: Dockerfiles to images.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "orlop-builder",
    version,
    about = "The builder service of Orlop"
)]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    pub service: ServiceArgs,

    /// The store [default: its socket in the run directory]
    #[arg(long, value_name = "ENDPOINT")]
    pub store: Option<Endpoint>,

    /// The runtime [default: its socket in the run directory]
    #[arg(long, value_name = "ENDPOINT")]
    pub runtime: Option<Endpoint>,

    /// The registry [default: its socket in the run directory]
    #[arg(long, value_name = "ENDPOINT")]
    pub registry: Option<Endpoint>,
}

impl Config {
    /// The other services.
    pub fn endpoints(&self, paths: &Paths) -> Endpoints {
        let or_socket = |endpoint: &Option<Endpoint>, service: &str| {
            endpoint.clone().unwrap_or_else(|| paths.endpoint(service))
        };
        Endpoints {
            store: or_socket(&self.store, "store"),
            runtime: or_socket(&self.runtime, "runtime"),
            registry: or_socket(&self.registry, "registry"),
        }
    }
}
