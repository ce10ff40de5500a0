//! The options of the service: the only place that reads them.

use orlop_wire::ServiceArgs;

use crate::layers::form::Form;

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

    /// Be killed at a named moment; see `failpoint.rs`
    #[arg(long, value_name = "NAME[:N]", hide = true)]
    pub failpoint: Option<String>,
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

    /// How much the store may keep in all: above it, what nothing needs goes, the least recently
    /// used first [default: no bound, and what nothing needs goes at each collection]
    #[arg(long, value_name = "MIB")]
    pub budget_mib: Option<u64>,

    /// How layers are kept: `erofs` images, `directory` trees, or `auto`, which asks the kernel
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Auto)]
    pub layers: Form,
}

impl Default for StoreArgs {
    fn default() -> Self {
        Self {
            collect_grace_seconds: 600,
            disk_reserve_mib: 256,
            budget_mib: None,
            layers: Form::Auto,
        }
    }
}
