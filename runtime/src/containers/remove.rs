//! Removing containers. The record goes first: what a crash leaves without a record is garbage, and is
//! removed when the service starts.

use std::sync::Arc;

use super::record::{self, MountKind, Record};
use super::state::Action;
use super::{Container, Containers};
use crate::error::{Error, Result, blocking};
use crate::files::{self, Durability};
use crate::retry;

impl Containers {
    /// Removes a container; with `force` it is killed first; with `volumes` its anonymous ones go too.
    pub(crate) async fn remove(
        &self,
        container: &Arc<Container>,
        force: bool,
        volumes: bool,
    ) -> Result<()> {
        let _gate = container.gate.lock().await;
        if container.is_removed() {
            return Err(Error::NoContainer(container.id.clone()));
        }
        if force {
            self.kill_held(container).await?;
        }
        let record = container.record();
        if container.is_removed() {
            // It was to be removed at its exit, which was now.
            return Ok(());
        }
        if record.state.restarting {
            return Err(Error::Restarting(record.title().to_owned()));
        }
        record.next(Action::Remove, "remove")?;
        drop(container.teardown.lock().await);
        self.remove_held(container, volumes).await;
        Ok(())
    }

    /// Removes a container that does not run, for a caller that has its gate. What cannot be removed
    /// now is removed later.
    pub(super) async fn remove_held(&self, container: &Arc<Container>, volumes: bool) {
        let record = container.record();
        self.forget(container);
        self.parts().index.remove(&container.id);
        if let Err(error) = self.erase(&record, container).await {
            tracing::warn!(
                id = container.id,
                error = orlop_proto::error::chain(&error),
                "a removed container has left something behind"
            );
            self.erase_later(&record, container);
        }
        self.tell(&record, "destroy", &[]);
        if volumes {
            self.remove_anonymous(&record).await;
        }
    }

    fn erase_later(&self, record: &Arc<Record>, container: &Arc<Container>) {
        let (this, record) = (self.clone(), Arc::clone(record));
        let container = Arc::clone(container);
        retry::later("remove a container", &container.id.clone(), move || {
            let (this, record) = (this.clone(), Arc::clone(&record));
            let container = Arc::clone(&container);
            async move { this.erase(&record, &container).await }
        });
    }

    /// Whatever of it is gone already is success.
    async fn erase(&self, record: &Record, container: &Container) -> Result<()> {
        let (directory, socket) = (container.directory.clone(), container.socket.clone());
        let durability = record.durability();
        // A change that is just being written would bring the record back.
        let writing = container.writing.lock().await;
        blocking(move || {
            let path = directory.join(record::FILE);
            files::remove_file(&path).map_err(Error::file("remove", path))?;
            if durability == Durability::Power {
                files::sync_directory(&directory).map_err(Error::file("sync", &directory))?;
            }
            files::remove_file(&socket).map_err(Error::file("remove", socket))
        })
        .await?;
        drop(writing);
        if record.owns_snapshot {
            self.parts().store.remove(&record.snapshot).await?;
        }
        let directory = container.directory.clone();
        blocking(move || files::remove_tree(&directory).map_err(Error::file("remove", directory)))
            .await
    }

    async fn remove_anonymous(&self, record: &Record) {
        for mount in &record.mounts {
            let MountKind::Volume {
                name,
                anonymous: true,
                ..
            } = &mount.kind
            else {
                continue;
            };
            // Another container may have been given it by its name.
            match self.remove_volume(name.clone(), true).await {
                Ok(()) | Err(Error::VolumeInUse { .. }) => {}
                Err(error) => tracing::warn!(%error, name, "cannot remove an anonymous volume"),
            }
        }
    }

    /// Removes every container that does not run and passes the filter; answers their ids and the bytes
    /// of their writable layers.
    pub(crate) async fn prune(&self, fits: impl Fn(&Record) -> bool + Send) -> (Vec<String>, u64) {
        let mut removed = Vec::new();
        let mut bytes = 0;
        for record in self.records() {
            if record.is_up() || !fits(&record) {
                continue;
            }
            let Ok(container) = self.find(&record.id) else {
                continue;
            };
            let used = self.parts().store.usage(&record.snapshot).await;
            match self.remove(&container, false, false).await {
                Ok(()) => {
                    bytes += used.unwrap_or_default();
                    removed.push(record.id.clone());
                }
                Err(error) => tracing::debug!(%error, id = record.id, "not pruned"),
            }
        }
        (removed, bytes)
    }
}
