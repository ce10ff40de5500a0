//! `orlop push`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::registry::transfer_event::Event;
use orlop_proto::registry::{PushRequest, TransferResult};

use super::pull;
use crate::app::Context;
use crate::error::CliError;
use crate::ui::{self, progress};

/// Send an image to a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop push 127.0.0.1:5000/app:v1")]
pub(crate) struct PushArgs {
    /// The image: [HOST[:PORT]/]NAME[:TAG]
    image: String,

    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,

    /// Allow plain HTTP to this registry though it is not on loopback
    #[arg(long)]
    insecure: bool,
}

/// Runs the command.
pub(super) async fn run(args: PushArgs, context: &Context) -> Result<ExitCode, CliError> {
    let reference = pull::parse(&args.image)?;
    let request = PushRequest {
        reference: args.image.clone(),
        credential: pull::credential(&reference, context)?,
        insecure: args.insecure,
    };
    context.clients.need(&["store"])?;
    let mut events = context
        .clients
        .transfer()?
        .push(request)
        .await?
        .into_inner();
    let target = progress::Target::StandardOutput;
    let mut view =
        progress::TransferView::new(target, progress::Direction::Push, context.config.plain);
    if !args.quiet {
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        view.line(&format!("The push refers to repository [{repository}]"))?;
    }
    let mut result = None;
    while let Some(message) = events.message().await? {
        match message.event {
            Some(Event::Progress(update)) if !args.quiet => view.update(&update)?,
            Some(Event::Result(done)) => result = Some(done),
            _ => {}
        }
    }
    view.finish();
    let result = result.ok_or(CliError::Lost {
        service: "registry",
        consequence: "the image may not be at the registry",
    })?;
    if args.quiet {
        ui::line(reference.to_string())?;
    } else {
        summarize(&view, &result, reference.target())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn summarize(
    view: &progress::TransferView,
    result: &TransferResult,
    tag: &str,
) -> Result<(), CliError> {
    let target = result.target.clone().unwrap_or_default();
    view.line(&format!(
        "{tag}: digest: {} size: {}",
        target.digest, target.size
    ))
}
