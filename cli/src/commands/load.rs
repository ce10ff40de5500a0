//! `orlop load`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use orlop_proto::reference::Reference;
use orlop_proto::store::LoadRequest;

use crate::app::Context;
use crate::error::{CliError, file};
use crate::ui;
use crate::upload;

/// Read images from a tar archive
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop load -i app.tar")]
pub(crate) struct LoadArgs {
    /// File to read, rather than standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Print nothing but names
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
pub(super) async fn run(args: LoadArgs, context: &Context) -> Result<ExitCode, CliError> {
    let source = open(args.input.as_deref())?;
    let (chunks, failure) = upload::stream(source, None, |data| LoadRequest { data });
    let loaded = context.clients.archives()?.load(chunks).await;
    failure.check()?;
    let loaded = loaded?.into_inner();
    let label = |text: &str| {
        if args.quiet {
            String::new()
        } else {
            format!("{text}: ")
        }
    };
    for image in &loaded.images {
        let shown = image.name.parse::<Reference>();
        let shown = shown.map_or_else(|_| image.name.clone(), |reference| reference.familiar());
        ui::line(format!(
            "{}{}",
            label("Loaded image"),
            ui::text::escape(&shown)
        ))?;
    }
    for digest in &loaded.unnamed {
        ui::line(format!(
            "{}{}",
            label("Loaded image ID"),
            ui::text::escape(digest)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A file, or standard input for none or `-`.
pub(super) fn open(path: Option<&Path>) -> Result<std::fs::File, CliError> {
    match path {
        Some(path) if path != Path::new("-") => {
            std::fs::File::open(path).map_err(file("open", path))
        }
        _ if crate::ui::terminal::stdin_is_terminal() => Err(CliError::Usage(
            "no archive: give a file with --input, or redirect standard input".to_owned(),
        )),
        _ => {
            let stdin = rustix::io::dup(rustix::stdio::stdin());
            Ok(stdin
                .map_err(crate::error::system("read standard input"))?
                .into())
        }
    }
}
