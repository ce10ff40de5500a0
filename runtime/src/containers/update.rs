//! Changing the limits and the restart policy of a container: at once where it runs, else for its next
//! start. All or nothing.

use std::sync::Arc;

use orlop_proto::runtime as wire;

use super::{Container, Containers, policy};
use crate::cgroups::live::{self, Undo};
use crate::devices;
use crate::error::{Error, Result, blocking};
use crate::spec::{resources, validate};

impl Containers {
    /// Changes what is asked; answers what a person should know.
    pub(crate) async fn update(
        &self,
        container: &Arc<Container>,
        resources: Option<wire::Resources>,
        restart: Option<wire::RestartPolicy>,
    ) -> Result<Vec<String>> {
        let _gate = container.gate.lock().await;
        let record = container.record();
        if container.is_removed() {
            return Err(Error::BeingRemoved(record.title().to_owned()));
        }
        if let Some(restart) = &restart {
            validate::restart(restart, record.config.auto_remove)?;
        }
        let asked = resources.unwrap_or_default();
        let now = record.config.resources.clone().unwrap_or_default();
        let merged = resources::merge(&now, &asked)?;
        let limits = resources::limits(&merged, &devices::disks(&merged)?)?;
        let groups = record.cgroups.clone();
        let changed = blocking(move || Ok(live::change(&groups, &limits)?)).await;
        let (undo, warnings) = match changed {
            // It ended meanwhile, and its groups with it.
            Err(_) if record.is_running() && !container.record().is_running() => Default::default(),
            changed => changed?,
        };
        self.keep_update(container, merged, restart, undo).await?;
        Ok(warnings)
    }

    /// Writes the record; if that fails the limits become what they were.
    async fn keep_update(
        &self,
        container: &Container,
        resources: wire::Resources,
        restart: Option<wire::RestartPolicy>,
        undo: Undo,
    ) -> Result<()> {
        let changes_policy = restart.is_some();
        let kept = container.update(|record| {
            record.config.resources = Some(resources);
            if restart.is_some() {
                record.config.restart = restart;
            }
        });
        match kept.await {
            Ok(record) => {
                self.parts().index.put(&record);
                if changes_policy {
                    policy::hand_down(container).await;
                }
                self.tell(&record, "update", &[]);
                Ok(())
            }
            Err(error) => {
                blocking(move || {
                    undo.undo();
                    Ok(())
                })
                .await?;
                Err(error)
            }
        }
    }
}
