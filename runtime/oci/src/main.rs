//! `orlop-oci`: the shim's container code behind the command line of OCI runtimes, for dockerd,
//! containerd and podman.
//!
//! [`args`] is that command line and [`commands`] what it does, one file per command. A container is a
//! [`bundle`] that was read, its [`groups`] (in systemd's tree: a [`scope`]), the [`state`] that is kept of it and its [`stats`];
//! [`hooks`], [`console`] and [`inherited`] are how others take part.

mod args;
mod bundle;
mod commands;
mod config;
mod console;
mod error;
mod groups;
mod hooks;
mod inherited;
mod scope;
mod state;
mod stats;
mod sysctls;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let protected = orlop_shim::oci::protect(&config::VARIABLES).map_err(error::Error::from);
    match protected.and_then(|()| commands::run(&args)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            error.report(args.global.log.as_deref(), args.global.log_format);
            ExitCode::FAILURE
        }
    }
}
