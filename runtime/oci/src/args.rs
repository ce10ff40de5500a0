//! The command line. What other runtimes have and this one does not is refused by its name: it is not
//! here, or [`Unsupported`] says so.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::error::{Error, Result};

/// An OCI runtime.
#[derive(Debug, Parser)]
#[command(name = "orlop-oci", version, long_version = VERSION)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// In the form of runc's, whose callers read it.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

/// What stands before the command or after it.
#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// Directory of the state; on a file system that does not survive a boot
    #[arg(long, global = true, default_value = "/run/orlop-oci")]
    pub(crate) root: PathBuf,
    /// File for errors
    #[arg(long, global = true)]
    pub(crate) log: Option<PathBuf>,
    /// Their form
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) log_format: Format,
    /// Have systemd make the control groups; the specification's path is SLICE:PREFIX:NAME
    #[arg(long, global = true)]
    pub(crate) systemd_cgroup: bool,
}

/// Form of what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line for people
    Text,
    /// JSON
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a container; it waits for its start
    Create(Create),
    /// Start a container that was made
    Start { id: String },
    /// Make a container and start it
    Run {
        #[command(flatten)]
        create: Create,
        /// Do not wait for its end
        #[arg(long, short)]
        detach: bool,
    },
    /// Tell what became of a container
    State { id: String },
    /// Send a signal
    Kill {
        /// To every process of the container
        #[arg(long, short)]
        all: bool,
        id: String,
        #[arg(default_value = "SIGTERM")]
        signal: String,
    },
    /// Remove a container that has ended
    Delete {
        /// Kill it first; one that is not there is no error
        #[arg(long, short)]
        force: bool,
        id: String,
    },
    /// Start one more process in a container
    Exec(Exec),
    /// List the processes of a container
    Ps {
        /// Form of the list
        #[arg(long, short, value_enum, default_value_t = Format::Text)]
        format: Format,
        id: String,
    },
    /// List containers
    List {
        /// Their ids only
        #[arg(long, short)]
        quiet: bool,
        /// Form of the list
        #[arg(long, short, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Give the processes of a container no more time
    Pause { id: String },
    /// Let a paused container go on
    Resume { id: String },
    /// Change the limits of a container
    Update {
        /// File with the resources as JSON; `-`: standard input
        #[arg(long, short)]
        resources: PathBuf,
        id: String,
    },
    /// Tell of a container's counters, and of what is killed in it for want of memory
    Events {
        /// The counters, once
        #[arg(long)]
        stats: bool,
        /// How often the counters are told: 500ms, 5s, 1m
        #[arg(long, default_value = "5s", value_parser = interval)]
        interval: Duration,
        id: String,
    },
    /// Tell what this runtime can do
    Features,
    /// Write a specification to begin with
    Spec {
        /// Directory of the bundle
        #[arg(long, short, default_value = ".")]
        bundle: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Create {
    /// Directory of the bundle
    #[arg(long, short, default_value = ".")]
    pub(crate) bundle: PathBuf,
    #[command(flatten)]
    pub(crate) process: Process,
    #[command(flatten)]
    pub(crate) unsupported: Unsupported,
    pub(crate) id: String,
}

/// What a new process leaves to its caller.
#[derive(Debug, ClapArgs)]
pub(crate) struct Process {
    /// File for the number of the process
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Socket that takes the master of the terminal
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// How many more descriptors of the caller the process gets
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Unsupported {
    #[arg(long, hide = true)]
    no_pivot: bool,
    #[arg(long, hide = true)]
    no_new_keyring: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Exec {
    /// File with the process as JSON
    #[arg(long, short)]
    pub(crate) process: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// With a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Numbers of the user and the group
    #[arg(long, short)]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(long)]
    pub(crate) cwd: Option<PathBuf>,
    /// Variables of the environment
    #[arg(long, short)]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) files: Process,
    pub(crate) id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// A number with its unit.
fn interval(text: &str) -> std::result::Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        _ => return Err("a number with ms, s or m is expected".to_owned()),
    };
    let number = number.parse::<u64>().ok().filter(|number| *number > 0);
    let number = number.and_then(|number| number.checked_mul(millis));
    let interval = number.map(Duration::from_millis);
    interval.ok_or_else(|| "it is not an interval".to_owned())
}

fn refuse(option: &str, given: bool) -> Result<()> {
    match given {
        true => Err(Error::Unsupported(option.to_owned())),
        false => Ok(()),
    }
}

impl Args {
    /// Refuses options that are known and not supported.
    pub(crate) fn check(&self) -> Result<()> {
        let (Command::Create(create) | Command::Run { create, .. }) = &self.command else {
            return Ok(());
        };
        refuse("--no-pivot", create.unsupported.no_pivot)?;
        refuse("--no-new-keyring", create.unsupported.no_new_keyring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_number_with_its_unit() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(interval("1m"), Ok(Duration::from_secs(60)));
        for text in ["", "5", "s", "0s", "-1s", "1h30", "99999999999999999999m"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
