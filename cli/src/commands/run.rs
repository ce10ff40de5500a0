//! `orlop run`: create, attach, start, and stay until the end.

mod published;

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{
    AttachStart, CreateResponse, RemoveRequest, StartRequest, attach_request,
};

use super::create::{self, ContainerOptions, Stream};
use crate::app::Context;
use crate::error::CliError;
use crate::stream::{self, Ended, Options};
use crate::ui::{self, terminal};
use crate::values::keys::{self, DetachKeys};

/// Make a container of an image and run a command in it
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "orlop run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    after_help = "Example:\n  orlop run --rm -it busybox sh\n  orlop run -d --name web -p 8080:80 nginx"
)]
pub(crate) struct RunArgs {
    /// Print the container's id and leave it in the background
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// Pass signals on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", value_name = "BOOL")]
    sig_proxy: bool,

    /// Keys that leave the container running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,

    #[command(flatten)]
    pub(crate) create: ContainerOptions,
}

/// Runs the command; its exit code is the container's.
pub(super) async fn run(args: RunArgs, context: &Context) -> Result<ExitCode, CliError> {
    if args.detach && !args.create.attach.is_empty() {
        return Err(CliError::Usage(
            "--attach and --detach exclude one another".to_owned(),
        ));
    }
    let keys = detach_keys(args.detach_keys.as_deref(), context)?;
    let wants_input = wants(&args.create, Stream::Stdin);
    if !args.detach && wants_input && args.create.tty && !terminal::stdin_is_terminal() {
        return Err(CliError::Usage(NOT_A_TERMINAL.to_owned()));
    }
    let ran = async {
        let created = create::create(&args.create, context).await?;
        published::say(&created);
        let ended = if args.detach {
            start(&created, context).await
        } else {
            attach(&args, &created, keys, context).await
        };
        if ended.as_ref().is_err_and(|error| error.kind().is_some()) && args.create.rm {
            discard(&created, context).await;
        }
        ended
    };
    ran.await.map_err(CliError::of_container)
}

/// Docker's words.
pub(super) const NOT_A_TERMINAL: &str =
    "the input device is not a TTY: leave out --tty, or run it in a terminal";

/// The keys of the option, of the environment, or Docker's.
pub(super) fn detach_keys(option: Option<&str>, context: &Context) -> Result<DetachKeys, CliError> {
    let configured = option.or(context.config.detach_keys.as_deref());
    DetachKeys::parse(configured.unwrap_or(keys::DEFAULT))
}

/// The exit code that stands for an end.
pub(super) fn exit_code(ended: Ended) -> ExitCode {
    match ended {
        Ended::Exited(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        Ended::Detached => {
            ui::note("read escape sequence");
            ExitCode::SUCCESS
        }
    }
}

fn wants(args: &ContainerOptions, stream: Stream) -> bool {
    if args.attach.is_empty() {
        stream != Stream::Stdin || args.interactive
    } else {
        args.attach.contains(&stream)
    }
}

async fn start(created: &CreateResponse, context: &Context) -> Result<ExitCode, CliError> {
    let request = StartRequest {
        id: created.id.clone(),
        strict: false,
    };
    context.clients.containers()?.start(request).await?;
    ui::line(&created.id)?;
    Ok(ExitCode::SUCCESS)
}

async fn attach(
    args: &RunArgs,
    created: &CreateResponse,
    keys: DetachKeys,
    context: &Context,
) -> Result<ExitCode, CliError> {
    let start = AttachStart {
        id: created.id.clone(),
        stdin: wants(&args.create, Stream::Stdin),
        stdout: wants(&args.create, Stream::Stdout),
        stderr: wants(&args.create, Stream::Stderr),
        start: true,
        logs: false,
        size: if args.create.tty {
            terminal::size()
        } else {
            None
        },
    };
    let options = Options {
        stdin: start.stdin,
        tty: args.create.tty,
        proxy_signals: args.sig_proxy,
        detach_keys: Some(keys),
    };
    let first = stream::attach(attach_request::Message::Start(start));
    let (requests, outgoing) = stream::requests(first);
    let answers = context
        .clients
        .containers()?
        .attach(outgoing)
        .await?
        .into_inner();
    Ok(exit_code(stream::carry(requests, answers, options).await?))
}

/// A container that never ran is not kept where `--rm` was asked for.
async fn discard(created: &CreateResponse, context: &Context) {
    let request = RemoveRequest {
        id: created.id.clone(),
        force: false,
        volumes: true,
    };
    if let Ok(mut containers) = context.clients.containers() {
        // It is gone already when the service removed it by itself.
        drop(containers.remove(request).await);
    }
}
