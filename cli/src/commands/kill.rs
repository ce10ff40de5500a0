//! `orlop kill`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::KillRequest;

use super::each::each;
use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Send a signal to containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop kill --signal HUP web")]
pub(crate) struct KillArgs {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,

    /// Signal, by name or number
    #[arg(short, long, default_value = "SIGKILL", value_name = "SIGNAL")]
    signal: String,
}

/// Runs the command.
pub(super) async fn run(args: KillArgs, context: &Context) -> Result<ExitCode, CliError> {
    each(&args.containers, async |name| {
        let request = KillRequest {
            id: name.clone(),
            signal: args.signal.clone(),
        };
        context.clients.containers()?.kill(request).await?;
        ui::line(&name)
    })
    .await
}
