//! `orlop save`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use orlop_proto::store::SaveRequest;

use crate::app::Context;
use crate::error::{CliError, file};
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

/// A file under a temporary name, removed unless it is finished.
struct Partial {
    path: PathBuf,
    temporary: PathBuf,
    file: std::fs::File,
    finished: bool,
}

impl Partial {
    fn create(path: PathBuf) -> Result<Self, CliError> {
        let mut name = path.clone().into_os_string();
        name.push(format!(".{}.partial", std::process::id()));
        let temporary = PathBuf::from(name);
        let options = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary);
        Ok(Self {
            file: options.map_err(file("make", &temporary))?,
            path,
            temporary,
            finished: false,
        })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), CliError> {
        self.file
            .write_all(data)
            .map_err(file("write", &self.temporary))
    }

    fn finish(mut self) -> Result<(), CliError> {
        self.file
            .sync_all()
            .map_err(file("write", &self.temporary))?;
        std::fs::rename(&self.temporary, &self.path).map_err(file("name", &self.path))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            drop(std::fs::remove_file(&self.temporary));
        }
    }
}
