//! `orlop build`.

mod context;
mod exchange;
mod source;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::builder::build_response::Message;
use orlop_proto::builder::{BuildResult, BuildStart};
use orlop_proto::reference::DOCKER_HUB;
use orlop_proto::types::Credential;

use super::pull;
use crate::app::Context;
use crate::config;
use crate::docker_config::DockerConfig;
use crate::error::{CliError, file};
use crate::ui;
use crate::ui::build::{BuildView, Mode};
use crate::values::{invalid, pair};
use exchange::Exchange;
use source::Source;

/// Build an image from a Dockerfile
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop build -t app:v1 .")]
pub(crate) struct BuildArgs {
    /// Directory of the context, or - for a Dockerfile on standard input and no context
    context: PathBuf,

    /// Name of the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,

    /// The Dockerfile, or - for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Set a build argument: NAME=VALUE, or NAME for the caller's value
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,

    /// Stage to build
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,

    /// Use nothing of the build cache
    #[arg(long)]
    no_cache: bool,

    /// Pull base images even if they are here
    #[arg(long)]
    pull: bool,

    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,

    /// How to show progress
    #[arg(long, value_enum, default_value = "auto", value_name = "MODE")]
    progress: Mode,

    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,

    /// Print the image's id only
    #[arg(short, long)]
    quiet: bool,

    /// Network of RUN: bridge, none or host
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,

    /// Allow plain HTTP to registries of base images though they are not on loopback
    #[arg(long)]
    insecure: bool,
}

/// Runs the command.
pub(super) async fn run(args: BuildArgs, context: &Context) -> Result<ExitCode, CliError> {
    for tag in &args.tag {
        pull::parse(tag)?;
    }
    let source = Source::open(&args.context, args.file.as_deref())?;
    let start = start(&args, &source, context)?;
    context
        .clients
        .need(&["store", "runtime", "registry", "builder"])?;
    let mode = if args.quiet {
        Mode::Quiet
    } else {
        args.progress
    };
    let mut view = BuildView::new(mode, context.config.plain);
    let built = build(start, source, &mut view, context).await;
    view.finish()?;
    let result = built?;
    if let Some(path) = &args.iidfile {
        std::fs::write(path, &result.image_id).map_err(file("write", path))?;
    }
    view.result(&result)?;
    if mode == Mode::Quiet {
        ui::line(&result.image_id)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn build(
    start: BuildStart,
    source: Source,
    view: &mut BuildView,
    context: &Context,
) -> Result<BuildResult, CliError> {
    let (exchange, outgoing) = Exchange::begin(start, source);
    let answers = context.clients.build()?.build(outgoing).await;
    exchange.check()?;
    let mut answers = answers?.into_inner();
    loop {
        let answer = answers.message().await;
        // What went wrong on this side explains what the builder then says.
        exchange.check()?;
        match answer?.and_then(|answer| answer.message) {
            Some(Message::NeedDigests(need)) => exchange.send_digests(need.indices),
            Some(Message::NeedFiles(need)) => exchange.send_files(need.indices),
            Some(Message::Event(event)) => view.event(&event)?,
            Some(Message::Result(result)) => return Ok(result),
            None => {
                return Err(CliError::Lost {
                    service: "builder",
                    consequence: "nothing was built",
                });
            }
        }
    }
}

fn start(args: &BuildArgs, source: &Source, context: &Context) -> Result<BuildStart, CliError> {
    let mut build_args = std::collections::HashMap::new();
    for argument in &args.build_arg {
        if argument.is_empty() || argument.starts_with('=') {
            return Err(invalid(
                "--build-arg",
                argument,
                "a build argument needs a name",
            ));
        }
        match argument.split_once('=') {
            Some((name, value)) => drop(build_args.insert(name.to_owned(), value.to_owned())),
            None => {
                if let Some(value) = config::variable(argument) {
                    build_args.insert(argument.clone(), value);
                }
            }
        }
    }
    let mut mentioned = String::from_utf8_lossy(&source.dockerfile).into_owned();
    mentioned.extend(build_args.values().map(String::as_str));
    Ok(BuildStart {
        dockerfile: source.dockerfile.clone(),
        dockerfile_name: source.dockerfile_name.clone(),
        tags: args.tag.clone(),
        target: args.target.clone().unwrap_or_default(),
        no_cache: args.no_cache,
        pull: args.pull,
        labels: args.label.iter().map(|label| pair(label)).collect(),
        context_id: source.id.clone(),
        credentials: credentials(&mentioned, context)?,
        network: args.network.clone().unwrap_or_default(),
        insecure: args.insecure,
        build_args,
    })
}

/// The logins that the build may need: those whose registry the Dockerfile or a build argument names.
/// Docker Hub needs no mention.
fn credentials(mentioned: &str, context: &Context) -> Result<Vec<Credential>, CliError> {
    let Some(directory) = &context.config.docker_config else {
        return Ok(Vec::new());
    };
    let config = DockerConfig::load(Some(directory), &context.config.search_path)?;
    let mut found = Vec::new();
    for registry in config.registries() {
        if registry == DOCKER_HUB || mentioned.contains(&registry) {
            found.extend(config.credential(&registry)?);
        }
    }
    Ok(found)
}
