//! Taking namespaces apart, off everyone's way: the kernel spends milliseconds on each, holding the
//! lock that new interfaces need, so one thread does it, for all that wait at once.

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
    /// Starts the thread, in the network namespace of this one. `group`: see [`Routes::delete_together`].
    pub(crate) fn start(group: u32) -> Result<Self> {
        let (queue, jobs) = channel();
        std::thread::Builder::new()
            .name("netns-teardown".to_owned())
            .spawn(move || work(&jobs, group))
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

/// Everything that waits is removed together.
fn work(jobs: &Receiver<Job>, group: u32) {
    while let Ok(first) = jobs.recv() {
        let mut reached = Vec::new();
        let mut namespaces = Vec::new();
        let mut ports = Vec::new();
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                Job::Namespace(namespace) => namespaces.push(namespace),
                Job::Port(port) => ports.push(port),
                Job::Reached(done) => reached.push(done),
            }
        }
        let inside = namespaces.iter().filter_map(|n| n.port.as_ref());
        unplug(inside.chain(&ports), group);
        drop((namespaces, ports));
        for done in reached {
            // Who asked may have stopped waiting.
            done.send(()).ok();
        }
    }
}

/// The interfaces go before their addresses are free again: a process that keeps a namespace alive
/// must not answer for an address that somebody else gets.
fn unplug<'a>(ports: impl Iterator<Item = &'a BridgePort>, group: u32) {
    let names: Vec<_> = ports.map(|port| port.veth.as_str()).collect();
    if names.is_empty() {
        return;
    }
    let deleted = Routes::open().and_then(|mut routes| routes.delete_together(&names, group));
    if let Err(error) = deleted {
        tracing::warn!(?names, %error, "cannot remove interfaces");
    }
}
