//! The lease of one build: it holds what has no name yet. A build that finds everything done never
//! makes one.

use tokio::sync::OnceCell;

use crate::cache;
use crate::error::{BuildError, Doing as _};
use crate::ports::Ports;

/// How long what an interrupted build made is kept; a build that goes on extends it.
const SECONDS: u64 = 3600;
const EXTEND: std::time::Duration = std::time::Duration::from_secs(SECONDS / 2);

/// The lease.
#[derive(Debug)]
pub struct Lease {
    /// Its id, which is also the build's.
    pub id: String,
    ports: Ports,
    held: OnceCell<Extending>,
}

/// Extends the lease until it is dropped.
#[derive(Debug)]
struct Extending(tokio::task::AbortHandle);

impl Drop for Extending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Lease {
    /// A lease that is not held yet.
    pub fn new(ports: &Ports) -> Self {
        let id = crate::random_id("build");
        Self {
            id,
            ports: ports.clone(),
            held: OnceCell::new(),
        }
    }

    /// Holds it from now on, and sees that the cache's own lease exists.
    pub async fn hold(&self) -> Result<(), BuildError> {
        let holding = self.held.get_or_try_init(|| async {
            let doing = || "making the build's lease".to_owned();
            let leases = &self.ports.leases;
            let (own, cache) =
                tokio::join!(leases.put(&self.id, SECONDS), leases.put(cache::LEASE, 0));
            own.and(cache).doing(doing)?;
            let (ports, id) = (self.ports.clone(), self.id.clone());
            let task = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(EXTEND).await;
                    if let Err(error) = ports.leases.put(&id, SECONDS).await {
                        tracing::warn!(%id, %error, "cannot extend the lease of a build");
                    }
                }
            });
            Ok(Extending(task.abort_handle()))
        });
        holding.await.map(|_| ())
    }

    /// Ends it. Only a build that succeeded does: another one may share the steps of one that failed,
    /// and the lease then ends by itself.
    pub async fn end(self) {
        if self.held.initialized()
            && let Err(error) = self.ports.leases.delete(&self.id).await
        {
            tracing::warn!(id = %self.id, %error, "cannot end the lease of a build");
        }
    }
}
