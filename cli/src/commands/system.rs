//! `orlop system df`, `orlop system prune` and `orlop system check`.

pub(super) mod check;

use std::process::ExitCode;

use clap::Args;
use orlop_proto::builder::PruneCacheRequest;
use orlop_proto::runtime::{PruneContainersRequest, PruneNetworksRequest, PruneVolumesRequest};
use orlop_proto::store::CollectRequest;

use super::image_prune;
use crate::app::Context;
use crate::error::CliError;
use crate::ui::{self, size, terminal};
pub(crate) use df::{DfArgs, df};

mod df;

/// Remove stopped containers and what nothing uses
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop system prune --force")]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// Remove every image that no container uses, and the build cache
    #[arg(short, long)]
    all: bool,

    /// Remove anonymous volumes that no container uses, too
    #[arg(long)]
    volumes: bool,
}

/// Removes what is not in use.
pub(super) async fn prune(args: PruneArgs, context: &Context) -> Result<ExitCode, CliError> {
    if !args.force && !confirmed(&args)? {
        return Ok(ExitCode::SUCCESS);
    }
    let containers = context
        .clients
        .containers()?
        .prune(PruneContainersRequest::default())
        .await?;
    for id in &containers.get_ref().ids {
        ui::line(format!("deleted container {id}"))?;
    }
    let mut networks = context.clients.networks()?;
    let request = PruneNetworksRequest::default();
    for name in &networks.prune(request).await?.get_ref().names {
        ui::line(format!("deleted network {}", ui::text::escape(name)))?;
    }
    let mut bytes = containers.get_ref().bytes;
    if args.volumes {
        let request = PruneVolumesRequest {
            all: false,
            filters: Vec::new(),
        };
        let volumes = context
            .clients
            .volumes()?
            .prune(request)
            .await?
            .into_inner();
        for name in &volumes.names {
            ui::line(format!("deleted volume {}", ui::text::escape(name)))?;
        }
        bytes += volumes.bytes;
    }
    if args.all {
        for name in image_prune::remove_unused(context).await? {
            ui::line(format!("untagged {}", ui::text::escape(&name)))?;
        }
        let records = context
            .clients
            .cache()?
            .prune(PruneCacheRequest::default())
            .await?;
        ui::line(format!(
            "deleted {} build cache records",
            records.get_ref().records
        ))?;
    }
    let request = CollectRequest { dry_run: false };
    bytes += context
        .clients
        .maintenance()?
        .collect(request)
        .await?
        .get_ref()
        .bytes;
    ui::line(format!("Total reclaimed space: {}", size::human(bytes)))?;
    Ok(ExitCode::SUCCESS)
}

fn confirmed(args: &PruneArgs) -> Result<bool, CliError> {
    let mut what = String::from(
        "This removes all stopped containers, all networks that no container is in, and everything in the store that nothing uses",
    );
    if args.all {
        what.push_str(", all images that no container uses, and the build cache");
    }
    if args.volumes {
        what.push_str(", and anonymous volumes that no container uses");
    }
    confirm(&what)
}

/// Asks for a yes.
pub(super) fn confirm(what: &str) -> Result<bool, CliError> {
    let answer = terminal::ask(&format!("{what}.\nContinue? [y/N] "))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
