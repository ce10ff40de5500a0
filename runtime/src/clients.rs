//! The other services, as far as this one needs them.

mod store;

pub(crate) use store::{Change, ChangeKind, Resolved, Store};
