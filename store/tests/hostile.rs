//! What an attacker can give to a store: archives, documents, frames. Each test carries its row's id,
//! and watches a canary outside.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "support/client.rs"]
mod client;
#[path = "support/forms.rs"]
mod forms;
#[path = "support/manifest.rs"]
mod manifest;
#[path = "support/process.rs"]
mod process;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;

#[path = "hostile/breakouts.rs"]
mod breakouts;
#[path = "hostile/documents.rs"]
mod documents;
#[path = "hostile/frames.rs"]
mod frames;
#[path = "hostile/links.rs"]
mod links;
#[path = "hostile/process.rs"]
mod processes;
#[path = "hostile/races.rs"]
mod races;
#[path = "hostile/tree.rs"]
mod tree;
