//! `orlop rmi`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::error::{Failure, Kind, reason};
use orlop_proto::runtime::{Container, ContainerStatus, ListContainersRequest};
use orlop_proto::store::{CollectRequest, DeleteImageRequest, ResolveImageRequest, ResolvedImage};

use super::each::each;
use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Remove images
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop rmi app:v1")]
pub(crate) struct RmiArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,

    /// Remove an image that stopped containers use, or all names of an id
    #[arg(short, long)]
    force: bool,

    /// Leave the bytes to a later collection
    #[arg(long)]
    no_prune: bool,
}

/// Runs the command.
pub(super) async fn run(args: RmiArgs, context: &Context) -> Result<ExitCode, CliError> {
    let code = each(&args.images, async |name| {
        remove(&name, args.force, context).await
    })
    .await?;
    if !args.no_prune {
        let request = CollectRequest { dry_run: false };
        context.clients.maintenance()?.collect(request).await?;
    }
    Ok(code)
}

async fn remove(typed: &str, force: bool, context: &Context) -> Result<(), CliError> {
    let mut images = context.clients.images()?;
    let request = ResolveImageRequest {
        reference: typed.to_owned(),
        platform: None,
    };
    let image = images.resolve(request).await?.into_inner();
    let names = doomed(typed, &image, force)?;
    let last = names.len() >= image.names.len();
    if last {
        check_unused(typed, &image, force, context).await?;
    }
    for name in &names {
        let request = DeleteImageRequest {
            name: name.clone(),
            expected: image
                .target
                .as_ref()
                .map(|t| t.digest.clone())
                .unwrap_or_default(),
        };
        images.delete(request).await?;
        let shown = name.parse::<orlop_proto::reference::Reference>();
        let shown = shown.map_or_else(|_| name.clone(), |reference| reference.familiar());
        ui::line(format!("Untagged: {}", ui::text::escape(&shown)))?;
    }
    if last && let Some(config) = &image.config {
        ui::line(format!("Deleted: {}", config.digest))?;
    }
    Ok(())
}

/// The names that go: the one that was typed, or with an id its only one (all with force).
fn doomed(typed: &str, image: &ResolvedImage, force: bool) -> Result<Vec<String>, CliError> {
    if !image.name.is_empty() {
        return Ok(vec![image.name.clone()]);
    }
    if image.names.len() > 1 && !force {
        return Err(in_use(
            format!(
                "cannot remove {typed}: it has several names: {}",
                image.names.join(", ")
            ),
            "remove one of the names, or all with --force",
        ));
    }
    Ok(image.names.clone())
}

/// An image that a container uses stays; force helps against stopped ones only.
async fn check_unused(
    typed: &str,
    image: &ResolvedImage,
    force: bool,
    context: &Context,
) -> Result<(), CliError> {
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
    let id = image.config.as_ref().map(|config| config.digest.as_str());
    let running = |c: &Container| {
        c.state.as_ref().is_some_and(|state| {
            matches!(
                state.status(),
                ContainerStatus::Running | ContainerStatus::Paused
            )
        })
    };
    let user = containers
        .iter()
        .find(|c| Some(c.image_id.as_str()) == id && (!force || running(c)));
    let Some(user) = user else { return Ok(()) };
    let (state, hint) = if running(user) {
        ("running", "stop and remove the container first")
    } else {
        ("stopped", "remove the container first, or use --force")
    };
    let short = ui::text::short_id(&user.id);
    Err(in_use(
        format!("cannot remove {typed}: the {state} container {short} uses it"),
        hint,
    ))
}

fn in_use(message: String, hint: &str) -> CliError {
    CliError::Service(Box::new(Failure {
        kind: Kind::FailedPrecondition,
        message,
        reason: reason::IN_USE.to_owned(),
        hints: vec![hint.to_owned()],
        metadata: std::collections::HashMap::default(),
    }))
}
