//! `orlop stop`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::StopRequest;

use super::each::each;
use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Stop containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop stop web")]
pub(crate) struct StopArgs {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,

    /// Seconds before the container is killed; -1 to wait for ever
    #[arg(
        short,
        long,
        visible_alias = "timeout",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    time: Option<i32>,

    /// Signal in place of the container's own
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
}

/// Runs the command.
pub(super) async fn run(args: StopArgs, context: &Context) -> Result<ExitCode, CliError> {
    each(&args.containers, async |name| {
        let request = StopRequest {
            id: name.clone(),
            timeout: args.time,
            signal: args.signal.clone().unwrap_or_default(),
        };
        context.clients.containers()?.stop(request).await?;
        ui::line(&name)
    })
    .await
}
