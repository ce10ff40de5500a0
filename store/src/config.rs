//! The options of the service: the only place that reads them.

use orlop_wire::ServiceArgs;

/// Keeps blobs, image names, snapshots and leases.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "orlop-store", version)]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    pub service: ServiceArgs,

    /// The store's own.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// The store's own options.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct StoreArgs {
    /// How long a blob that no image and no lease needs stays after somebody last wanted it, and a
    /// committed snapshot after it was made
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub collect_grace_seconds: u32,

    /// How much of the disk is kept free
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub disk_reserve_mib: u32,
}

impl Default for StoreArgs {
    fn default() -> Self {
        Self {
            collect_grace_seconds: 600,
            disk_reserve_mib: 256,
        }
    }
}
