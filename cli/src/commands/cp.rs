//! `orlop cp`.

mod incoming;
mod outgoing;

use std::process::ExitCode;

use clap::Args;
use orlop_files::{CopyError, Kind};
use orlop_proto::runtime::CopyKind;

use crate::app::Context;
use crate::error::CliError;
use crate::ui::{self, size};

/// Copy files into a container or out of it
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  orlop cp web:/etc/nginx ./nginx\n\nOne of the two is CONTAINER:PATH. - is a tar on standard input or output.\nSOURCE/. is what is in a directory."
)]
pub(crate) struct CpArgs {
    /// What is copied: [CONTAINER:]PATH, or -
    source: String,

    /// Where to: [CONTAINER:]PATH, or -
    destination: String,

    /// Keep owners and set-id bits
    #[arg(short, long)]
    archive: bool,

    /// Copy what a symbolic link points at, rather than the link
    #[arg(short = 'L', long)]
    follow_link: bool,

    /// Do not say what was copied
    #[arg(short, long)]
    quiet: bool,
}

/// How files are copied.
#[derive(Clone, Copy, Debug)]
struct Options {
    archive: bool,
    follow: bool,
}

/// Runs the command.
pub(super) async fn run(args: CpArgs, context: &Context) -> Result<ExitCode, CliError> {
    let options = Options {
        archive: args.archive,
        follow: args.follow_link,
    };
    let (bytes, to) = match (parse(&args.source), parse(&args.destination)) {
        (Some((id, path)), None) => {
            let to = args.destination.as_str();
            let bytes = outgoing::copy(context, (id, path), to, options).await?;
            (bytes.filter(|_| to != "-"), to)
        }
        (None, Some(to)) => {
            let bytes = incoming::copy(context, &args.source, to, options).await?;
            (Some(bytes), args.destination.as_str())
        }
        (Some(_), Some(_)) => {
            let problem = "copying between containers is not supported";
            return Err(refused(args.destination, problem));
        }
        (None, None) => {
            let problem = "one of source and destination must be CONTAINER:PATH";
            return Err(refused(args.destination, problem));
        }
    };
    if let Some(bytes) = bytes.filter(|_| !args.quiet) {
        let size = size::short(bytes);
        ui::note(format!(
            "Successfully copied {size} to {}",
            ui::text::escape(to)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Container and path; `None` for a path of ours: one that begins with a slash or a dot, or has no colon.
fn parse(argument: &str) -> Option<(&str, &str)> {
    if argument.starts_with(['/', '.']) {
        return None;
    }
    argument.split_once(':').filter(|(id, _)| !id.is_empty())
}

/// A path of ours from the root, with its last slash or dot as it was typed.
fn absolute(path: &str) -> Result<Vec<u8>, CliError> {
    if path.is_empty() || path.starts_with('/') {
        return Ok(path.as_bytes().to_vec());
    }
    let here = std::env::current_dir();
    let here = here.map_err(crate::error::system("find the working directory"))?;
    Ok([here.as_os_str().as_encoded_bytes(), b"/", path.as_bytes()].concat())
}

/// Docker's exit code for these is that of a copy that failed.
fn refused(path: String, problem: &'static str) -> CliError {
    CopyError::Refused { path, problem }.into()
}

fn wire_kind(kind: Kind) -> CopyKind {
    match kind {
        Kind::File => CopyKind::File,
        Kind::Directory => CopyKind::Directory,
        Kind::Contents => CopyKind::Contents,
        Kind::Archive => CopyKind::Archive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_parts_a_container_from_its_path() {
        assert_eq!(parse("box:/etc"), Some(("box", "/etc")));
        assert_eq!(parse("box:a:b"), Some(("box", "a:b")));
        assert_eq!(parse("box:"), Some(("box", "")));
        for ours in ["/a:b", "./a:b", "../a:b", "a", "-", ":a"] {
            assert_eq!(parse(ours), None, "{ours}");
        }
    }
}
