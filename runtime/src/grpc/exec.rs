//! `Exec`: one more process, with its streams over one call.

use futures_util::StreamExt as _;
use orlop_proto::runtime as wire;
use orlop_proto::runtime::exec_request::Message as In;
use orlop_proto::runtime::exec_response::Message as Out;
use orlop_shim::protocol::{Reply, Request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::attach::{BACKLOG, window};
use super::{Answers, status};
use crate::containers::Containers;
use crate::containers::streams::Exec;
use crate::error::Error;
use crate::shim::{Connection, Frame, Reader, Writer};
use crate::spec::from_image;

type Sender = mpsc::Sender<Result<wire::ExecResponse, Status>>;

/// Runs one more process in a container.
pub(super) async fn exec(
    containers: Containers,
    mut inbound: Streaming<wire::ExecRequest>,
) -> Result<Answers<wire::ExecResponse>, Status> {
    let Some(In::Start(start)) = inbound.message().await?.and_then(|m| m.message) else {
        let problem = "the first one describes the process";
        return Err(status(Error::invalid("exec message", problem)));
    };
    let container = containers.find(&start.id).map_err(status)?;
    let started = containers.exec(&container, &start).await;
    let Exec {
        id,
        pid,
        connection: Connection { reader, writer },
    } = started.map_err(status)?;
    let (to_client, from_service) = mpsc::channel(BACKLOG);
    let first = Out::Started(wire::ExecStarted {
        exec_id: id.clone(),
        pid: pid.into(),
    });
    send(&to_client, first).await;
    // The client of a detached one has heard everything.
    let to_client = match start.detach {
        true => mpsc::channel(1).0,
        false => to_client,
    };
    let input = tokio::spawn(forward_input(inbound, writer));
    tokio::spawn(async move {
        let ended = forward_output(reader, &to_client, container.id.clone()).await;
        if let Some(code) = ended {
            containers.exec_ended(&container, &id, code);
        }
        input.abort();
    });
    Ok(ReceiverStream::new(from_service).boxed())
}

async fn send(to: &Sender, message: Out) -> bool {
    let answer = wire::ExecResponse {
        message: Some(message),
    };
    to.send(Ok(answer)).await.is_ok()
}

/// From the shim to the client, until the process ended, which is the answer; it goes on for a client that went away.
async fn forward_output(mut reader: Reader, to: &Sender, id: String) -> Option<i32> {
    loop {
        let message = match reader.frame().await {
            Ok(Some(Frame::Stdout(bytes))) => Out::Stdout(bytes),
            Ok(Some(Frame::Stderr(bytes))) => Out::Stderr(bytes),
            Ok(Some(Frame::Reply(Reply::Exited { code, oom_killed }))) => {
                send(to, Out::Exited(wire::Exited { code, oom_killed })).await;
                return Some(code);
            }
            Ok(Some(Frame::Reply(_))) => continue,
            Ok(None) | Err(_) => {
                to.send(Err(status(Error::StreamsLost(id)))).await.ok();
                return None;
            }
        };
        send(to, message).await;
    }
}

/// From the client to the shim. When the client is gone, what it fed is at its end (row D13), or it would wait for
/// ever; a terminal has no such end.
async fn forward_input(mut inbound: Streaming<wire::ExecRequest>, mut writer: Writer) {
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
                Err(_) => continue,
            },
            Some(In::Start(_)) | None => continue,
        };
        if sent.is_err() {
            return;
        }
    }
    if writer.stdin(&[]).await.is_err() {
        return;
    }
    // Dropping the writer would end the connection, and the output with it.
    std::future::pending::<()>().await;
}
