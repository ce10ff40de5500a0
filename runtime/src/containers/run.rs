//! A process that lives as long as one call: what builds use. Its container has no name and is in no
//! list; it is gone when the call ends, however it ends.

use std::sync::Arc;

use orlop_proto::runtime as wire;

use super::start::Streams;
use super::{Container, Containers};
use crate::error::Result;
use crate::shim::Connection;

/// Kills and removes the container when it is dropped.
#[derive(Debug)]
pub(crate) struct OneShot {
    containers: Containers,
    /// The hidden container.
    pub(crate) container: Arc<Container>,
}

impl Containers {
    /// Makes and starts a hidden container, joined to its output.
    pub(crate) async fn run(&self, request: wire::CreateRequest) -> Result<(OneShot, Connection)> {
        let request = wire::CreateRequest {
            auto_remove: false,
            restart: None,
            health: Some(wire::HealthCheck {
                disabled: true,
                ..wire::HealthCheck::default()
            }),
            ..request
        };
        let created = self.create(request, true).await?;
        let shot = OneShot {
            containers: self.clone(),
            container: created.container,
        };
        let streams = Streams {
            stdin: false,
            stdout: true,
            stderr: true,
        };
        let connection = self.attach(&shot.container, streams, true).await?;
        Ok((shot, connection))
    }
}

impl OneShot {
    /// Removes the container now and waits for it, so that the caller may commit its snapshot.
    pub(crate) async fn finish(self) {
        let (containers, container) = (self.containers.clone(), Arc::clone(&self.container));
        remove(containers, container).await;
    }
}

impl Drop for OneShot {
    fn drop(&mut self) {
        if self.container.is_removed() {
            return;
        }
        let (containers, container) = (self.containers.clone(), Arc::clone(&self.container));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(remove(containers, container));
        }
    }
}

async fn remove(containers: Containers, container: Arc<Container>) {
    if let Err(error) = containers.remove(&container, true, true).await {
        let error = orlop_proto::error::chain(&error);
        tracing::warn!(
            id = container.id,
            error,
            "cannot remove a one-shot container"
        );
    }
}
