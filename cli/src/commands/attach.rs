//! `orlop attach`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::error::{Failure, Kind, reason};
use orlop_proto::runtime::{AttachStart, ContainerStatus, InspectRequest, attach_request};

use super::run::{detach_keys, exit_code};
use super::start::{has_tty, takes_stdin};
use crate::app::Context;
use crate::error::CliError;
use crate::stream::{self, Options};
use crate::ui::terminal;

/// Join the standard streams of a running container
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop attach web")]
pub(crate) struct AttachArgs {
    /// Id or name
    container: String,

    /// Do not attach standard input
    #[arg(long)]
    no_stdin: bool,

    /// Pass signals on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", value_name = "BOOL")]
    sig_proxy: bool,

    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
}

/// Runs the command; its exit code is the container's.
pub(super) async fn run(args: AttachArgs, context: &Context) -> Result<ExitCode, CliError> {
    let mut containers = context.clients.containers()?;
    let request = InspectRequest {
        id: args.container.clone(),
        size: false,
    };
    let container = containers.inspect(request).await?.into_inner();
    let state = container.state.clone().unwrap_or_default();
    // Of a paused one the service says so.
    if !matches!(
        state.status(),
        ContainerStatus::Running | ContainerStatus::Paused
    ) {
        return Err(not_running(&args.container));
    }
    let tty = has_tty(&container);
    let options = Options {
        stdin: !args.no_stdin && takes_stdin(&container),
        tty,
        proxy_signals: args.sig_proxy,
        detach_keys: Some(detach_keys(args.detach_keys.as_deref(), context)?),
    };
    let start = AttachStart {
        id: container.id,
        stdin: options.stdin,
        stdout: true,
        stderr: true,
        start: false,
        logs: false,
        size: if tty { terminal::size() } else { None },
    };
    let (requests, outgoing) =
        stream::requests(stream::attach(attach_request::Message::Start(start)));
    let answers = containers.attach(outgoing).await?.into_inner();
    Ok(exit_code(stream::carry(requests, answers, options).await?))
}

fn not_running(name: &str) -> CliError {
    CliError::Service(Box::new(Failure {
        kind: Kind::FailedPrecondition,
        message: format!("cannot attach to {name}: the container is not running"),
        reason: reason::NOT_RUNNING.to_owned(),
        hints: vec![format!("start it first: orlop start --attach {name}")],
        metadata: std::collections::HashMap::default(),
    }))
}
