//! `orlop start`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{AttachStart, Container, InspectRequest, StartRequest, attach_request};

use super::each::each;
use super::run::{detach_keys, exit_code};
use crate::app::Context;
use crate::error::CliError;
use crate::stream::{self, Options};
use crate::ui::{self, terminal};

/// Start containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop start web")]
pub(crate) struct StartArgs {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,

    /// Attach the output, and stay until the end
    #[arg(short, long)]
    attach: bool,

    /// Attach standard input too
    #[arg(short, long)]
    interactive: bool,

    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: StartArgs, context: &Context) -> Result<ExitCode, CliError> {
    context.clients.need(&["store", "runtime"])?;
    if args.attach || args.interactive {
        return attached(&args, context).await;
    }
    each(&args.containers, async |name| {
        let request = StartRequest {
            id: name.clone(),
            strict: false,
        };
        context.clients.containers()?.start(request).await?;
        ui::line(&name)
    })
    .await
}

async fn attached(args: &StartArgs, context: &Context) -> Result<ExitCode, CliError> {
    let [name] = &args.containers[..] else {
        return Err(CliError::Usage(
            "only one container can be started and attached at once".to_owned(),
        ));
    };
    let mut containers = context.clients.containers()?;
    let request = InspectRequest {
        id: name.clone(),
        size: false,
    };
    let container = containers.inspect(request).await?.into_inner();
    let tty = has_tty(&container);
    let options = Options {
        stdin: args.interactive && takes_stdin(&container),
        tty,
        proxy_signals: true,
        detach_keys: Some(detach_keys(args.detach_keys.as_deref(), context)?),
    };
    let start = AttachStart {
        id: container.id,
        stdin: options.stdin,
        stdout: true,
        stderr: true,
        start: true,
        logs: false,
        size: if tty { terminal::size() } else { None },
    };
    let (requests, outgoing) =
        stream::requests(stream::attach(attach_request::Message::Start(start)));
    let answers = containers.attach(outgoing).await?.into_inner();
    Ok(exit_code(stream::carry(requests, answers, options).await?))
}

/// Whether the container's process has a terminal.
pub(super) fn has_tty(container: &Container) -> bool {
    container
        .process
        .as_ref()
        .is_some_and(|process| process.tty)
}

/// Whether the container keeps its standard input open.
pub(super) fn takes_stdin(container: &Container) -> bool {
    container
        .config
        .as_ref()
        .is_some_and(|config| config.open_stdin)
}
