//! The registry service: moves images between the store and any OCI registry, and serves the store's
//! own repositories over the OCI distribution specification (`/v2/`). It keeps no bytes of its own:
//! blobs are the store's; what is kept here is which repository may see which blob.
//!
//! - [`v2`]: the HTTP side, for any client of the distribution specification.
//! - [`repositories`]: membership, manifests, tags, uploads: durable files, with [`index`] over them.
//! - [`transfer`]: pull and push; [`remote`] is the client of other registries that they use.
//! - [`manifest`], [`names`]: strict parsers of what comes from outside.
//! - [`ports`]: what is asked of the store; [`clients`] asks it over gRPC.
//! - [`grpc`]: the contract, translated.

pub mod clients;
pub mod config;
pub mod error;
pub mod grpc;
pub mod index;
pub mod manifest;
pub mod names;
pub mod ports;
pub mod remote;
pub mod repositories;
pub mod server;
pub mod transfer;
pub mod v2;

pub use config::Config;
pub use error::{Error, Result};
