//! The builder: a Dockerfile and a context in, an image in the store out.
//!
//! It owns what a Dockerfile means: the language ([`dockerfile`]), the context that a client sends
//! ([`context`]), the graph of steps with keys made of their content ([`plan`]), what of it must be done
//! ([`solve`]), the memory of what was done ([`cache`], [`index`]), and the image ([`export`]). It never
//! touches a file tree and never runs a process: it asks the store and the runtime through [`ports`],
//! whose adapters to the wire are in [`clients`].

pub mod dockerfile;
pub mod redact;
