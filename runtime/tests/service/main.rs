//! The running service, through its socket, with the real shim and real containers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod confinement;
mod lifecycle;
mod recovery;
mod service;
mod store;
mod streams;
mod volumes;
