//! The runtime service: containers, their networks, volumes and logs.
//!
//! It never forks into a container: `orlop-shim` does, one process per container, which lives on when
//! this service dies. It never unpacks a layer, parses a Dockerfile or speaks to a registry.
//!
//! - [`containers`]: what containers there are and what is done to them; a file per action.
//! - [`spec`]: from an image's configuration and a request to an OCI runtime-spec document (pure).
//! - [`cgroups`]: where limits are written, on v1 and v2.
//! - [`shim`]: the service's side of the protocol with a shim.
//! - [`network`]: network namespaces, the bridge, published ports.
//! - [`subids`]: ids of the host for containers with a user namespace.
//! - [`volumes`], [`logs`]: directories that outlive containers; what containers wrote.
//! - [`events`]: what happened, for those who watch.
//! - [`runtimes`]: other OCI runtimes that may make a container.
//! - [`host`], [`devices`]: what this process may do, and which devices there are.
//! - [`retry`]: undoing what cannot be undone at once. [`memory`]: giving back what a burst of work needed.
//! - [`index`]: the one file that knows sled; everything in it can be rebuilt from files.
//! - [`grpc`], [`clients`]: the wire, in and out.

pub mod cgroups;
mod clients;
pub mod config;
pub mod containers;
pub mod devices;
pub mod error;
mod events;
mod files;
mod grpc;
pub mod host;
mod index;
mod logs;
mod memory;
pub mod network;
mod retry;
mod runtimes;
mod server;
mod shim;
pub mod spec;
pub mod subids;
mod volumes;

pub use config::Config;
pub use error::{Error, Result};
pub use server::{serve, serve_until};
