//! Namespaces that wait for a container.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::namespace::Namespace;

/// How many namespaces are made at once: the kernel serialises most of the work, so more only wait.
const BUILDERS: usize = 4;

/// Namespaces that are ready, up to a number.
#[derive(Debug)]
pub(crate) struct Pool {
    size: usize,
    state: Mutex<State>,
    builders: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Namespace>,
    refilling: bool,
    closed: bool,
}

impl Pool {
    /// An empty pool that wants `size` namespaces.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            size,
            state: Mutex::default(),
            builders: Semaphore::new(BUILDERS),
        }
    }

    /// The one that waited longest.
    pub(crate) fn take(&self) -> Option<Namespace> {
        self.lock().ready.pop_front()
    }

    /// Whether there is room for one more. If not, the caller of [`Pool::begin_refill`] is done: whoever
    /// takes one from now on refills.
    pub(crate) fn wants(&self) -> bool {
        let mut state = self.lock();
        state.refilling = !state.closed && state.ready.len() < self.size;
        state.refilling
    }

    /// Puts one in; gives it back if the pool was closed meanwhile.
    pub(crate) fn put(&self, namespace: Namespace) -> Option<Namespace> {
        let mut state = self.lock();
        if state.closed {
            return Some(namespace);
        }
        state.ready.push_back(namespace);
        None
    }

    /// Whether the caller is the one to refill.
    pub(crate) fn begin_refill(&self) -> bool {
        let mut state = self.lock();
        !state.closed && !std::mem::replace(&mut state.refilling, true)
    }

    /// Whether somebody is.
    pub(crate) fn is_refilling(&self) -> bool {
        self.lock().refilling
    }

    /// The caller of [`Pool::begin_refill`] gives up.
    pub(crate) fn end_refill(&self) {
        self.lock().refilling = false;
    }

    /// Takes all out, for good.
    pub(crate) fn close(&self) -> VecDeque<Namespace> {
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.ready)
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().ready.is_empty()
    }

    /// The host's ends of those that wait.
    pub(crate) fn veths(&self) -> Vec<String> {
        let state = self.lock();
        let ports = state.ready.iter().flat_map(|namespace| &namespace.ports);
        ports.map(|port| port.veth.clone()).collect()
    }

    /// Waits for a turn to make a namespace. The semaphore is never closed, so there always is one.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.builders.acquire().await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
