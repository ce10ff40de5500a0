//! The store: blobs, the names of images, snapshots, leases, archives, and the collection of what
//! nothing needs any more. It runs nothing, and does not know what a Dockerfile is.
//!
//! - [`content`]: blobs by digest. [`images`]: names. [`manifest`]: the parser of what names point at.
//! - [`layers`], [`snapshots`]: file trees. [`archives`]: tars in and out.
//! - [`leases`], [`maintenance`]: what must stay, and what may go.
//! - [`index`]: what is looked up often; it can always be made again from [`files`].
//! - `turns`: who waits for whom, in which order.
//! - [`check`]: whether all of that fits together. [`quarantine`]: what was found damaged.
//! - [`locks`], [`metrics`]: what an operator can see of it.
//! - [`failpoint`]: where a test may kill it.
//! - [`grpc`] translates, and nothing else. [`server`] puts the parts together.

pub mod archives;
pub mod check;
pub mod config;
pub mod content;
pub mod error;
pub mod failpoint;
pub mod files;
pub mod grpc;
pub mod ids;
pub mod images;
pub mod index;
pub mod layers;
pub mod leases;
pub mod locks;
pub mod maintenance;
pub mod manifest;
pub mod metrics;
pub mod quarantine;
pub mod server;
pub mod snapshots;
mod turns;

pub use config::Config;
pub use error::StoreError;
pub use server::Store;
