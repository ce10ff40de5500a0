//! `Attach` and `Run`: a container's streams over one call.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use orlop_proto::runtime as wire;
use orlop_proto::runtime::attach_request::Message as In;
use orlop_proto::runtime::attach_response::Message as Out;
use orlop_shim::protocol::{Reply, Request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::containers::spawned;
use super::{Answers, logs, status};
use crate::containers::start::Streams;
use crate::containers::{Container, Containers};
use crate::error::{Error, Result};
use crate::logs::Selection;
use crate::shim::{Connection, Frame, Reader, Writer};
use crate::spec::from_image;

/// Messages on their way to a client that does not read.
pub(super) const BACKLOG: usize = 32;

/// How long a shim that closed its connection may take to be known as gone.
const LOST_PATIENCE: Duration = Duration::from_secs(3);

/// How the streams ended.
#[derive(Clone, Debug, PartialEq)]
enum End {
    /// With the container: what its shim said of that.
    Exited(wire::Exited),
    /// The shim closed the connection, or went away.
    Lost,
    /// The shim said why there is no more.
    CutOff(String),
    /// The client does not want more.
    ClientGone,
}

type Sender = mpsc::Sender<Result<wire::AttachResponse, Status>>;

/// Joins a container's streams.
pub(super) async fn attach(
    containers: Containers,
    mut inbound: Streaming<wire::AttachRequest>,
) -> Result<Answers<wire::AttachResponse>, Status> {
    let Some(In::Start(start)) = inbound.message().await?.and_then(|m| m.message) else {
        let problem = "the first one says which container";
        return Err(status(Error::invalid("attach message", problem)));
    };
    let container = containers.find(&start.id).map_err(status)?;
    let exits = container.record().state.exits;
    let replay = replay(&container, &start).map_err(status)?;
    let streams = Streams {
        stdin: start.stdin,
        stdout: start.stdout,
        stderr: start.stderr,
    };
    let (this, same) = (containers.clone(), Arc::clone(&container));
    let joining = async move { this.attach(&same, streams, start.start).await };
    let Connection { reader, mut writer } = spawned(joining).await.map_err(status)?;
    if let Some(size) = start.size {
        let (rows, columns) = window(Some(size)).map_err(status)?;
        let asked = writer.request(&Request::Resize { rows, columns }).await;
        asked.map_err(|source| status(shim_failed(&container, source)))?;
    }
    let (to_client, from_service) = mpsc::channel(BACKLOG);
    let input = tokio::spawn(forward_input(inbound, writer));
    tokio::spawn(async move {
        let record = container.record();
        let attached = Out::Attached(wire::Attached {
            tty: record.process.tty,
            pid: record.state.pid.into(),
        });
        send(&to_client, attached).await;
        if let Some(selection) = replay {
            replay_logs(&container, selection, &to_client).await;
        }
        let end = forward_output(reader, &to_client).await;
        finish(&containers, &container, exits, end, &to_client).await;
        input.abort();
    });
    Ok(ReceiverStream::new(from_service).boxed())
}

/// Runs a hidden container; the end of the call is the end of the container.
pub(super) async fn run(
    containers: Containers,
    create: wire::CreateRequest,
) -> Result<Answers<wire::AttachResponse>, Status> {
    let this = containers.clone();
    let running = spawned(async move { this.run(create).await });
    let (shot, Connection { reader, writer }) = running.await.map_err(status)?;
    let (to_client, from_service) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        let record = shot.container.record();
        let attached = Out::Attached(wire::Attached {
            tty: record.process.tty,
            pid: record.state.pid.into(),
        });
        send(&to_client, attached).await;
        // A client that went away: dropping `shot` kills and removes.
        match forward_output(reader, &to_client).await {
            End::ClientGone => {}
            End::Exited(exited) => {
                containers.settled(&shot.container, 0).await;
                shot.finish().await;
                send(&to_client, Out::Exited(exited)).await;
            }
            End::Lost => {
                let lost = Error::StreamsLost(shot.container.id.clone());
                shot.finish().await;
                fail(&to_client, lost).await;
            }
            End::CutOff(why) => {
                let id = shot.container.id.clone();
                shot.finish().await;
                fail(&to_client, Error::ReadTooSlowly { id, why }).await;
            }
        }
        drop(writer);
    });
    Ok(ReceiverStream::new(from_service).boxed())
}

/// Tells the client how it ended, once that is known to everyone. Output that is incomplete is an error,
/// however the container ended.
async fn finish(containers: &Containers, container: &Container, exits: u64, end: End, to: &Sender) {
    let settled = containers.settled(container, exits);
    let id = container.id.clone();
    match end {
        End::ClientGone => {}
        End::Exited(exited) => {
            settled.await;
            send(to, Out::Exited(exited)).await;
        }
        End::CutOff(why) => fail(to, Error::ReadTooSlowly { id, why }).await,
        End::Lost => {
            // Of a container that ended with its shim everyone is to know when this client does.
            tokio::time::timeout(LOST_PATIENCE, settled).await.ok();
            fail(to, Error::StreamsLost(id)).await;
        }
    }
}

/// The last that a client hears.
async fn fail(to: &Sender, error: Error) {
    to.send(Err(status(error))).await.ok();
}

async fn send(to: &Sender, message: Out) -> bool {
    let answer = wire::AttachResponse {
        message: Some(message),
    };
    to.send(Ok(answer)).await.is_ok()
}

/// From the shim to the client, to one end or the other.
async fn forward_output(mut reader: Reader, to: &Sender) -> End {
    loop {
        let frame = tokio::select! {
            () = to.closed() => return End::ClientGone,
            frame = reader.frame() => frame,
        };
        let message = match frame {
            Ok(Some(Frame::Stdout(bytes))) => Out::Stdout(bytes),
            Ok(Some(Frame::Stderr(bytes))) => Out::Stderr(bytes),
            Ok(Some(Frame::Reply(Reply::Exited { code, oom_killed }))) => {
                return End::Exited(wire::Exited { code, oom_killed });
            }
            Ok(Some(Frame::Reply(Reply::Failed { message, .. }))) => return End::CutOff(message),
            Ok(None) => return End::Lost,
            Ok(Some(Frame::Reply(_))) => continue,
            Err(error) => {
                tracing::debug!(%error, "an attached shim went away");
                return End::Lost;
            }
        };
        if !send(to, message).await {
            return End::ClientGone;
        }
    }
}

/// From the client to the shim. A client that goes away closes nothing: others may be attached.
async fn forward_input(mut inbound: Streaming<wire::AttachRequest>, mut writer: Writer) {
    while let Ok(Some(message)) = inbound.message().await {
        let sent = match message.message {
            Some(In::Stdin(bytes)) => writer.stdin(&bytes).await,
            Some(In::Resize(size)) => match window(Some(size)) {
                Ok((rows, columns)) => writer.request(&Request::Resize { rows, columns }).await,
                Err(_) => continue,
            },
            Some(In::Signal(name)) => match from_image::signal(&name) {
                Ok(signal) => {
                    let request = Request::Signal { signal, all: false };
                    writer.request(&request).await
                }
                Err(error) => {
                    tracing::debug!(%error, "a client sent no signal");
                    continue;
                }
            },
            Some(In::Start(_)) | None => continue,
        };
        if sent.is_err() {
            return;
        }
    }
    // Dropping the writer would end the connection, and the output with it.
    std::future::pending::<()>().await;
}

/// Rows and columns that a terminal can have.
pub(super) fn window(size: Option<wire::WindowSize>) -> Result<(u16, u16)> {
    let size = size.unwrap_or_default();
    let bad = |_| Error::invalid("window size", format!("{}x{}", size.rows, size.columns));
    let rows = u16::try_from(size.rows).map_err(bad)?;
    let columns = u16::try_from(size.columns).map_err(bad)?;
    Ok((rows, columns))
}

/// What to replay. A container that is started by this call has nothing to replay of this run.
fn replay(container: &Container, start: &wire::AttachStart) -> Result<Option<Selection>> {
    if !start.logs || !container.record().is_running() {
        return Ok(None);
    }
    Ok(Some(Selection {
        stdout: start.stdout,
        stderr: start.stderr,
        since: container.record().state.started,
        until: Some(jiff::Timestamp::now()),
        ..Selection::default()
    }))
}

async fn replay_logs(container: &Arc<Container>, selection: Selection, to: &Sender) {
    let reader = logs::Follower::open(Arc::clone(container), selection).await;
    let Ok(mut reader) = reader else {
        return;
    };
    while let Ok(lines) = reader.read().await {
        if lines.is_empty() {
            return;
        }
        for line in lines {
            let message = match line.stream {
                crate::logs::Stream::Stdout => Out::Stdout(line.data),
                crate::logs::Stream::Stderr => Out::Stderr(line.data),
            };
            if !send(to, message).await {
                return;
            }
        }
    }
}

fn shim_failed(container: &Container, source: std::io::Error) -> Error {
    Error::Shim {
        id: container.id.clone(),
        doing: "resizing",
        source,
    }
}
