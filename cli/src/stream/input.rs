//! What goes to the process: typed bytes, window sizes, signals.

use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::Request;
use crate::error::{CliError, system};
use crate::ui::terminal;
use crate::values::keys::DetachKeys;

const READ_BYTES: usize = 32 * 1024;
/// Reads that may wait for the service.
const READS: usize = 4;

/// Signals that Docker passes on, without those that a process cannot or need not be told
/// (SIGCHLD, SIGPIPE, SIGURG, and what the terminal driver does by itself).
const SIGNALS: [(&str, i32); 7] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
];

/// Sends standard input until its end, or until the detach keys. An empty message closes it.
pub(super) async fn pump<Q: Request>(
    requests: mpsc::Sender<Q>,
    mut keys: Option<DetachKeys>,
    detach: oneshot::Sender<()>,
) {
    let mut reads = reader();
    while let Some(data) = reads.recv().await {
        let data = match &mut keys {
            None => data,
            Some(keys) => match keys.filter(&data) {
                Some(rest) if rest.is_empty() => continue,
                Some(rest) => Bytes::from(rest),
                None => {
                    // Nobody listens any more when the stream ended by itself.
                    detach.send(()).unwrap_or(());
                    return;
                }
            },
        };
        if requests.send(Q::stdin(data)).await.is_err() {
            return;
        }
    }
    drop(requests.send(Q::stdin(Bytes::new())).await);
    // Ending this task must not read as "detach": the sender lives as long as the stream.
    std::future::pending::<()>().await;
}

/// Reads on a thread of its own: a read of a terminal cannot be cancelled, and must not keep the
/// command from ending.
fn reader() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(READS);
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let data = Bytes::copy_from_slice(&buffer[..count]);
                    if sender.blocking_send(data).is_err() {
                        return;
                    }
                }
            }
        }
    });
    receiver
}

/// Tells the process each new size of the window.
pub(super) fn follow_size<Q: Request>(
    requests: mpsc::Sender<Q>,
) -> Result<impl Future<Output = ()>, CliError> {
    let mut changes = signal(SignalKind::window_change()).map_err(system("listen for signals"))?;
    Ok(async move {
        while changes.recv().await.is_some() {
            if let Some(size) = terminal::size() {
                drop(requests.send(Q::resize(size)).await);
            }
        }
    })
}

/// Passes signals on to the process.
pub(super) fn forward_signals<Q: Request>(
    requests: mpsc::Sender<Q>,
) -> Result<impl Future<Output = ()>, CliError> {
    let mut listeners = Vec::new();
    for (name, number) in SIGNALS {
        let listener =
            signal(SignalKind::from_raw(number)).map_err(system("listen for signals"))?;
        listeners.push((name, listener));
    }
    Ok(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for (name, mut listener) in listeners {
            let requests = requests.clone();
            tasks.spawn(async move {
                while listener.recv().await.is_some() {
                    drop(requests.send(Q::signal(name)).await);
                }
            });
        }
        drop(requests);
        tasks.join_all().await;
    })
}
