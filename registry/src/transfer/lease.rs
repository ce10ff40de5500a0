//! The lease of one transfer.

use std::time::Duration;

use crate::Result;
use crate::names::random_name;
use crate::ports::Store;

/// Longer than any transfer stands still: the lease of one that was killed ends by itself.
const LIFE: Duration = Duration::from_secs(24 * 3600);

/// Keeps what a transfer uses. It ends with the transfer, however that ends.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: String,
    store: Store,
}

impl Lease {
    pub(super) async fn take(store: &Store, purpose: &str) -> Result<Self> {
        let id = format!("{purpose}-{}", random_name()?);
        store.leases.put(&id, LIFE.as_secs()).await?;
        Ok(Self {
            id,
            store: store.clone(),
        })
    }

    pub(super) async fn add(&self, digests: Vec<String>) -> Result<()> {
        Ok(self.store.leases.add(&self.id, digests).await?)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (store, id) = (self.store.clone(), std::mem::take(&mut self.id));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = store.leases.delete(&id).await {
                tracing::warn!(%error, id, "the lease of a transfer stays until it expires");
            }
        });
    }
}
