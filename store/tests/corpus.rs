//! Layers of the real world, there and back: what the store mounts is what GNU tar, Docker and umoci
//! make of the same bytes, attribute for attribute and in both forms, and what it packs is that again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "support/client.rs"]
mod client;
#[path = "support/docker.rs"]
mod docker;
#[path = "support/forms.rs"]
mod forms;
#[path = "support/manifest.rs"]
mod manifest;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;

#[path = "corpus/kinds.rs"]
mod kinds;
#[path = "corpus/large.rs"]
mod large;
#[path = "corpus/odd.rs"]
mod odd;
#[path = "corpus/tools.rs"]
mod tools;
#[path = "corpus/trip.rs"]
mod trip;
