//! Namespaces that wait for a container.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Network;
use super::error::Result;
use super::joining::Joining;
use super::namespace::Namespace;

/// How many namespaces are made at once: the kernel serialises most of the work, so more only wait.
const BUILDERS: usize = 4;

/// What a namespace is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooled {
    /// The network of everyone.
    WithEveryone,
    /// No network.
    Nowhere,
}

/// What waits, by what it is for.
#[derive(Debug)]
pub(crate) struct Pools {
    with_everyone: Pool,
    nowhere: Pool,
    builders: Semaphore,
}

/// Namespaces that are ready, up to a number.
#[derive(Debug)]
pub(crate) struct Pool {
    size: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Namespace>,
    refilling: bool,
    closed: bool,
}

impl Pools {
    /// Empty pools that want `size` namespaces each, from when the first is taken.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            with_everyone: Pool::new(size),
            nowhere: Pool::new(size),
            builders: Semaphore::new(BUILDERS),
        }
    }

    /// The one for this.
    pub(crate) fn of(&self, kind: Pooled) -> &Pool {
        match kind {
            Pooled::WithEveryone => &self.with_everyone,
            Pooled::Nowhere => &self.nowhere,
        }
    }

    /// Waits for a turn to make a namespace. The semaphore is never closed, so there always is one.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.builders.acquire().await.ok()
    }
}

impl Pool {
    fn new(size: usize) -> Self {
        Self {
            size,
            state: Mutex::default(),
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network {
    /// One that waits, of which another takes the place, or a new one.
    pub(super) async fn take_namespace(&self, kind: Pooled) -> Result<Namespace> {
        let ready = self.inner.pools.of(kind).take();
        let namespace = match ready {
            Some(namespace) => namespace,
            None => self.build_namespace(&self.places_in(kind), None).await?,
        };
        self.refill(kind);
        Ok(namespace)
    }

    fn places_in(&self, kind: Pooled) -> Vec<Joining> {
        let everyone = || Joining {
            relayed: self.relays_ports_of(&self.inner.everyone),
            segment: Arc::clone(&self.inner.everyone),
            address: None,
            ipv6_address: None,
            mac: None,
            names: Vec::new(),
            aliases: Vec::new(),
            links: Vec::new(),
        };
        match kind {
            Pooled::WithEveryone => vec![everyone()],
            Pooled::Nowhere => Vec::new(),
        }
    }

    /// Fills a pool in the background.
    fn refill(&self, kind: Pooled) {
        if !self.inner.pools.of(kind).begin_refill() {
            return;
        }
        let network = self.clone();
        tokio::spawn(async move {
            let pool = network.inner.pools.of(kind);
            while pool.wants() {
                let places = network.places_in(kind);
                match network.build_namespace(&places, None).await {
                    Ok(namespace) => {
                        if let Some(surplus) = pool.put(namespace) {
                            network.take_apart(surplus);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot prepare a network namespace");
                        return pool.end_refill();
                    }
                }
            }
        });
    }

    /// Takes apart all that waits, for good.
    pub(super) async fn close_pools(&self) {
        for kind in [Pooled::WithEveryone, Pooled::Nowhere] {
            let pool = self.inner.pools.of(kind);
            for namespace in pool.close() {
                self.take_apart(namespace);
            }
            // One that is being made would bring the bridge back.
            while pool.is_refilling() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}
