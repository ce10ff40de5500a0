//! `orlop wait`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::WaitRequest;

use super::each::each;
use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Wait until containers stop, and print their exit codes
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop wait web")]
pub(crate) struct WaitArgs {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,

    /// What to wait for
    #[arg(long, value_parser = ["not-running", "next-exit", "removed"], default_value = "not-running")]
    condition: String,
}

/// Runs the command.
pub(super) async fn run(args: WaitArgs, context: &Context) -> Result<ExitCode, CliError> {
    each(&args.containers, async |name| {
        let request = WaitRequest {
            id: name,
            condition: args.condition.clone(),
        };
        let ended = context
            .clients
            .containers()?
            .wait(request)
            .await?
            .into_inner();
        ui::line(ended.exit_code.to_string())
    })
    .await
}
