//! `orlop completion`.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use crate::app::{self, Context};
use crate::error::CliError;
use crate::ui;

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orlop completion bash > /etc/bash_completion.d/orlop")]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

/// Runs the command.
pub(super) async fn run(args: CompletionArgs, _: &Context) -> Result<ExitCode, CliError> {
    let shell = match args.shell.as_str() {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut app::command(), "orlop", &mut script);
    ui::raw(&script)?;
    Ok(ExitCode::SUCCESS)
}
