//! `orlop save`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::store::SaveRequest;

use crate::app::Context;
use crate::error::CliError;
use crate::partial::Partial;
use crate::ui;

/// Write images to a tar archive
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop save -o app.tar app:v1")]
pub(crate) struct SaveArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,

    /// File to write, rather than standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command. A file appears under its name only when it is whole.
pub(super) async fn run(args: SaveArgs, context: &Context) -> Result<ExitCode, CliError> {
    if args.output.is_none() && ui::stdout_is_terminal() {
        return Err(CliError::ArchiveToTerminal);
    }
    let request = SaveRequest {
        references: args.images,
    };
    let mut chunks = context
        .clients
        .archives()?
        .save(request)
        .await?
        .into_inner();
    let Some(path) = args.output else {
        while let Some(chunk) = chunks.message().await? {
            ui::raw(&chunk.data)?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let mut partial = Partial::create(path)?;
    while let Some(chunk) = chunks.message().await? {
        partial.write(&chunk.data)?;
    }
    partial.finish()?;
    Ok(ExitCode::SUCCESS)
}
