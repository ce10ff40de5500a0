//! Ending a container: stop, kill, restart; and waiting for its end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use orlop_shim::protocol::{Failure, Reply, Request};

use super::policy;
use super::record::Record;
use super::state::Action;
use super::{Container, Containers};
use crate::error::{Error, Result};
use crate::shim::{self, unexpected};
use crate::spec::from_image;

pub(super) const SIGKILL: i32 = 9;
/// How long a killed container may take to be gone before that is an error.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// The same for one whom a person killed. Docker's.
const PERSONS_PATIENCE: Duration = Duration::from_secs(10);

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It does not run.
    NotRunning,
    /// It ends once more.
    NextExit,
    /// It is gone.
    Removed,
}

impl Containers {
    /// Asks the container to end and kills it after the timeout (seconds; -1: never). One that does not
    /// run is success.
    pub(crate) async fn stop(
        &self,
        container: &Arc<Container>,
        signal: &str,
        timeout: Option<i32>,
    ) -> Result<()> {
        let signal = optional_signal(signal)?;
        let _gate = container.gate.lock().await;
        self.stop_held(container, signal, timeout).await
    }

    /// Stops, if it runs, and starts.
    pub(crate) async fn restart(
        &self,
        container: &Arc<Container>,
        signal: &str,
        timeout: Option<i32>,
    ) -> Result<()> {
        let signal = optional_signal(signal)?;
        let _gate = container.gate.lock().await;
        self.stop_held(container, signal, timeout).await?;
        self.start_held(container, None, 0).await?;
        self.tell(&container.record(), "restart", &[]);
        Ok(())
    }

    /// The same for a caller that has the container's gate.
    pub(super) async fn stop_held(
        &self,
        container: &Arc<Container>,
        signal: Option<i32>,
        timeout: Option<i32>,
    ) -> Result<()> {
        self.mark_stopped(container).await?;
        let ran = container.record().is_running();
        self.end_held(container, signal, timeout).await?;
        if ran {
            // Its end is told first.
            drop(container.teardown.lock().await);
            self.tell(&container.record(), "stop", &[]);
        }
        Ok(())
    }

    /// The same, and a policy may start it again.
    pub(super) async fn end_held(
        &self,
        container: &Arc<Container>,
        signal: Option<i32>,
        timeout: Option<i32>,
    ) -> Result<()> {
        let record = container.record();
        if !record.is_running() {
            return Ok(());
        }
        let exits = record.state.exits;
        let ended = container.until(|view| view.record.state.exits > exits || view.removed);
        let signal = signal.unwrap_or(record.stop_signal);
        self.tell_signal(&record, signal);
        match send(container, signal, false).await {
            Err(Error::Shim { .. }) => return self.kill_and_wait(container, exits).await,
            sent => sent?,
        };
        self.thaw(container).await?;
        let own = i32::try_from(record.stop_timeout).unwrap_or(i32::MAX);
        let ended = match u64::try_from(timeout.unwrap_or(own)) {
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended).await,
            Err(_) => Ok(ended.await),
        };
        if ended.is_err() {
            self.kill_and_wait(container, exits).await?;
        }
        Ok(())
    }

    /// Kills everything in the container and waits until that is known. The caller has the gate.
    pub(super) async fn kill_held(&self, container: &Arc<Container>) -> Result<()> {
        self.mark_stopped(container).await?;
        let record = container.record();
        if !record.is_running() {
            return Ok(());
        }
        self.kill_and_wait(container, record.state.exits).await
    }

    fn tell_signal(&self, record: &Record, signal: i32) {
        self.tell(record, "kill", &[("signal", signal.to_string())]);
    }

    async fn kill_and_wait(&self, container: &Arc<Container>, exits: u64) -> Result<()> {
        self.tell_signal(&container.record(), SIGKILL);
        if let Err(error) = send(container, SIGKILL, true).await {
            tracing::warn!(%error, id = container.id, "killing a shim that does not answer");
            shim::kill(&container.socket).map_err(container.shim_failed("killing it"))?;
        }
        self.thaw(container).await?;
        until_ended(container, exits, KILL_PATIENCE).await
    }

    /// A person wants it down: no policy starts it again, not even when this service restarts.
    async fn mark_stopped(&self, container: &Container) -> Result<()> {
        if container.record().state.stopped {
            return Ok(());
        }
        let marked = container.update(|record| {
            record.state.stopped = true;
            record.state.restarting = false;
        });
        marked.await?;
        if policy::is_any(&container.record()) {
            policy::hand_down(container).await;
        }
        Ok(())
    }

    /// Sends a signal. It must run. One that is to end it thaws it; any other waits until it is unpaused.
    /// After SIGKILL the container has ended when this returns.
    pub(crate) async fn kill(&self, container: &Arc<Container>, signal: &str) -> Result<()> {
        let number = optional_signal(signal)?.unwrap_or(SIGKILL);
        let record = container.record();
        record.next(Action::Touch, "kill")?;
        let ending = number == SIGKILL || number == record.stop_signal;
        if ending {
            self.mark_stopped(container).await?;
        }
        match send(container, number, false).await {
            Ok(true) => {
                self.tell_signal(&record, number);
                if ending {
                    self.thaw(container).await?;
                }
                match number {
                    SIGKILL => until_ended(container, record.state.exits, PERSONS_PATIENCE).await,
                    _ => Ok(()),
                }
            }
            Ok(false) => {
                container.until(|view| !view.record.is_running()).await;
                container.record().next(Action::Touch, "kill").map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Sets the size of the container's terminal. It must run.
    pub(crate) async fn resize(
        &self,
        container: &Container,
        rows: u16,
        columns: u16,
    ) -> Result<()> {
        container
            .record()
            .next(Action::Touch, "resize the terminal of")?;
        let failed = container.shim_failed("resizing");
        let request = Request::Resize { rows, columns };
        match shim::ask(&container.socket, &request)
            .await
            .map_err(&failed)?
        {
            Reply::Ok => {
                let size = [("height", rows.to_string()), ("width", columns.to_string())];
                self.tell(&container.record(), "resize", &size);
                Ok(())
            }
            Reply::Failed { message, .. } => Err(Error::invalid("window size", message)),
            reply => Err(failed(unexpected(&reply))),
        }
    }

    /// Waits; answers the exit code and the error of the last start.
    pub(crate) async fn wait(&self, container: &Container, condition: Condition) -> (i32, String) {
        let exits = container.record().state.exits;
        let view = container
            .until(|view| {
                view.removed
                    || match condition {
                        Condition::NotRunning => !view.record.is_running(),
                        Condition::NextExit => view.record.state.exits > exits,
                        Condition::Removed => false,
                    }
            })
            .await;
        (view.record.state.exit_code, view.record.state.error.clone())
    }
}

/// Waits until the end of the run that had `exits` ends before it is known.
async fn until_ended(container: &Container, exits: u64, patience: Duration) -> Result<()> {
    let ended = container.until(|view| view.record.state.exits > exits || view.removed);
    let waited = tokio::time::timeout(patience, ended).await;
    waited.map(drop).map_err(|elapsed| Error::Shim {
        id: container.id.clone(),
        doing: "waiting for a killed container to end",
        source: std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed),
    })
}

/// Sends a signal through the shim; `false`: the container has just ended.
pub(super) async fn send(container: &Container, signal: i32, all: bool) -> Result<bool> {
    let failed = container.shim_failed("sending a signal");
    match shim::ask(&container.socket, &Request::Signal { signal, all }).await {
        Ok(Reply::Ok) => Ok(true),
        Ok(Reply::Failed {
            failure: Failure::NotRunning,
            ..
        }) => Ok(false),
        Ok(Reply::Failed { message, .. }) => Err(Error::invalid("signal", message)),
        Ok(reply) => Err(failed(unexpected(&reply))),
        // Somebody is there, who says nothing or what nobody understands.
        Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::InvalidData) => {
            Err(failed(error))
        }
        // The shim is gone or on its way: the monitor finds out what became of the container.
        Err(error) => {
            tracing::debug!(id = container.id, %error, "no shim to send a signal to");
            Ok(false)
        }
    }
}

fn optional_signal(text: &str) -> Result<Option<i32>> {
    match text {
        "" => Ok(None),
        text => from_image::signal(text).map(Some),
    }
}
