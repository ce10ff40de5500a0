//! Joining a container's streams, and more processes in it.

use std::sync::Arc;

use orlop_proto::runtime as wire;
use orlop_shim::protocol::{Reply, Request};

use super::start::{Streams, open_files_max};
use super::state::Action;
use super::{Container, Containers};
use crate::error::{Error, Result};
use crate::shim::{self, Connection, unexpected};
use crate::spec::{self, from_image};

/// How a container ended, for those who were joined to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The exit code.
    pub(crate) code: i32,
    /// The kernel killed a process of it for want of memory.
    pub(crate) oom_killed: bool,
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
        if start && !container.record().is_running() {
            let joined = self.start(container, Some(streams)).await?;
            return joined.ok_or_else(|| {
                let closed = std::io::ErrorKind::NotConnected.into();
                container.shim_failed("attaching")(closed)
            });
        }
        container.record().next(Action::Join, "attach to")?;
        self.join(container, streams).await
    }

    /// Waits until the end of the run that had `exits` ends before it is known to everyone.
    pub(crate) async fn settled(&self, container: &Container, exits: u64) -> Ended {
        let view = container
            .until(|view| {
                let over = view.record.state.exits > exits;
                let removed = view.removed || !view.record.config.auto_remove || view.record.hidden;
                over && removed
            })
            .await;
        Ended {
            code: view.record.state.exit_code,
            oom_killed: view.record.state.oom_killed,
        }
    }

    /// Runs one more process; answers the connection that carries its streams, and its pid.
    pub(crate) async fn exec(
        &self,
        container: &Container,
        start: &wire::ExecStart,
    ) -> Result<(Connection, i32)> {
        if start.privileged {
            return Err(Error::NotBuilt("a privileged exec"));
        }
        let _entering = container.entering.read().await;
        let record = container.record();
        let asked = start.process.clone().unwrap_or_default();
        let process = from_image::exec(&record.process, &asked)?;
        record.next(Action::Join, "run a process in")?;
        let no_new_privileges = self.parts().no_new_privileges;
        let spec = spec::exec_process(&record, &process, no_new_privileges, open_files_max())?;
        let request = Request::Exec {
            process: Box::new(spec),
            user: process.user,
            stdin: start.stdin,
            window: process.window,
            detach: start.detach,
        };
        let failed = container.shim_failed("running a process");
        let mut connection = shim::connect(&container.socket).map_err(&failed)?;
        connection.writer.request(&request).await.map_err(&failed)?;
        match connection.reader.reply().await.map_err(&failed)? {
            Reply::Started { pid } => Ok((connection, pid)),
            Reply::Failed { failure, message } => Err(Error::Exec {
                name: record.title().to_owned(),
                failure,
                message,
            }),
            reply => Err(failed(unexpected(&reply))),
        }
    }
}
