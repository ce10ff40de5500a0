//! `orlop exec`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{ExecStart, Process, exec_request};

use super::run::{NOT_A_TERMINAL, detach_keys, exit_code};
use crate::app::Context;
use crate::error::CliError;
use crate::stream::{self, Options};
use crate::ui::terminal;
use crate::values::env;

/// Run one more command in a running container
#[derive(Debug, Args)]
#[command(
    override_usage = "orlop exec [OPTIONS] CONTAINER COMMAND [ARG...]",
    after_help = "Example:\n  orlop exec -it web sh"
)]
pub(crate) struct ExecArgs {
    /// The container's id or name, and the command with its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARG...]")]
    container_and_command: Vec<String>,

    /// Return at once and leave the command running
    #[arg(short, long)]
    detach: bool,

    /// Send standard input
    #[arg(short, long)]
    interactive: bool,

    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,

    /// Set a variable: NAME=VALUE, or NAME for the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,

    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,

    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,

    /// User (and group) of the process
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// Give the process nearly all power over the host
    #[arg(long)]
    privileged: bool,

    /// Keys that leave the command running
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
}

/// Runs the command; its exit code is the process's.
pub(super) async fn run(args: ExecArgs, context: &Context) -> Result<ExitCode, CliError> {
    let attached = args.interactive && !args.detach;
    if attached && args.tty && !terminal::stdin_is_terminal() {
        return Err(CliError::Usage(NOT_A_TERMINAL.to_owned()));
    }
    let start = start(&args, attached)?;
    let options = Options {
        stdin: attached,
        tty: args.tty,
        proxy_signals: !args.detach,
        detach_keys: Some(detach_keys(args.detach_keys.as_deref(), context)?),
    };
    let (requests, outgoing) = stream::requests(stream::exec(exec_request::Message::Start(start)));
    let mut answers = context
        .clients
        .containers()?
        .exec(outgoing)
        .await?
        .into_inner();
    if args.detach {
        return match answers.message().await? {
            Some(_) => Ok(ExitCode::SUCCESS),
            None => Err(CliError::Contract {
                service: "runtime",
                what: "an exec that neither started nor failed",
            }),
        };
    }
    Ok(exit_code(stream::carry(requests, answers, options).await?))
}

fn start(args: &ExecArgs, attached: bool) -> Result<ExecStart, CliError> {
    let [container, command @ ..] = &args.container_and_command[..] else {
        return Err(CliError::Usage(
            "a container and a command are needed".to_owned(),
        ));
    };
    Ok(ExecStart {
        id: container.clone(),
        process: Some(Process {
            args: command.to_vec(),
            env: env::collect(&args.env_file, &args.env)?,
            cwd: args.workdir.clone().unwrap_or_default(),
            user: args.user.clone().unwrap_or_default(),
            tty: args.tty,
            size: if args.tty { terminal::size() } else { None },
        }),
        stdin: attached,
        detach: args.detach,
        privileged: args.privileged,
    })
}
