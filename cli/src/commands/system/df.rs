//! `orlop system df`.

use std::collections::HashSet;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::builder::{CacheUsageRequest, CacheUsageResponse};
use orlop_proto::runtime::{
    Container, ContainerStatus, ListContainersRequest, ListVolumesRequest, Volume,
};
use orlop_proto::store::{DiskUsageRequest, DiskUsageResponse};

use crate::app::Context;
use crate::error::CliError;
use crate::ui::table::Table;
use crate::ui::{self, size};

/// Show what is on disk
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop system df")]
pub(crate) struct DfArgs {
    /// Each volume, too
    #[arg(short, long)]
    verbose: bool,
}

/// A line of the table; what is not known or means nothing is a dash.
struct Row {
    kind: &'static str,
    total: Option<u64>,
    active: Option<usize>,
    bytes: Option<u64>,
    reclaimable: Option<u64>,
}

/// Shows disk usage.
pub(crate) async fn df(args: DfArgs, context: &Context) -> Result<ExitCode, CliError> {
    let mut maintenance = context.clients.maintenance()?;
    let usage = maintenance.disk_usage(DiskUsageRequest {}).await?;
    let usage = usage.into_inner();
    let mut cache = context.clients.cache()?;
    let cache = cache.usage(CacheUsageRequest {}).await?.into_inner();
    let request = ListContainersRequest {
        all: true,
        ..ListContainersRequest::default()
    };
    let containers = context.clients.containers()?.list(request).await?;
    let containers = containers.into_inner().containers;
    let request = ListVolumesRequest {
        usage: true,
        filters: Vec::new(),
    };
    let volumes = context.clients.volumes()?.list(request).await?;
    let volumes = volumes.into_inner().volumes;
    let [blobs, layers, uploads] = parts(&usage);
    let rows = [
        images(&usage, &containers),
        running(&usage, &containers),
        local_volumes(&volumes),
        build_cache(&cache),
        blobs,
        layers,
        uploads,
    ];
    let mut table = Table::new(["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    rows.iter().for_each(|row| table.row(row.cells()));
    table.print()?;
    if usage.budget_bytes > 0 {
        let all = usage.blob_bytes + usage.layer_bytes + usage.snapshot_bytes + usage.ingest_bytes;
        let (all, budget) = (size::human(all), size::human(usage.budget_bytes));
        ui::line(format!("Budget: {all} of {budget}"))?;
    }
    if args.verbose {
        each_volume(&volumes)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn each_volume(volumes: &[Volume]) -> Result<(), CliError> {
    ui::line("\nLocal Volumes space usage:\n")?;
    let mut table = Table::new(["VOLUME NAME", "LINKS", "SIZE"]);
    for volume in volumes {
        table.row([
            volume.name.clone(),
            volume.containers.to_string(),
            size::human(volume.bytes()),
        ]);
    }
    table.print()
}

fn local_volumes(volumes: &[Volume]) -> Row {
    let unused = volumes.iter().filter(|volume| volume.containers == 0);
    let unused: Vec<u64> = unused.map(Volume::bytes).collect();
    Row {
        total: Some(volumes.len() as u64),
        active: Some(volumes.len() - unused.len()),
        bytes: Some(volumes.iter().map(Volume::bytes).sum()),
        reclaimable: Some(unused.iter().sum()),
        ..Row::of("Local Volumes")
    }
}

fn images(usage: &DiskUsageResponse, containers: &[Container]) -> Row {
    let used: HashSet<&str> = containers.iter().map(|c| c.image_id.as_str()).collect();
    Row {
        total: Some(usage.images),
        active: Some(used.len()),
        bytes: Some(usage.blob_bytes + usage.layer_bytes),
        reclaimable: Some(usage.reclaimable_bytes),
        ..Row::of("Images")
    }
}

fn running(usage: &DiskUsageResponse, containers: &[Container]) -> Row {
    let running = containers.iter().filter(|container| {
        let state = container.state.as_ref();
        state.is_some_and(|state| {
            matches!(
                state.status(),
                ContainerStatus::Running | ContainerStatus::Paused
            )
        })
    });
    Row {
        total: Some(containers.len() as u64),
        active: Some(running.count()),
        bytes: Some(usage.snapshot_bytes),
        ..Row::of("Containers")
    }
}

fn build_cache(cache: &CacheUsageResponse) -> Row {
    Row {
        total: Some(cache.records),
        bytes: Some(cache.bytes),
        ..Row::of("Build Cache")
    }
}

/// What the images consist of, and what is on its way to them.
fn parts(usage: &DiskUsageResponse) -> [Row; 3] {
    let row = |kind, total, bytes| Row {
        total,
        bytes: Some(bytes),
        ..Row::of(kind)
    };
    [
        row("Blobs", Some(usage.blobs), usage.blob_bytes),
        row("Layers", Some(usage.layers), usage.layer_bytes),
        row("Uploads", None, usage.ingest_bytes),
    ]
}

impl Row {
    fn of(kind: &'static str) -> Self {
        Self {
            kind,
            total: None,
            active: None,
            bytes: None,
            reclaimable: None,
        }
    }

    fn cells(&self) -> [String; 5] {
        let dash = || "-".to_owned();
        let whole = self.bytes.unwrap_or_default();
        [
            self.kind.to_owned(),
            self.total.map_or_else(dash, |total| total.to_string()),
            self.active.map_or_else(dash, |active| active.to_string()),
            self.bytes.map_or_else(dash, size::human),
            self.reclaimable
                .map_or_else(dash, |part| part_of(part, whole)),
        ]
    }
}

/// As Docker writes it: a size, and how much of the whole it is.
fn part_of(part: u64, whole: u64) -> String {
    let size = size::human(part);
    match part.saturating_mul(100).checked_div(whole) {
        Some(percent) => format!("{size} ({percent}%)"),
        None => size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_reclaimed_is_a_part_of_the_whole() {
        assert_eq!(part_of(500, 2000), format!("{} (25%)", size::human(500)));
        assert_eq!(part_of(0, 0), size::human(0));
    }
}
