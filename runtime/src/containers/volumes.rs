//! The volumes of a container that have to be mounted while it runs.

use super::Containers;
use super::record::{MountKind, Record};
use crate::error::{Result, blocking};

impl Containers {
    /// Mounts what has to be; on error whoever starts it takes that back.
    pub(super) async fn mount_volumes(&self, record: &Record) -> Result<()> {
        let (volumes, id, names) = (self.volumes().clone(), record.id.clone(), names(record));
        if names.is_empty() {
            return Ok(());
        }
        blocking(move || names.iter().try_for_each(|name| volumes.join(name, &id))).await
    }

    /// A container runs that was started by an earlier life of this service.
    pub(super) fn adopt_volumes(&self, record: &Record) {
        for name in names(record) {
            self.volumes().adopt(&name, &record.id);
        }
    }

    /// Unmounts what nobody uses any more.
    pub(super) async fn unmount_volumes(&self, record: &Record) {
        let (volumes, id, names) = (self.volumes().clone(), record.id.clone(), names(record));
        if names.is_empty() {
            return;
        }
        let left = blocking(move || {
            for name in names {
                if let Err(error) = volumes.leave(&name, &id) {
                    tracing::warn!(%error, id, "cannot unmount a volume");
                }
            }
            Ok(())
        });
        if let Err(error) = left.await {
            tracing::warn!(%error, id = record.id, "cannot unmount volumes");
        }
    }
}

fn names(record: &Record) -> Vec<String> {
    let named = |mount: &super::record::Mount| match &mount.kind {
        MountKind::Volume { name, .. } => Some(name.clone()),
        _ => None,
    };
    record.mounts.iter().filter_map(named).collect()
}
