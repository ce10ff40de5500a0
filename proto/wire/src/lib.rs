//! How Orlop's processes talk: where they listen, how they connect, health, reflection, telemetry,
//! drain. If something mentions an image, it is in the wrong crate.
//!
//! A service's `main` is: parse the configuration, [`telemetry::init`], [`Listener::bind`], open its
//! parts, [`serve`]. A client is: [`connect`], then the generated client on the channel.

mod channel;
mod endpoint;
mod handover;
mod listen;
pub mod metrics;
mod paths;
mod serve;
pub mod telemetry;

pub use channel::connect;
pub use endpoint::{Endpoint, EndpointError};
pub use handover::when_free;
pub use listen::{ListenError, Listener};
pub use paths::{PathArgs, Paths};
pub use serve::{ServeError, ServiceArgs, is_local, run, serve, shutdown_signal};

/// The largest message that a service or a client accepts: bytes travel in chunks of at most 1 MiB,
/// lists in pages, and nothing else is large (`SECURITY` section 6.2, input limits).
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What one stream may hold that its reader has not taken yet, at either end.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// The same of all streams of a connection together: so many that nobody reads do not hold up the rest.
const CONNECTION_WINDOW_BYTES: u32 = 256 * STREAM_WINDOW_BYTES;

/// The size of the chunks in which streams of bytes travel.
pub const CHUNK_BYTES: usize = 512 * 1024;
