//! `orlop unpause`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::UnpauseRequest;

use super::each::each;
use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Let the processes of paused containers go on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop unpause web")]
pub(crate) struct UnpauseArgs {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Runs the command.
pub(super) async fn run(args: UnpauseArgs, context: &Context) -> Result<ExitCode, CliError> {
    each(&args.containers, async |name| {
        let request = UnpauseRequest { id: name.clone() };
        context.clients.containers()?.unpause(request).await?;
        ui::line(&name)
    })
    .await
}
