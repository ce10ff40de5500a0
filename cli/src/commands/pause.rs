//! `orlop pause`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::PauseRequest;

use super::each::each;
use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Freeze all processes of containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop pause web")]
pub(crate) struct PauseArgs {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs the command.
pub(super) async fn run(args: PauseArgs, context: &Context) -> Result<ExitCode, CliError> {
    each(&args.containers, async |name| {
        let request = PauseRequest { id: name.clone() };
        context.clients.containers()?.pause(request).await?;
        ui::line(&name)
    })
    .await
}
