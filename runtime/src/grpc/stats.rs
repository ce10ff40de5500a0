//! `Stats`: what containers use, once or every second.

use std::time::Duration;

use futures_util::StreamExt as _;
use orlop_proto::runtime as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Answers;
use crate::containers::stats::{Meter, Stats};

/// A percentage needs two measurements; this much lies between the first two.
const FIRST: Duration = Duration::from_millis(500);
const NEXT: Duration = Duration::from_secs(1);

/// Streams what a meter tells, until the caller goes away.
pub(super) fn stream(meter: Meter, more: bool) -> Answers<wire::StatsResponse> {
    let (to_client, from_service) = mpsc::channel(1);
    tokio::spawn(forward(meter, more, to_client));
    ReceiverStream::new(from_service).boxed()
}

async fn forward(
    mut meter: Meter,
    more: bool,
    to: mpsc::Sender<Result<wire::StatsResponse, Status>>,
) {
    meter.measure().await;
    let mut pause = FIRST;
    loop {
        tokio::select! {
            () = to.closed() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let host = host_memory();
        let measured = meter.measure().await;
        let containers = measured.iter().map(|stats| convert(stats, host)).collect();
        let sent = to.send(Ok(wire::StatsResponse { containers })).await;
        if sent.is_err() || !more || meter.is_over() {
            return;
        }
        pause = NEXT;
    }
}

fn convert(stats: &Stats, host: u64) -> wire::ContainerStats {
    let known = wire::ContainerStats {
        id: stats.record.id.clone(),
        name: stats.record.name.clone(),
        cpu_percent: stats.cpu_percent,
        stuck: stats.sample.is_none(),
        ..wire::ContainerStats::default()
    };
    let Some(sample) = stats.sample.filter(|_| stats.record.is_running()) else {
        return known;
    };
    let usage = sample.usage;
    wire::ContainerStats {
        cpu_nanos: usage.cpu_nanos,
        memory_bytes: usage.memory,
        memory_limit: usage.memory_limit.map_or(host, |limit| limit.min(host)),
        pids: usage.pids,
        rx_bytes: sample.rx,
        tx_bytes: sample.tx,
        read_bytes: usage.read,
        write_bytes: usage.written,
        ..known
    }
}

/// Bytes of memory that this host has.
fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    // The kernel's types differ between architectures.
    #[allow(clippy::unnecessary_cast, reason = "not on every architecture")]
    let (pages, unit) = (info.totalram as u64, u64::from(info.mem_unit));
    pages.saturating_mul(unit)
}
