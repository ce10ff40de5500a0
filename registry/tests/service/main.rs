//! The registry service through its sockets: `/v2/` as any client sees it, the rpcs, and transfers with
//! good and with lying registries. The store is one in memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    missing_debug_implementations,
    reason = "test code"
)]

mod liar;
mod lies;
mod repositories;
mod store;
mod support;
mod transfer;
mod uploads;
mod v2;
