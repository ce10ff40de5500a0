//! The builder: a Dockerfile and a context in, an image in the store out.
//!
//! It owns what a Dockerfile means: the language ([`dockerfile`]), the context that a client sends
//! ([`context`]), the graph of steps with keys made of their content ([`plan`]), what of it must be done
//! ([`solve`]), the memory of what was done ([`cache`], [`index`]), and the image ([`export`]). It never
//! touches a file tree and never runs a process: it asks the store and the runtime through [`ports`],
//! whose adapters to the wire are in [`clients`].

pub mod build;
pub mod cache;
pub mod clients;
pub mod config;
pub mod context;
pub mod dockerfile;
pub mod error;
pub mod events;
pub mod export;
pub mod flight;
pub mod grpc;
pub mod image;
pub mod index;
pub mod lease;
pub mod ops;
pub mod plan;
pub mod ports;
pub mod redact;
pub mod server;
pub mod solve;

/// A name that nobody else has: the prefix and 32 random hexadecimal digits.
pub(crate) fn random_id(prefix: &str) -> String {
    let mut bytes = [0u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // No entropy: the address of a fresh allocation and the time still tell two builds apart.
        let now = std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_nanos());
        bytes = now.to_le_bytes();
    }
    format!("{prefix}-{}", hex::encode(bytes))
}
