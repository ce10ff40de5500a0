//! `orlop commit`.

use std::process::ExitCode;

use clap::{ArgAction, Args};
use orlop_proto::runtime::CommitContainerRequest;

use super::pull;
use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Make an image of a container as it is now
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop commit -m 'with vim' -c 'CMD [\"vim\"]' box debian:vim")]
pub(crate) struct CommitArgs {
    /// Id or name
    container: String,

    /// Name of the image
    #[arg(value_name = "IMAGE")]
    name: Option<String>,

    /// Who made it
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    author: String,

    /// Configure the image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,

    /// Text for the image's history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    message: String,

    /// Hold the container still meanwhile
    #[arg(short, long, num_args = 0..=1, require_equals = true, value_name = "BOOL",
          default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pause: bool,

    /// Do not hold the container still meanwhile
    #[arg(long, conflicts_with = "pause")]
    no_pause: bool,
}

/// Runs the command.
pub(super) async fn run(args: CommitArgs, context: &Context) -> Result<ExitCode, CliError> {
    let name = args.name.as_deref().map(pull::parse).transpose()?;
    let request = CommitContainerRequest {
        id: args.container,
        name: name.map(|name| name.to_string()).unwrap_or_default(),
        author: args.author,
        message: args.message,
        changes: args.change,
        pause: args.pause && !args.no_pause,
    };
    let made = context.clients.containers()?.commit(request).await?;
    ui::line(made.into_inner().image_id)?;
    Ok(ExitCode::SUCCESS)
}
