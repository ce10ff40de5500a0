//! `orlop builder prune`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::builder::PruneCacheRequest;
use orlop_proto::store::CollectRequest;

use super::system;
use crate::app::Context;
use crate::error::CliError;
use crate::ui::{self, size};
use crate::values::{invalid, time};

/// Forget the build cache
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop builder prune --force")]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// All of it (which is also what happens without this option)
    #[arg(short, long)]
    all: bool,

    /// Only what was not used for so long: until=24h
    #[arg(long, value_name = "until=TIME")]
    filter: Option<String>,
}

/// Runs the command.
pub(super) async fn prune(args: PruneArgs, context: &Context) -> Result<ExitCode, CliError> {
    let unused_for_seconds = args.filter.as_deref().map_or(Ok(0), until)?;
    if !args.force && !system::confirm("This removes the build cache")? {
        return Ok(ExitCode::SUCCESS);
    }
    let request = PruneCacheRequest { unused_for_seconds };
    let records = context
        .clients
        .cache()?
        .prune(request)
        .await?
        .into_inner()
        .records;
    let request = CollectRequest { dry_run: false };
    let bytes = context
        .clients
        .maintenance()?
        .collect(request)
        .await?
        .into_inner()
        .bytes;
    ui::line(format!("Deleted build cache records: {records}"))?;
    ui::line(format!("Total reclaimed space: {}", size::human(bytes)))?;
    Ok(ExitCode::SUCCESS)
}

fn until(text: &str) -> Result<u64, CliError> {
    let duration = text.strip_prefix("until=").and_then(time::duration);
    let seconds = duration.and_then(|duration| u64::try_from(duration.as_secs()).ok());
    seconds.ok_or_else(|| {
        invalid(
            "--filter",
            text,
            "expected until=DURATION, for example until=24h",
        )
    })
}
