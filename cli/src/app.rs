//! The root of the arguments, and the frame around a command.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::clients::Clients;
use crate::commands::{self, Command};
use crate::config::{Config, GlobalArgs};
use crate::error::CliError;
use crate::ui;

/// Docker's exit code for arguments that cannot be understood.
const USAGE: u8 = 125;

/// Build, store, run and ship containers
#[derive(Debug, clap::Parser)]
#[command(
    name = "orlop",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:\n  orlop run --rm -it busybox sh"
)]
pub(crate) struct App {
    #[command(flatten)]
    global: GlobalArgs,

    #[command(subcommand)]
    command: Command,
}

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) clients: Clients,
}

/// Parses the arguments, runs the command, reports its error; returns the exit code.
pub fn main() -> ExitCode {
    let app = match parse() {
        Ok(app) => app,
        Err(error) => return usage(&error),
    };
    let result = run(app).and_then(|code| ui::flush().map(|()| code));
    result.unwrap_or_else(|error| {
        if !error.is_silent() {
            ui::report(&error);
        }
        ExitCode::from(error.exit_code())
    })
}

/// The whole tree of commands.
pub(crate) fn command() -> clap::Command {
    let mut command = outline();
    command.build();
    command
}

/// The tree without what is below its commands, until one is parsed.
fn outline() -> clap::Command {
    // Flattened arguments bring descriptions of their own, so ours is set last.
    App::command()
        .about("Build, store, run and ship containers")
        .version(env!("CARGO_PKG_VERSION"))
}

/// Help and errors look at all commands, what is right at one only.
fn parse() -> Result<App, clap::Error> {
    let matches = outline().try_get_matches();
    let mut matches = matches.or_else(|_| command().try_get_matches())?;
    App::from_arg_matches_mut(&mut matches)
}

fn run(app: App) -> Result<ExitCode, CliError> {
    let config = Config::load(&app.global)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(crate::error::system("start the async runtime"))?;
    let context = Context {
        clients: Clients::new(config.clone()),
        config,
    };
    let result = runtime.block_on(commands::run(app.command, &context));
    // Nothing may hold up the end: a read of the terminal cannot be cancelled.
    runtime.shutdown_background();
    result
}

/// Help and version go to standard output; mistakes are told in Docker's words.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => Some(flag),
        _ => None,
    };
    match unknown {
        Some(flag) if flag.starts_with('-') => {
            let name = flag.split('=').next().unwrap_or(flag);
            ui::note(format!("orlop: unknown flag: {}", ui::text::escape(name)));
            let usage = error.get(ContextKind::Usage).map(ToString::to_string);
            ui::note(usage.unwrap_or_default());
        }
        _ => drop(error.print()),
    }
    ExitCode::from(USAGE)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn walk(command: &clap::Command, path: &str, visit: &mut dyn FnMut(&str, &clap::Command)) {
        visit(path, command);
        for child in command.get_subcommands() {
            walk(child, &format!("{path} {}", child.get_name()), visit);
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_with_an_example() {
        let mut seen = 0;
        let mut abouts = std::collections::HashSet::new();
        walk(&command(), "orlop", &mut |path, command| {
            seen += 1;
            let about = command
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(!about.is_empty(), "{path} has no description");
            // The two spellings share theirs; nothing else does.
            if path.matches(' ').count() == 1 {
                assert!(abouts.insert(about.clone()), "{path}: {about}");
            }
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.starts_with("Example:\n  orlop "),
                "{path} has no example: {help:?}"
            );
        });
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn only_what_is_typed_is_declared() {
        let options =
            |root: &clap::Command| root.find_subcommand("run").unwrap().get_opts().count();
        let mut root = outline();
        assert_eq!(options(&root), 0);
        root.try_get_matches_from_mut(["orlop", "ps"]).unwrap();
        assert!(options(&root) < options(&command()));
    }

    #[test]
    fn every_option_has_help() {
        walk(&command(), "orlop", &mut |path, command| {
            for option in command.get_opts() {
                assert!(
                    option.get_help().is_some(),
                    "{path} --{:?}",
                    option.get_id()
                );
            }
        });
    }

    #[test]
    fn flags_after_the_image_are_the_commands() {
        let app =
            App::try_parse_from(["orlop", "run", "--rm", "busybox", "-d", "--rm", "x"]).unwrap();
        let Command::Run(args) = app.command else {
            unreachable!("parsed as run");
        };
        assert_eq!(
            args.0.create.image_and_command,
            ["busybox", "-d", "--rm", "x"]
        );
        assert!(!args.0.detach);
    }

    #[test]
    fn a_flag_that_is_not_built_is_refused() {
        for flag in ["--gpus=all", "--isolation=hyperv"] {
            let error = App::try_parse_from(["orlop", "run", flag, "busybox"]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnknownArgument, "{flag}");
        }
    }

    #[test]
    fn both_spellings_are_the_same() {
        for (short, long) in [
            ("ps", "ls"),
            ("rm", "rm"),
            ("inspect", "inspect"),
            ("run", "run"),
        ] {
            let tail: &[&str] = if short == "ps" { &[] } else { &["x"] };
            for words in [vec!["orlop", short], vec!["orlop", "container", long]] {
                let words = words.into_iter().chain(tail.iter().copied());
                assert!(App::try_parse_from(words).is_ok(), "{long}");
            }
        }
    }
}
