//! The store over gRPC: [`crate::ports`] on the generated clients.

mod content;
mod images;
mod leases;
mod snapshots;

use std::sync::Arc;

use orlop_proto::error::{Failure, Kind};
use orlop_wire::{Endpoint, connect};
use tonic::Status;

use crate::ports::Store;

/// The store at an endpoint. It is reached at the first call, and again after it was restarted.
pub fn store(endpoint: &Endpoint) -> Store {
    let channel = connect(endpoint);
    Store {
        content: Arc::new(content::Remote::new(channel.clone())),
        images: Arc::new(images::Remote::new(channel.clone())),
        leases: Arc::new(leases::Remote::new(channel.clone())),
        snapshots: Arc::new(snapshots::Remote::new(channel)),
    }
}

/// `None` for NOT_FOUND, which is an answer to some questions.
fn found<T>(answer: Result<T, Status>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) => match Failure::from(status) {
            failure if failure.kind == Kind::NotFound => Ok(None),
            failure => Err(failure),
        },
    }
}

/// A size of the contract, where a negative one would be a fault of the store.
fn unsigned(size: i64) -> u64 {
    u64::try_from(size).unwrap_or_default()
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
