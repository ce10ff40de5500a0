//! `orlop export`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::ExportContainerRequest;

use crate::app::Context;
use crate::error::CliError;
use crate::partial::Partial;
use crate::ui;

/// Write a container's file system to a tar archive
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop export -o rootfs.tar web")]
pub(crate) struct ExportArgs {
    /// Id or name
    container: String,

    /// File to write, rather than standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command. A file appears under its name only when it is whole.
pub(super) async fn run(args: ExportArgs, context: &Context) -> Result<ExitCode, CliError> {
    if args.output.is_none() && ui::stdout_is_terminal() {
        return Err(CliError::ArchiveToTerminal);
    }
    let request = ExportContainerRequest { id: args.container };
    let chunks = context.clients.containers()?.export(request).await?;
    let mut chunks = chunks.into_inner();
    let mut partial = args.output.map(Partial::create).transpose()?;
    while let Some(chunk) = chunks.message().await? {
        match &mut partial {
            Some(partial) => partial.write(&chunk.data)?,
            None => ui::raw(&chunk.data)?,
        }
    }
    if let Some(partial) = partial {
        partial.finish()?;
    }
    Ok(ExitCode::SUCCESS)
}
