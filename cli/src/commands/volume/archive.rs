//! `orlop volume export` and `orlop volume import`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::runtime::{ExportVolumeRequest, ImportVolumeRequest};

use crate::app::Context;
use crate::commands::load;
use crate::error::CliError;
use crate::partial::Partial;
use crate::{ui, upload};

/// Write a volume's files to a tar archive
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop volume export -o data.tar data")]
pub(crate) struct ExportArgs {
    /// Its name
    volume: String,

    /// File to write, rather than standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Put the files of a tar archive into a volume
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop volume import data data.tar")]
pub(crate) struct ImportArgs {
    /// Its name
    volume: String,

    /// The tar, or - for standard input
    file: PathBuf,
}

/// Writes a volume's files. A file appears under its name only when it is whole.
pub(crate) async fn export(args: ExportArgs, context: &Context) -> Result<ExitCode, CliError> {
    if args.output.is_none() && ui::stdout_is_terminal() {
        return Err(CliError::ArchiveToTerminal);
    }
    let request = ExportVolumeRequest { name: args.volume };
    let chunks = context.clients.volumes()?.export(request).await?;
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

/// Puts files into a volume.
pub(crate) async fn import(args: ImportArgs, context: &Context) -> Result<ExitCode, CliError> {
    let source = load::open(Some(&args.file))?;
    let first = ImportVolumeRequest {
        name: args.volume,
        ..ImportVolumeRequest::default()
    };
    let (chunks, failure) = upload::stream(source, Some(first), |data| ImportVolumeRequest {
        name: String::new(),
        data,
    });
    let imported = context.clients.volumes()?.import(chunks).await;
    failure.check()?;
    imported?;
    Ok(ExitCode::SUCCESS)
}
