//! What `inspect` shows: the contract's messages in the shape of Docker's JSON.

pub(crate) mod container;
pub(crate) mod image;
