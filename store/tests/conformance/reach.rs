//! How a store is reached, and how a case is run.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use orlop_proto::store as pb;
use orlop_store::Store;
use orlop_store::config::StoreArgs;
use orlop_store::snapshots::Snapshots;
use orlop_wire::{Endpoint, Listener, MESSAGE_BYTES_MAX, connect, serve};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::UdsConnectInfo;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use crate::memory::Memory;

/// Long enough for a debug build on a busy machine.
const CASE_MAX: Duration = Duration::from_secs(120);

/// What a client calls, whatever is behind it.
pub(crate) type Channel =
    BoxCloneSyncService<http::Request<Body>, http::Response<Body>, std::io::Error>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    InProcess,
    Socket,
    /// Loopback, without any protection.
    Tcp,
    /// Within the process, and all that is left of the disk is kept in reserve.
    Full,
    Memory,
}

/// A fresh store of its own, that goes with its last clone.
#[derive(Clone)]
pub(crate) struct Subject {
    way: Way,
    channel: Channel,
    _home: Option<Arc<Home>>,
}

/// Where a store lives. A directory can only go when nothing is mounted in it.
struct Home {
    _directory: tempfile::TempDir,
    snapshots: Snapshots,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.snapshots.unmount_all().unwrap();
    }
}

macro_rules! clients {
    ($($name:ident: $module:ident :: $client:ident),+ $(,)?) => {
        $(pub(crate) fn $name(&self) -> pb::$module::$client<Channel> {
            pb::$module::$client::new(self.channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
        })+
    };
}

impl Subject {
    pub(crate) async fn start(way: Way) -> Self {
        if way == Way::Memory {
            return Self {
                way,
                channel: in_process(Memory::default().routes()),
                _home: None,
            };
        }
        let directory = tempfile::tempdir().unwrap();
        let args = StoreArgs {
            // What nothing needs goes at the next collection, as the contract says.
            collect_grace_seconds: 0,
            disk_reserve_mib: if way == Way::Full { u32::MAX } else { 1 },
            ..StoreArgs::default()
        };
        let store = Store::open_with(&directory.path().join("store"), args).unwrap();
        let routes = store.routes();
        let channel = match way {
            Way::Socket => {
                let path = directory.path().join("run/s.sock");
                let endpoint = Endpoint::Unix(path);
                let listener = Listener::bind(&endpoint, true).await.unwrap();
                served(&endpoint, listener, routes)
            }
            Way::Tcp => {
                let (endpoint, listener) = at_a_free_port().await;
                served(&endpoint, listener, routes)
            }
            Way::InProcess | Way::Full | Way::Memory => in_process(routes),
        };
        let home = Home {
            _directory: directory,
            snapshots: store.snapshots.clone(),
        };
        Self {
            way,
            channel,
            _home: Some(Arc::new(home)),
        }
    }

    /// Another empty store, reached the same way.
    pub(crate) async fn another(&self) -> Self {
        Self::start(self.way).await
    }

    clients! {
        content: content_client::ContentClient,
        images: images_client::ImagesClient,
        snapshots: snapshots_client::SnapshotsClient,
        leases: leases_client::LeasesClient,
        archives: archives_client::ArchivesClient,
        maintenance: maintenance_client::MaintenanceClient,
    }
}

/// Calls without a socket, as from the same host.
fn in_process(routes: Routes) -> Channel {
    let local = |mut request: http::Request<Body>| {
        request.extensions_mut().insert(UdsConnectInfo {
            peer_addr: None,
            peer_cred: None,
        });
        request
    };
    let service = routes
        .map_request(local)
        .map_err(|never: Infallible| match never {});
    BoxCloneSyncService::new(service)
}

fn served(endpoint: &Endpoint, listener: Listener, routes: Routes) -> Channel {
    tokio::spawn(async move {
        let forever = std::future::pending();
        serve(listener, routes, &[], forever).await.unwrap();
    });
    BoxCloneSyncService::new(connect(endpoint).map_err(std::io::Error::other))
}

/// Tries again when somebody else has taken a port between its choice and its use.
async fn at_a_free_port() -> (Endpoint, Listener) {
    for _ in 0..100 {
        let chosen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Tcp(chosen.local_addr().unwrap());
        drop(chosen);
        if let Ok(listener) = Listener::bind(&endpoint, true).await {
            return (endpoint, listener);
        }
    }
    panic!("no port stays free");
}

/// Runs a case.
pub(crate) fn run<F: Future<Output = ()>>(way: Way, case: impl FnOnce(Subject) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let case = case(Subject::start(way).await);
        let ended = tokio::time::timeout(CASE_MAX, case).await;
        ended.expect("the case comes to an end");
    });
}
