//! How much of the disk a container takes: its own snapshot, and the layers below it.

use std::collections::HashMap;

use super::Containers;
use super::record::Record;
use crate::clients::Store;
use crate::error::Result;

/// More layers than any image has (the kernel stacks no more).
const LAYERS_MAX: usize = 512;

/// Bytes of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Its own.
    pub(crate) writable: u64,
    /// With the layers below.
    pub(crate) total: u64,
}

/// What counts containers; it remembers layers, which containers share.
#[derive(Debug)]
pub(crate) struct Sizes {
    store: Store,
    layers: HashMap<String, Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    bytes: u64,
    /// The next one below; empty: none.
    parent: String,
}

impl Containers {
    /// To count containers with.
    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            store: self.parts().store.clone(),
            layers: HashMap::new(),
        }
    }
}

impl Sizes {
    /// Counts one container; absent when its files are gone.
    pub(crate) async fn of(&mut self, record: &Record) -> Option<Size> {
        let counted = self.count(&record.snapshot).await;
        counted
            .inspect_err(|error| tracing::debug!(%error, id = record.id, "not counted"))
            .ok()
    }

    async fn count(&mut self, snapshot: &str) -> Result<Size> {
        let own = self.read(snapshot).await?;
        let mut size = Size {
            writable: own.bytes,
            total: own.bytes,
        };
        let mut below = own.parent;
        for _ in 0..LAYERS_MAX {
            if below.is_empty() {
                break;
            }
            let layer = self.layer(below).await?;
            size.total += layer.bytes;
            below = layer.parent;
        }
        Ok(size)
    }

    async fn layer(&mut self, key: String) -> Result<Layer> {
        if let Some(known) = self.layers.get(&key) {
            return Ok(known.clone());
        }
        let layer = self.read(&key).await?;
        self.layers.insert(key, layer.clone());
        Ok(layer)
    }

    async fn read(&self, key: &str) -> Result<Layer> {
        Ok(Layer {
            bytes: self.store.usage(key).await?,
            parent: self.store.parent(key).await?,
        })
    }
}
