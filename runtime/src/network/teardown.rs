//! Taking namespaces apart, off everyone's way: the kernel spends milliseconds on each, holding the
//! lock that new interfaces need, so one thread does it, one after the other.

use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::oneshot;

use super::error::{NetworkError, Result};
use super::namespace::{BridgePort, Namespace};
use super::route::Routes;

/// The thread that takes namespaces apart; it ends with this.
#[derive(Debug)]
pub(crate) struct Teardown {
    queue: Sender<Job>,
}

enum Job {
    Namespace(Namespace),
    /// The namespace is another process's; only its place on the bridge is ours.
    Port(BridgePort),
    /// Everything before this is done.
    Reached(oneshot::Sender<()>),
}

impl Teardown {
    /// Starts the thread, in the network namespace of this one.
    pub(crate) fn start() -> Result<Self> {
        let (queue, jobs) = channel();
        std::thread::Builder::new()
            .name("netns-teardown".to_owned())
            .spawn(move || work(&jobs))
            .map_err(NetworkError::kernel("start a thread"))?;
        Ok(Self { queue })
    }

    /// Takes a namespace apart, some time.
    pub(crate) fn namespace(&self, namespace: Namespace) {
        self.push(Job::Namespace(namespace));
    }

    /// Removes a place on the bridge, some time.
    pub(crate) fn port(&self, port: BridgePort) {
        self.push(Job::Port(port));
    }

    /// Waits until all that was handed over before is gone.
    pub(crate) async fn finish(&self) {
        let (done, reached) = oneshot::channel();
        self.push(Job::Reached(done));
        if reached.await.is_err() {
            tracing::error!("the thread that removes network namespaces is gone");
        }
    }

    /// The thread ends only when the queue does, so this cannot fail.
    fn push(&self, job: Job) {
        if self.queue.send(job).is_err() {
            tracing::error!("the thread that removes network namespaces is gone");
        }
    }
}

fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        match job {
            Job::Namespace(namespace) => {
                if let Some(port) = &namespace.port {
                    unplug(port);
                }
            }
            Job::Port(port) => unplug(&port),
            Job::Reached(done) => drop(done.send(())),
        }
    }
}

/// The interface goes before the address is free again: a process that keeps the namespace alive must
/// not answer for an address that somebody else gets.
fn unplug(port: &BridgePort) {
    let deleted = Routes::open().and_then(|mut routes| routes.delete(&port.veth));
    if let Err(error) = deleted {
        tracing::warn!(veth = port.veth, %error, "cannot remove an interface");
    }
}
