//! `orlop rename`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::RenameRequest;

use crate::app::Context;
use crate::error::CliError;

/// Give a container another name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop rename web web-old")]
pub(crate) struct RenameArgs {
    /// Id or name
    container: String,

    /// The name that it is to have
    new_name: String,
}

/// Runs the command.
pub(super) async fn run(args: RenameArgs, context: &Context) -> Result<ExitCode, CliError> {
    let request = RenameRequest {
        id: args.container,
        name: args.new_name,
    };
    context.clients.containers()?.rename(request).await?;
    Ok(ExitCode::SUCCESS)
}
