//! `orlop diff`.

use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::DiffContainerRequest;

use crate::app::Context;
use crate::error::CliError;
use crate::ui;

/// Show what a container changed in its file system
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  orlop diff web\n\nA is for added, C for changed, D for deleted."
)]
pub(crate) struct DiffArgs {
    /// Id or name
    container: String,
}

/// Runs the command.
pub(super) async fn run(args: DiffArgs, context: &Context) -> Result<ExitCode, CliError> {
    let request = DiffContainerRequest { id: args.container };
    let changes = context.clients.containers()?.diff(request).await?;
    let mut changes = changes.into_inner();
    while let Some(change) = changes.message().await? {
        // A name that a container chose must not drive the terminal.
        let path = String::from_utf8_lossy(&change.path);
        ui::line(format!("{} {}", change.kind, ui::text::escape(&path)))?;
    }
    Ok(ExitCode::SUCCESS)
}
