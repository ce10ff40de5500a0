//! The limits of a container: what `create`, `run` and `update` share.

use clap::Args;
use orlop_proto::runtime::Resources;

use crate::error::CliError;
use crate::values::quantity;

// (No doc comment: it would become the description of the commands.)
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub(super) struct LimitOptions {
    /// Most memory, for example 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,

    /// Most memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,

    /// Memory below which the container is not squeezed
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,

    /// Most CPUs, for example 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,

    /// Weight against other containers
    #[arg(short, long, value_name = "NUMBER")]
    cpu_shares: Option<u64>,

    /// CPUs that may be used, for example 0-2
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,

    /// Memory nodes that may be used
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,

    /// Most processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,

    /// CPU time in each period, in microseconds; -1 for no limit
    #[arg(
        long,
        value_name = "MICROSECONDS",
        allow_hyphen_values = true,
        conflicts_with = "cpus"
    )]
    cpu_quota: Option<i64>,

    /// Length of the period of --cpu-quota
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "cpus")]
    cpu_period: Option<u64>,

    /// Weight against other containers on a disk, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    blkio_weight: Option<u32>,
}

impl LimitOptions {
    /// As the contract has them; what was not given is 0, empty or absent.
    pub(super) fn resources(&self) -> Result<Resources, CliError> {
        let memory_swap = match self.memory_swap.as_deref() {
            Some("-1") => -1,
            _ => bytes("--memory-swap", self.memory_swap.as_deref())?,
        };
        Ok(Resources {
            memory: bytes("--memory", self.memory.as_deref())?,
            memory_swap,
            nano_cpus: self.cpus.as_deref().map_or(Ok(0), quantity::nano_cpus)?,
            pids: self.pids_limit,
            cpu_shares: self.cpu_shares.unwrap_or_default(),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
            memory_reservation: bytes("--memory-reservation", self.memory_reservation.as_deref())?,
            cpu_quota: self.cpu_quota.unwrap_or_default(),
            cpu_period: self.cpu_period.unwrap_or_default(),
            blkio_weight: self.blkio_weight.unwrap_or_default(),
            shm_size: 0,
        })
    }
}

fn bytes(option: &'static str, text: Option<&str>) -> Result<i64, CliError> {
    text.map_or(Ok(0), |text| quantity::bytes(option, text))
}
