//! Noticing that somebody flushed the firewall or deleted a bridge, and putting it back (K4). The kernel
//! tells of every change; an idle host costs nothing. What it tells is a hint only: then the kernel is
//! compared with what is to be there, so that our own changes lead to nothing.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::net::netlink;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::bridge::Bridge;
use super::error::{NetworkError, Result};
use super::instance::Instance;
use super::netlink::{Notice, Subscription};
use super::route::Routes;
use super::segment::Segment;
use super::{Inner, Network, blocking, nft, route};

/// Changes come in bursts: `nft -f` deletes and makes again.
const SETTLE: Duration = Duration::from_millis(50);
/// Before the next attempt, when something could not be put back.
const PAUSE: Duration = Duration::from_secs(5);

/// The task that watches, until this is dropped.
#[derive(Debug)]
pub(crate) struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the kernel tells.
struct Hints {
    filter: AsyncFd<OwnedFd>,
    links: AsyncFd<OwnedFd>,
    instance: Instance,
    /// The packet filter's tables.
    tables: [String; 2],
}

impl Watch {
    /// Starts watching over a network, in the network namespace of this thread.
    pub(crate) fn start(network: &Network) -> Result<Self> {
        let hints =
            Hints::open(&network.inner).map_err(NetworkError::kernel("watch the firewall"))?;
        let task = tokio::spawn(watch(Arc::downgrade(&network.inner), hints));
        Ok(Self(task.abort_handle()))
    }
}

async fn watch(inner: Weak<Inner>, mut hints: Hints) {
    loop {
        hints.wait().await;
        tokio::time::sleep(SETTLE).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let network = Network { inner };
        while let Err(error) = network.repair().await {
            let error = orlop_proto::error::chain(&error);
            tracing::error!(error, "cannot put back what was taken from the network");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Hints {
    #[allow(
        deprecated,
        reason = "its successor is unsafe, for types that could lose their descriptor; these own it"
    )]
    fn open(inner: &Inner) -> io::Result<Self> {
        let filter = Subscription::open(Some(netlink::NETFILTER), nft::CHANGES)?;
        let links = Subscription::open(None, route::LINK_CHANGES)?;
        Ok(Self {
            filter: AsyncFd::new(filter)?,
            links: AsyncFd::new(links)?,
            instance: inner.instance.clone(),
            tables: [
                inner.instance.table.clone(),
                inner.way_back.table().to_owned(),
            ],
        })
    }

    /// Returns when something of ours may be gone.
    async fn wait(&mut self) {
        loop {
            let (tables, instance) = (&self.tables, &self.instance);
            let is_ours =
                |notice: &Notice| tables.iter().any(|table| nft::removes_from(notice, table));
            let gone = tokio::select! {
                gone = hint(&self.filter, is_ours) => gone,
                gone = hint(&self.links, |notice| {
                    route::removed_link(notice).is_some_and(|n| instance.bridge_number(&n).is_some())
                }) => gone,
            };
            if gone {
                return;
            }
        }
    }
}

/// Whether one of the notices that wait is of the kind; also if some were lost.
async fn hint(socket: &AsyncFd<OwnedFd>, fits: impl Fn(&Notice) -> bool) -> bool {
    let Ok(mut ready) = socket.readable().await else {
        return true;
    };
    let mut found = false;
    loop {
        match Subscription::read(socket.as_fd()) {
            Ok(notices) => found |= notices.iter().any(&fits),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready.clear_ready();
                return found;
            }
            Err(error) => {
                tracing::debug!(%error, "notices of the kernel are lost");
                return true;
            }
        }
    }
}

impl Network {
    /// Puts back bridges and firewall, if they are not as they are to be.
    async fn repair(&self) -> Result<()> {
        for segment in self.all_segments() {
            if self.is_bridge_lost(&segment).await? {
                tracing::warn!(
                    network = segment.definition.name,
                    "the bridge is gone: making it anew"
                );
                self.restore_bridge(&segment, &[]).await?;
            }
        }
        self.repair_way_back().await?;
        let filter = self.inner.filter.lock().await;
        if filter.networks.is_empty() {
            return Ok(());
        }
        let (firewall, networks) = (self.inner.firewall.clone(), filter.networks.clone());
        if blocking(move || firewall.is_whole(&networks)).await? {
            return Ok(());
        }
        tracing::warn!("the firewall was changed by somebody else: writing it anew");
        self.install(&filter).await
    }

    async fn is_bridge_lost(&self, segment: &Segment) -> Result<bool> {
        let Some(Bridge { name, index, .. }) = segment.bridge.lock().await.clone() else {
            return Ok(false);
        };
        let link = blocking(move || {
            let link = Routes::open().and_then(|mut routes| routes.link(&name));
            link.map_err(NetworkError::kernel(format!("find bridge {name}")))
        });
        Ok(link.await?.is_none_or(|link| link.index != index))
    }
}
