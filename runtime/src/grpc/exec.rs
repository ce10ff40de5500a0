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
use crate::containers::names::new_id;
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
    let (Connection { reader, writer }, pid) = started.map_err(status)?;
    let exec_id = new_id().map_err(status)?;
    let (to_client, from_service) = mpsc::channel(BACKLOG);
    let first = Out::Started(wire::ExecStarted {
        exec_id,
        pid: pid.into(),
    });
    send(&to_client, first).await;
    if !start.detach {
        let input = tokio::spawn(forward_input(inbound, writer));
        tokio::spawn(async move {
            forward_output(reader, &to_client, container.id.clone()).await;
            input.abort();
        });
    }
    Ok(ReceiverStream::new(from_service).boxed())
}

async fn send(to: &Sender, message: Out) -> bool {
    let answer = wire::ExecResponse {
        message: Some(message),
    };
    to.send(Ok(answer)).await.is_ok()
}

/// From the shim to the client, until the process ended or the client went away.
async fn forward_output(mut reader: Reader, to: &Sender, id: String) {
    loop {
        let frame = tokio::select! {
            () = to.closed() => return,
            frame = reader.frame() => frame,
        };
        let message = match frame {
            Ok(Some(Frame::Stdout(bytes))) => Out::Stdout(bytes),
            Ok(Some(Frame::Stderr(bytes))) => Out::Stderr(bytes),
            Ok(Some(Frame::Reply(Reply::Exited { code, oom_killed }))) => {
                send(to, Out::Exited(wire::Exited { code, oom_killed })).await;
                return;
            }
            Ok(Some(Frame::Reply(_))) => continue,
            Ok(None) | Err(_) => {
                to.send(Err(status(Error::StreamsLost(id)))).await.ok();
                return;
            }
        };
        if !send(to, message).await {
            return;
        }
    }
}

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
    // Dropping the writer would end the connection, and the output with it.
    std::future::pending::<()>().await;
}
