//! The shim: the small, single-threaded process that starts one container and stays with it.
//!
//! The library is what the runtime service and the shim must agree on: the [`protocol`] between them
//! and the [`config`] files in the container's directory, and how a root is put together ([`overlay`]).
//! The rest is the binary's.

pub mod config;
pub mod health;
pub mod overlay;
pub mod protocol;
