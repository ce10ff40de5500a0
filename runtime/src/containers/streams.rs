//! Joining a container's streams, and more processes in it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use orlop_proto::runtime as wire;
use orlop_shim::protocol::{Failure, Reply, Request};

use super::names::new_id;
use super::record::Record;
use super::start::Streams;
use super::state::Action;
use super::{Container, Containers};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::shim::{self, Connection, unexpected};
use crate::spec::{self, from_image};

const ENTERING: &str = "running a process";
/// How long it may take until the end of a container is known whose shim is gone.
const PATIENCE: Duration = Duration::from_secs(3);
/// Characters of a command that its events show.
const COMMAND_SHOWN: usize = 1024;

/// One more process in a container.
#[derive(Debug)]
pub(crate) struct Exec {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    /// On the host.
    pub(crate) pid: i32,
    /// Carries its streams.
    pub(crate) connection: Connection,
}

impl Containers {
    /// Joins the streams of a container, which is started with `start` once they are joined, if
    /// it does not run.
    pub(crate) async fn attach(
        &self,
        container: &Arc<Container>,
        streams: Streams,
        start: bool,
    ) -> Result<Connection> {
        let record = container.record();
        if start && !record.is_running() {
            self.tell(&record, "attach", &[]);
            let joined = self.start(container, Some(streams)).await?;
            return joined.ok_or_else(|| {
                let closed = std::io::ErrorKind::NotConnected.into();
                container.shim_failed("attaching")(closed)
            });
        }
        record.next(Action::Join, "attach to")?;
        let joined = self.join(container, streams).await?;
        self.tell(&record, "attach", &[]);
        Ok(joined)
    }

    /// Waits until the end of the run that had `exits` ends before it is known to everyone. The next run
    /// may have begun then.
    pub(crate) async fn settled(&self, container: &Container, exits: u64) {
        let known = container.until(|view| {
            let over = view.record.state.exits > exits;
            let removed = view.removed || !view.record.config.auto_remove || view.record.hidden;
            over && removed
        });
        known.await;
    }

    /// Runs one more process.
    pub(crate) async fn exec(
        &self,
        container: &Container,
        start: &wire::ExecStart,
    ) -> Result<Exec> {
        let _entering = container.entering.read().await;
        let record = container.record();
        let asked = start.process.clone().unwrap_or_default();
        let process = from_image::exec(&record.process, &asked)?;
        record.next(Action::Join, "run a process in")?;
        let no_new_privileges = self.parts().no_new_privileges;
        let spec = spec::exec_process(
            &record,
            &process,
            start.privileged,
            no_new_privileges,
            Host::this(),
        )?;
        let request = Request::Exec {
            process: Box::new(spec),
            user: process.user,
            stdin: start.stdin,
            window: process.window,
            detach: start.detach,
        };
        let (connection, reply) = match say(container, &request).await {
            Ok(answered) => answered,
            Err(error) => {
                let failed = container.shim_failed(ENTERING)(error);
                return Err(overtaken(container, &record, failed).await);
            }
        };
        match reply {
            Reply::Started { pid } => {
                let id = new_id()?;
                self.tell_exec(&record, &id, &asked.args);
                Ok(Exec {
                    id,
                    pid,
                    connection,
                })
            }
            Reply::Failed { failure, message } => {
                let name = record.title().to_owned();
                let failed = Error::Exec {
                    name,
                    failure,
                    message,
                };
                Err(match failure {
                    Failure::System => overtaken(container, &record, failed).await,
                    _ => failed,
                })
            }
            reply => Err(container.shim_failed(ENTERING)(unexpected(&reply))),
        }
    }

    fn tell_exec(&self, record: &Record, id: &str, args: &[String]) {
        let command: String = args.join(" ").chars().take(COMMAND_SHOWN).collect();
        for action in ["exec_create", "exec_start"] {
            let details = [("execID", id.to_owned())];
            self.tell(record, &format!("{action}: {command}"), &details);
        }
    }

    /// A process of [`Self::exec`] ended.
    pub(crate) fn exec_ended(&self, container: &Container, id: &str, code: i32) {
        let details = [("execID", id.to_owned()), ("exitCode", code.to_string())];
        self.tell(&container.record(), "exec_die", &details);
    }
}

async fn say(container: &Container, request: &Request) -> io::Result<(Connection, Reply)> {
    let mut connection = shim::connect(&container.socket)?;
    connection.writer.request(request).await?;
    let reply = connection.reader.reply().await?;
    Ok((connection, reply))
}

/// What to say when a shim or the process went away instead of answering: mostly the container has just ended,
/// which is about to be known.
async fn overtaken(container: &Container, record: &Record, failed: Error) -> Error {
    let exits = record.state.exits;
    let ended = container.until(|view| view.record.state.exits > exits || view.removed);
    tokio::time::timeout(PATIENCE, ended).await.ok();
    match container.record().next(Action::Join, "run a process in") {
        Err(ended) => ended,
        Ok(_) => failed,
    }
}
