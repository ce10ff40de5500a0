//! Taking namespaces apart, off everyone's way: the kernel spends milliseconds on each, holding the
//! lock that new interfaces need, so one thread does it, for all that wait at once.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::{NetworkError, Result};
use super::namespace::BridgePort;
use super::route::Routes;

/// Between two attempts to remove interfaces, and how many there are.
const PAUSE: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 60;

/// The thread that takes namespaces apart; it ends with this.
#[derive(Debug)]
pub(crate) struct Teardown {
    queue: Sender<Job>,
}

enum Job {
    /// Places on bridges, and the namespace that they are of, if this process has it.
    Places(Vec<BridgePort>, Option<OwnedFd>),
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

    /// Removes places on bridges, then lets go of their namespace, some time.
    pub(crate) fn places(&self, ports: Vec<BridgePort>, namespace: Option<OwnedFd>) {
        self.push(Job::Places(ports, namespace));
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
        let mut ports = Vec::new();
        let mut namespaces = Vec::new();
        for job in std::iter::once(first).chain(jobs.try_iter()) {
            match job {
                Job::Places(places, namespace) => {
                    ports.extend(places);
                    namespaces.extend(namespace);
                }
                Job::Reached(done) => reached.push(done),
            }
        }
        unplug_surely(&ports, group);
        drop((namespaces, ports));
        for done in reached {
            // Who asked may have stopped waiting.
            done.send(()).ok();
        }
    }
}

/// What cannot be removed now, because no descriptor is free, is tried again. All that waits would meet the
/// same.
fn unplug_surely(ports: &[BridgePort], group: u32) {
    for _ in 0..ATTEMPTS {
        match unplug(ports, group) {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "cannot remove interfaces of containers"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// The interfaces go before their addresses are free again: a process that keeps a namespace alive
/// must not answer for an address that somebody else gets.
fn unplug(ports: &[BridgePort], group: u32) -> io::Result<()> {
    let names: Vec<_> = ports.iter().map(|port| port.veth.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    Routes::open()?.delete_together(&names, group)
}
