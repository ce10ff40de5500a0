//! Pausing: all processes of a container are frozen where they are, and go on when it is unpaused.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::RwLockWriteGuard;

use super::state::{Action, Status};
use super::{Container, Containers};
use crate::cgroups::freeze;
use crate::error::{Error, Result, blocking};

/// How long a process that is just being put into the container may hold up a pause.
const PATIENCE: Duration = Duration::from_secs(5);

impl Containers {
    /// Freezes a container that runs.
    pub(crate) async fn pause(&self, container: &Arc<Container>) -> Result<()> {
        let _gate = container.gate.lock().await;
        container.record().next(Action::Pause, "pause")?;
        let frozen = container.freeze().await;
        if frozen.is_err() {
            // It may have ended meanwhile, which is the better reason.
            container.record().next(Action::Pause, "pause")?;
        }
        let _nobody = frozen?;
        if let Err(error) = self.keep_status(container, Action::Pause).await {
            set_frozen(container, false).await?;
            return Err(error);
        }
        self.tell(&container.record(), "pause", &[]);
        Ok(())
    }

    /// Thaws a container that is paused.
    pub(crate) async fn unpause(&self, container: &Arc<Container>) -> Result<()> {
        let _gate = container.gate.lock().await;
        container.record().next(Action::Unpause, "unpause")?;
        self.thaw(container).await
    }

    /// Thaws a container if it is paused: a signal that is to end it must reach it.
    pub(super) async fn thaw(&self, container: &Arc<Container>) -> Result<()> {
        if container.record().state.status != Status::Paused {
            return Ok(());
        }
        let thawed = set_frozen(container, false).await;
        // It may have ended meanwhile, and its groups with it.
        if container.record().state.status == Status::Paused {
            thawed?;
        }
        self.keep_status(container, Action::Unpause).await?;
        self.tell(&container.record(), "unpause", &[]);
        Ok(())
    }

    /// Saves what became of the status, unless the container ended meanwhile.
    async fn keep_status(&self, container: &Container, action: Action) -> Result<()> {
        let kept = container.update(|record| {
            let status = super::state::next(record.state.status, action);
            record.state.status = status.unwrap_or(record.state.status);
        });
        let record = kept.await?;
        self.parts().index.put(&record);
        Ok(())
    }
}

impl Container {
    /// Freezes all processes. None may be on its way into the container: frozen half-way it would hold up
    /// its shim. While the guard is held, none comes.
    pub(super) async fn freeze(&self) -> Result<RwLockWriteGuard<'_, ()>> {
        let nobody = tokio::time::timeout(PATIENCE, self.entering.write()).await;
        let nobody = nobody.map_err(|elapsed| Error::Shim {
            id: self.id.clone(),
            doing: "waiting for a process to start",
            source: std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed),
        })?;
        set_frozen(self, true).await?;
        Ok(nobody)
    }
}

/// Freezes or thaws the processes that are in it.
pub(super) async fn set_frozen(container: &Container, frozen: bool) -> Result<()> {
    let record = container.record();
    blocking(move || Ok(freeze::set_frozen(&record.cgroups, frozen)?)).await
}
