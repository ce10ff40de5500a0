//! The real shim with real containers: a root of busybox, cgroups of its own, everything cleaned up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "shim/attach.rs"]
mod attach;
#[path = "shim/files.rs"]
mod files;
#[path = "shim/identity.rs"]
mod identity;
#[path = "shim/isolation.rs"]
mod isolation;
#[path = "shim/lifecycle.rs"]
mod lifecycle;
#[path = "shim/limits.rs"]
mod limits;
#[path = "shim/restart.rs"]
mod restart;
#[path = "shim/support.rs"]
mod support;
