//! `orlop pull`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::reference::Reference;
use orlop_proto::registry::transfer_event::Event;
use orlop_proto::registry::{PullRequest, TransferResult};
use orlop_proto::types::{Credential, Platform};

use crate::app::Context;
use crate::docker_config::DockerConfig;
use crate::error::CliError;
use crate::ui::{self, progress};
use crate::values::quantity;

/// Fetch an image from a registry
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop pull busybox:1.36")]
pub(crate) struct PullArgs {
    /// The image: [HOST[:PORT]/]NAME[:TAG][@DIGEST]
    image: String,

    /// Platform, for example linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,

    /// Print the image's name only
    #[arg(short, long)]
    quiet: bool,

    /// Allow plain HTTP to this registry though it is not on loopback
    #[arg(long)]
    insecure: bool,
}

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    OnStandardOutput,
    OnStandardError,
    Nothing,
}

/// How to pull.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) platform: Option<Platform>,
    pub(super) insecure: bool,
    pub(super) show: Show,
}

/// Runs the command.
pub(super) async fn run(args: PullArgs, context: &Context) -> Result<ExitCode, CliError> {
    let options = Options {
        platform: args
            .platform
            .as_deref()
            .map(quantity::platform)
            .transpose()?,
        insecure: args.insecure,
        show: if args.quiet {
            Show::Nothing
        } else {
            Show::OnStandardOutput
        },
    };
    let result = pull(&args.image, options, context).await?;
    ui::line(ui::text::escape(&result.name))?;
    Ok(ExitCode::SUCCESS)
}

/// Pulls an image into the store.
pub(super) async fn pull(
    image: &str,
    options: Options,
    context: &Context,
) -> Result<TransferResult, CliError> {
    let reference = parse(image)?;
    let credential = credential(&reference, context)?;
    context.clients.need(&["store"])?;
    let request = PullRequest {
        reference: image.to_owned(),
        platform: options.platform,
        credential,
        insecure: options.insecure,
    };
    let mut events = context
        .clients
        .transfer()?
        .pull(request)
        .await?
        .into_inner();
    let target = match options.show {
        Show::OnStandardError => progress::Target::StandardError,
        Show::OnStandardOutput | Show::Nothing => progress::Target::StandardOutput,
    };
    let shown = options.show != Show::Nothing;
    let mut view =
        progress::TransferView::new(target, progress::Direction::Pull, context.config.plain);
    if shown {
        view.line(&format!(
            "{}: Pulling from {}",
            reference.target(),
            reference.repository()
        ))?;
    }
    let mut result = None;
    while let Some(message) = events.message().await? {
        match message.event {
            Some(Event::Progress(update)) if shown => view.update(&update)?,
            Some(Event::Result(done)) => result = Some(done),
            _ => {}
        }
    }
    view.finish();
    let result = result.ok_or(CliError::Lost {
        service: "registry",
        consequence: "the image was not pulled",
    })?;
    if shown {
        summarize(&view, &result, &reference)?;
    }
    Ok(result)
}

fn summarize(
    view: &progress::TransferView,
    result: &TransferResult,
    reference: &Reference,
) -> Result<(), CliError> {
    if let Some(target) = &result.target {
        view.line(&format!("Digest: {}", target.digest))?;
    }
    let what = if result.up_to_date {
        "Image is up to date"
    } else {
        "Downloaded newer image"
    };
    view.line(&format!("Status: {what} for {}", reference.familiar()))
}

/// The reference that a person typed.
pub(super) fn parse(image: &str) -> Result<Reference, CliError> {
    Ok(image.parse()?)
}

/// The reference as a person sees it.
pub(super) fn familiar(image: &str) -> Result<String, CliError> {
    Ok(parse(image)?.familiar())
}

/// The login for the reference's registry.
pub(super) fn credential(
    reference: &Reference,
    context: &Context,
) -> Result<Option<Credential>, CliError> {
    let Some(directory) = &context.config.docker_config else {
        return Ok(None);
    };
    let config = DockerConfig::load(Some(directory), &context.config.search_path)?;
    Ok(config.credential(reference.registry())?)
}
