//! `orlop-shim CONTAINER_DIR`: starts the container described there, and stays with it.
//!
//! In the order of a container's life: [`program`] protects the shim's own file, [`shim`] reads the
//! documents, [`container`] is what happens in the container before its command (with [`rootfs`],
//! [`mounts`], [`shared`], [`devices`], [`user`], [`capabilities`], [`seccomp`] and, last, [`process`] or
//! [`init`]),
//! [`supervise`] is the loop beside it (with [`connection`], [`stdio`], [`log`] and [`exit`]), and
//! [`exec`] adds processes.

mod capabilities;
mod cgroup;
mod channel;
mod child;
mod connection;
mod container;
mod copy_up;
mod device_program;
mod devices;
mod error;
mod exec;
mod exit;
mod init;
mod log;
mod mounts;
mod process;
mod program;
mod rootfs;
mod seccomp;
mod shared;
mod shim;
mod stdio;
mod supervise;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(directory), None) = (args.next(), args.next()) else {
        error::note("usage: orlop-shim CONTAINER_DIR (the runtime service starts it)");
        return ExitCode::from(2);
    };
    let directory = PathBuf::from(directory);
    let result = program::protect().and_then(|()| shim::run(&directory));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error::note(&error.message());
            ExitCode::FAILURE
        }
    }
}
