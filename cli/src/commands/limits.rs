//! The limits of a container: what `create`, `run` and `update` share.

use clap::Args;
use orlop_proto::runtime::{DeviceLimit, Resources};

use crate::error::CliError;
use crate::values::{device, quantity};

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
            ..Resources::default()
        })
    }
}

// What `create` and `run` have beside. (No doc comment, as above.)
#[derive(Clone, Debug, Default, Args)]
pub(super) struct DiskOptions {
    /// Weight against other containers on one disk: DEVICE:WEIGHT, 10 to 1000
    #[arg(long, value_name = "LIMIT")]
    blkio_weight_device: Vec<String>,

    /// Most bytes a second that are read from a disk, for example /dev/sda:10mb
    #[arg(long, value_name = "LIMIT")]
    device_read_bps: Vec<String>,

    /// Most reads of a disk a second, for example /dev/sda:500
    #[arg(long, value_name = "LIMIT")]
    device_read_iops: Vec<String>,

    /// Most bytes a second that are written to a disk
    #[arg(long, value_name = "LIMIT")]
    device_write_bps: Vec<String>,

    /// Most writes to a disk a second
    #[arg(long, value_name = "LIMIT")]
    device_write_iops: Vec<String>,
}

impl DiskOptions {
    /// Adds what was given to the other limits.
    pub(super) fn apply(&self, limits: &mut Resources) -> Result<(), CliError> {
        let numbers = |option, texts: &[String]| all(texts, |text| device::limit(option, text));
        let sizes = |option, texts: &[String]| all(texts, |text| device::rate(option, text));
        limits.blkio_weight_device = numbers("--blkio-weight-device", &self.blkio_weight_device)?;
        limits.device_read_bps = sizes("--device-read-bps", &self.device_read_bps)?;
        limits.device_write_bps = sizes("--device-write-bps", &self.device_write_bps)?;
        limits.device_read_iops = numbers("--device-read-iops", &self.device_read_iops)?;
        limits.device_write_iops = numbers("--device-write-iops", &self.device_write_iops)?;
        Ok(())
    }
}

fn all(
    texts: &[String],
    parse: impl Fn(&str) -> Result<DeviceLimit, CliError>,
) -> Result<Vec<DeviceLimit>, CliError> {
    texts.iter().map(|text| parse(text)).collect()
}

fn bytes(option: &'static str, text: Option<&str>) -> Result<i64, CliError> {
    text.map_or(Ok(0), |text| quantity::bytes(option, text))
}
