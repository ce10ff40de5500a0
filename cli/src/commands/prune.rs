//! `orlop container prune`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::PruneContainersRequest;

use super::{filters, system};
use crate::app::Context;
use crate::error::CliError;
use crate::ui::{self, size};

/// Remove all containers that do not run
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop container prune --force")]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Only those that fit: label=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Runs the command.
pub(super) async fn run(args: PruneArgs, context: &Context) -> Result<ExitCode, CliError> {
    let filters = filters::parse(&args.filter, &["label"])?;
    if !args.force && !system::confirm("This removes all stopped containers")? {
        return Ok(ExitCode::SUCCESS);
    }
    let request = PruneContainersRequest { filters };
    let pruned = context
        .clients
        .containers()?
        .prune(request)
        .await?
        .into_inner();
    if !pruned.ids.is_empty() {
        ui::line("Deleted Containers:")?;
        for id in &pruned.ids {
            ui::line(ui::text::escape(id))?;
        }
        ui::line("")?;
    }
    ui::line(format!(
        "Total reclaimed space: {}",
        size::human(pruned.bytes)
    ))?;
    Ok(ExitCode::SUCCESS)
}
