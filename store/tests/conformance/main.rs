//! The contract of the store as tests that speak nothing but the contract, each run three ways: the
//! real store within this process, the real store through a Unix socket, and a second, simple
//! implementation in memory that exists to prove the tests.
//!
//! A case is an `async fn` of a [`reach::Subject`]. `conforms!` runs it all three ways;
//! `conforms_on_a_host!` only against the real store, for what is about files and mounts of the host.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

use reach::Way;

macro_rules! conforms {
    ($($case:ident),+ $(,)?) => {
        $(mod $case {
            #[test]
            fn in_process() {
                crate::reach::run(crate::Way::InProcess, super::$case);
            }

            #[test]
            fn through_a_socket() {
                crate::reach::run(crate::Way::Socket, super::$case);
            }

            #[test]
            fn in_memory() {
                crate::reach::run(crate::Way::Memory, super::$case);
            }
        })+
    };
}

macro_rules! conforms_on_a_host {
    ($($case:ident),+ $(,)?) => {
        $(mod $case {
            #[test]
            fn in_process() {
                crate::reach::run(crate::Way::InProcess, super::$case);
            }

            #[test]
            fn through_a_socket() {
                crate::reach::run(crate::Way::Socket, super::$case);
            }
        })+
    };
}

mod archives;
mod calls;
mod content;
mod diffs;
mod images;
mod ingests;
mod leases;
mod maintenance;
mod memory;
mod names;
mod operations;
mod reach;
#[path = "../support/smith.rs"]
mod smith;
mod snapshots;
mod unpack;
mod words;
