//! `orlop serve`: becomes one service.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::app::Context;
use crate::error::{CliError, file, system};
use crate::services;

/// Heaps of glibc's malloc per process. By default there are eight per core, and each keeps what its
/// threads freed: a store that unpacks ten layers at once then holds 60 MiB, with four heaps 45.
const HEAPS: &str = "4";

/// Run one service in the foreground
#[derive(Debug, Args)]
#[command(
    override_usage = "orlop serve store|runtime|registry|builder [OPTIONS OF THE SERVICE]",
    after_help = "Example:\n  orlop serve store --log debug"
)]
pub(crate) struct ServeArgs {
    /// The service, and its own options (see `orlop serve SERVICE --help`)
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "SERVICE [OPTIONS]"
    )]
    service_and_options: Vec<String>,

    /// Begin a session of its own, for a service that outlives the terminal
    #[arg(long, hide = true)]
    session: bool,
}

/// Replaces this program by the service.
pub(super) async fn run(args: ServeArgs, context: &Context) -> Result<ExitCode, CliError> {
    let Some((service, options)) = args.service_and_options.split_first() else {
        return Err(CliError::Usage("a service is needed".to_owned()));
    };
    if !crate::config::SERVICES.contains(&service.as_str()) {
        return Err(CliError::Usage(format!(
            "unknown service {service:?}; there are store, runtime, registry and builder"
        )));
    }
    if args.session {
        rustix::process::setsid().map_err(system("begin a session"))?;
    }
    let program = services::binary(service)?;
    let error = Command::new(&program)
        .env("ORLOP_ROOT", &context.config.paths.root)
        .env("ORLOP_RUN_DIR", &context.config.paths.run_dir)
        .env("MALLOC_ARENA_MAX", HEAPS)
        .args(options)
        .exec();
    Err(file("run", program)(error))
}
