//! `orlop image prune`.

use std::collections::HashSet;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::ListContainersRequest;
use orlop_proto::store::{CollectRequest, DeleteImageRequest};

use super::{images, system};
use crate::app::Context;
use crate::error::CliError;
use crate::ui::{self, size};

/// Remove what no image and no container uses
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop image prune --all --force")]
pub(crate) struct PruneImagesArgs {
    /// Remove every image that no container uses
    #[arg(short, long)]
    all: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Runs the command.
pub(super) async fn run(args: PruneImagesArgs, context: &Context) -> Result<ExitCode, CliError> {
    let what = if args.all {
        "This removes all images that no container uses"
    } else {
        "This removes what no image has a name for"
    };
    if !args.force && !system::confirm(what)? {
        return Ok(ExitCode::SUCCESS);
    }
    if args.all {
        for name in remove_unused(context).await? {
            ui::line(format!("untagged {}", ui::text::escape(&name)))?;
        }
    }
    let request = CollectRequest { dry_run: false };
    let collected = context
        .clients
        .maintenance()?
        .collect(request)
        .await?
        .into_inner();
    ui::line(format!(
        "Total reclaimed space: {}",
        size::human(collected.bytes)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes the names of images that no container was made of; returns them.
pub(super) async fn remove_unused(context: &Context) -> Result<Vec<String>, CliError> {
    let request = ListContainersRequest {
        all: true,
        ..ListContainersRequest::default()
    };
    let containers = context
        .clients
        .containers()?
        .list(request)
        .await?
        .into_inner()
        .containers;
    let used: HashSet<String> = containers.into_iter().map(|c| c.image_id).collect();
    let mut removed = Vec::new();
    for summary in images::all(context).await? {
        let Some(image) = summary.image.filter(|_| !used.contains(&summary.image_id)) else {
            continue;
        };
        let request = DeleteImageRequest {
            name: image.name.clone(),
            expected: image.target.map(|target| target.digest).unwrap_or_default(),
        };
        context.clients.images()?.delete(request).await?;
        removed.push(image.name);
    }
    Ok(removed)
}
