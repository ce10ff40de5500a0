//! The two-way stream between the caller's terminal and a process in a container: standard streams,
//! window size, signals, detach keys. `attach`, `run`, `start -a` and `exec` are made of it.

mod input;
mod output;

use orlop_proto::runtime::{
    AttachRequest, AttachResponse, ExecRequest, ExecResponse, WindowSize, attach_request,
    attach_response, exec_request, exec_response,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::clients::Answers;
use crate::error::CliError;
use crate::ui::terminal;
use crate::values::keys::DetachKeys;
use output::{Output, Standard};

/// Messages that may wait for the service.
const QUEUE: usize = 16;

/// A message to a process: the same ones for attach and exec.
pub(crate) trait Request: Send + 'static {
    fn stdin(data: bytes::Bytes) -> Self;
    fn resize(size: WindowSize) -> Self;
    fn signal(name: &str) -> Self;
}

/// An answer of attach or exec; `None` for one that this version does not know.
pub(crate) trait Answer {
    fn event(self) -> Option<Event>;
}

/// A message from a process.
#[derive(Debug)]
pub(crate) enum Event {
    Began,
    Stdout(bytes::Bytes),
    Stderr(bytes::Bytes),
    Exited(i32),
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(i32),
    /// The caller left; the process goes on.
    Detached,
}

/// What the caller's side does.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Send standard input.
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
    /// Pass signals on to the process rather than die of them.
    pub(crate) proxy_signals: bool,
    pub(crate) detach_keys: Option<DetachKeys>,
}

/// The sending half, and what the call takes as its requests.
pub(crate) fn requests<Q>(first: Q) -> (mpsc::Sender<Q>, ReceiverStream<Q>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    // The channel is empty, so the first message always fits.
    drop(sender.try_send(first));
    (sender, ReceiverStream::new(receiver))
}

/// Carries everything until the process ended or the caller detached. The
/// terminal is raw meanwhile, if the process has one and input is sent. No
/// error has the exit code of a process.
pub(crate) async fn carry<Q: Request, A: Answer>(
    requests: mpsc::Sender<Q>,
    answers: Answers<A>,
    options: Options,
) -> Result<Ended, CliError> {
    let raw = if options.tty && options.stdin {
        terminal::raw()?
    } else {
        None
    };
    let (detach, detached) = oneshot::channel();
    let mut tasks = tokio::task::JoinSet::new();
    if options.stdin {
        let keys = options.detach_keys.clone().filter(|_| options.tty);
        tasks.spawn(input::pump(requests.clone(), keys, detach));
    }
    if options.tty {
        tasks.spawn(input::follow_size(requests.clone())?);
    }
    if options.proxy_signals {
        tasks.spawn(input::forward_signals(requests.clone())?);
    }
    let output = Output::start();
    let ended = tokio::select! {
        ended = receive(answers, &output) => ended,
        Ok(()) = detached => Ok(Ended::Detached),
    };
    tasks.abort_all();
    let written = output.finish();
    drop(requests);
    drop(raw);
    let ended = ended.and_then(|ended| written.map(|()| ended));
    ended.map_err(CliError::of_container)
}

async fn receive<A: Answer>(mut answers: Answers<A>, output: &Output) -> Result<Ended, CliError> {
    let mut began = false;
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(lost()),
            Err(status) => {
                let error = CliError::from(status);
                let by_transport = began && error.reason().is_empty();
                return Err(if by_transport { lost() } else { error });
            }
        };
        match answer.event() {
            Some(Event::Began) => began = true,
            Some(Event::Stdout(data)) => output.write(Standard::Output, data).await,
            Some(Event::Stderr(data)) => output.write(Standard::Error, data).await,
            Some(Event::Exited(code)) => return Ok(Ended::Exited(code)),
            None => {}
        }
        if output.is_closed() {
            // Whoever read our output is gone; the error comes from `finish`.
            return Ok(Ended::Detached);
        }
    }
}

fn lost() -> CliError {
    CliError::Lost {
        service: "runtime",
        consequence: "the container goes on without this terminal; see `orlop ps -a`",
    }
}

impl Request for AttachRequest {
    fn stdin(data: bytes::Bytes) -> Self {
        attach(attach_request::Message::Stdin(data))
    }
    fn resize(size: WindowSize) -> Self {
        attach(attach_request::Message::Resize(size))
    }
    fn signal(name: &str) -> Self {
        attach(attach_request::Message::Signal(name.to_owned()))
    }
}

impl Request for ExecRequest {
    fn stdin(data: bytes::Bytes) -> Self {
        exec(exec_request::Message::Stdin(data))
    }
    fn resize(size: WindowSize) -> Self {
        exec(exec_request::Message::Resize(size))
    }
    fn signal(name: &str) -> Self {
        exec(exec_request::Message::Signal(name.to_owned()))
    }
}

/// A request of an attach.
pub(crate) fn attach(message: attach_request::Message) -> AttachRequest {
    AttachRequest {
        message: Some(message),
    }
}

/// A request of an exec.
pub(crate) fn exec(message: exec_request::Message) -> ExecRequest {
    ExecRequest {
        message: Some(message),
    }
}

impl Answer for AttachResponse {
    fn event(self) -> Option<Event> {
        use attach_response::Message;
        Some(match self.message? {
            Message::Attached(_) => Event::Began,
            Message::Stdout(data) => Event::Stdout(data),
            Message::Stderr(data) => Event::Stderr(data),
            Message::Exited(exited) => Event::Exited(exited.code),
        })
    }
}

impl Answer for ExecResponse {
    fn event(self) -> Option<Event> {
        use exec_response::Message;
        Some(match self.message? {
            Message::Started(_) => Event::Began,
            Message::Stdout(data) => Event::Stdout(data),
            Message::Stderr(data) => Event::Stderr(data),
            Message::Exited(exited) => Event::Exited(exited.code),
        })
    }
}
