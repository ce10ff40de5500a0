//! The real thing against the real kernel. Every test has a host of its own: a network namespace, in
//! which threads of the test (and those that they start) live.

mod attach;
mod ipv6;
mod members;
mod names;
mod publish;
mod reconcile;
mod relay;
mod support;
mod user;
