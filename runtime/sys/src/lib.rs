//! The system calls that rustix and nix do not offer as safe functions, behind safe ones.
//!
//! This is the only crate of the workspace where `unsafe` compiles. It holds no policy: each function
//! is one system call with checked arguments; what they are good for is told where they are called.
#![allow(
    unsafe_code,
    reason = "the one crate where system calls without a safe wrapper are made"
)]

pub mod bpf;
pub mod fs;
pub mod memory;
pub mod mount;
pub mod process;
pub mod seccomp;
pub mod syscalls;

use std::io;

/// The result of a raw system call, or its errno.
fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
