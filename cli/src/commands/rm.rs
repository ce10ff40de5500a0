//! `orlop rm`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::error::Kind;
use orlop_proto::runtime::RemoveRequest;

use super::each::each;
use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Remove containers
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop rm --force web")]
pub(crate) struct RmArgs {
    /// Ids or names
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,

    /// Kill a running one first; a missing one is no error
    #[arg(short, long)]
    force: bool,

    /// Remove anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
}

/// Runs the command.
pub(super) async fn run(args: RmArgs, context: &Context) -> Result<ExitCode, CliError> {
    each(&args.containers, async |name| {
        let request = RemoveRequest {
            id: name.clone(),
            force: args.force,
            volumes: args.volumes,
        };
        let removed = context.clients.containers()?.remove(request).await;
        match removed.map_err(CliError::from) {
            Ok(_) => ui::line(&name),
            Err(error) if args.force && error.kind() == Some(Kind::NotFound) => {
                ui::report(&error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    })
    .await
}
