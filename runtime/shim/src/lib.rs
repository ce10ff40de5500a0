//! The shim: the small, single-threaded process that starts one container and stays with it.
//!
//! What the runtime service and the shim must agree on is the [`protocol`] between them, the [`config`]
//! files in the container's directory, how a root is put together ([`overlay`]) and how processes are
//! limited ([`cgroups`]), and when a container is started again ([`restart`]). [`oci`] starts
//! containers that somebody else stays with.
//!
//! In the order of a container's life: `program` protects the shim's own file, `shim` reads the
//! documents (with `document`), `container` is what happens in the container before its command (with `rootfs`, `mounts`,
//! `shared`, `devices`, `user`, `userns`, `capabilities`, `seccomp` and, last, `process` or `init`),
//! `supervise` is the loop beside it (with `connection`, `backlog`, `stdio`, `log` and `exit`), and `exec`
//! adds processes. `foreign` has another OCI runtime do what `container` and `exec` do.

mod backlog;
mod capabilities;
mod cgroup;
pub mod cgroups;
mod channel;
mod child;
pub mod config;
mod connection;
mod container;
mod copy_up;
mod device_program;
mod devices;
mod document;
mod error;
mod exec;
mod exit;
mod foreign;
pub mod health;
mod hooks;
mod init;
mod log;
mod lsm;
mod mounts;
pub mod oci;
pub mod overlay;
mod process;
mod program;
pub mod protocol;
pub mod restart;
mod rootfs;
mod seccomp;
mod shared;
mod shim;
mod stdio;
mod supervise;
pub mod sysctls;
mod user;
mod userns;

use std::path::PathBuf;
use std::process::ExitCode;

pub use program::read_only_clone;
/// The option that asks for namespaces in place of a container.
pub use userns::HOLD;

/// The shim's program: `orlop-shim CONTAINER_DIR`, or `orlop-shim --hold-namespaces`: a process in new
/// namespaces of users and of the network, which says so with one byte and stays until its standard
/// input ends.
pub fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(directory), None) = (args.next(), args.next()) else {
        error::note("usage: orlop-shim CONTAINER_DIR (the runtime service starts it)");
        return ExitCode::from(2);
    };
    let result = match directory == userns::HOLD {
        true => userns::hold(),
        false => {
            let directory = PathBuf::from(directory);
            program::protect(&[]).and_then(|()| shim::run(&directory))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error::note(&error.message());
            ExitCode::FAILURE
        }
    }
}
