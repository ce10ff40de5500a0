//! Puts the parts together and serves them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orlop_wire::{Listener, ServeError, serve, shutdown_signal};
use rustix::fs::{FlockOperation, flock};
use tonic::service::Routes;

use crate::archives::Archives;
use crate::check::{Check, Parts};
use crate::config::{Config, StoreArgs};
use crate::content::Content;
use crate::failpoint::Failpoint;
use crate::images::Images;
use crate::index::Index;
use crate::layers::decompress::Limits;
use crate::leases::Leases;
use crate::maintenance::Maintenance;
use crate::metrics::METRICS;
use crate::quarantine::Quarantine;
use crate::snapshots::Snapshots;
use crate::{StoreError, files, grpc};

const MIB: u64 = 1024 * 1024;
/// How long a layer that nothing is built on stays mounted for the next one.
const IDLE: Duration = Duration::from_secs(60);

/// All parts of a store; clones share them.
#[derive(Clone, Debug)]
pub struct Store {
    /// Blobs.
    pub content: Content,
    /// Names.
    pub images: Images,
    /// What must stay.
    pub leases: Leases,
    /// File trees.
    pub snapshots: Snapshots,
    /// Tars in and out.
    pub archives: Archives,
    /// What may go.
    pub maintenance: Maintenance,
    /// Whether all of it fits together.
    pub check: Check,
    /// The index of all of them.
    pub index: Index,
    /// Held for the lock on it: one store per state directory.
    _lock: Arc<File>,
}

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The socket cannot be bound.
    #[error(transparent)]
    Listen(#[from] orlop_wire::ListenError),
    /// Serving failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// The whole service, from its options to its end.
pub async fn run(config: &Config) -> Result<(), RunError> {
    if let Some(failpoint) = config.failpoint.as_deref().and_then(Failpoint::parse) {
        failpoint.arm();
    }
    let paths = config.service.paths.resolve();
    let endpoint = config
        .service
        .listen
        .clone()
        .unwrap_or_else(|| paths.endpoint("store"));
    let listener = Listener::bind(&endpoint, config.service.insecure).await?;
    let store = Store::open_with(&paths.state("store"), config.store)?;
    let idle = tokio::spawn(unmount_idle(store.snapshots.clone()));
    let _keeper = store.maintenance.keep_budget();
    serve(listener, store.routes(), &grpc::SERVICES, shutdown_signal()).await?;
    idle.abort();
    store.snapshots.unmount_all()?;
    Ok(())
}

/// Layers that nothing is built on any more do not stay mounted.
async fn unmount_idle(snapshots: Snapshots) {
    let mut ticks = tokio::time::interval(IDLE);
    loop {
        ticks.tick().await;
        let snapshots = snapshots.clone();
        let done = tokio::task::spawn_blocking(move || snapshots.unmount_idle(IDLE)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(%error, "layers stay mounted");
        }
    }
}

impl Store {
    /// Opens the store at a directory with the usual settings.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        Self::open_with(state, StoreArgs::default())
    }

    /// Opens the store at a directory: takes the lock, removes what a crash left unfinished, and
    /// fills the index from files when it cannot be trusted.
    pub fn open_with(state: &Path, args: StoreArgs) -> Result<Self, StoreError> {
        files::make_directory(state)?;
        let lock = lock(state)?;
        settle(state)?;
        let opened = Index::open(&state.join("index"));
        METRICS.index_rebuilds.inc_by(u64::from(opened.empty));
        let index = opened.index;
        let leases = Leases::open(&state.join("leases"))?;
        let content = Content::open_at(state, u64::from(args.disk_reserve_mib) * MIB)?;
        let images = Images::open(&state.join("images"), &content, &index, opened.empty)?;
        let disk_reserve = u64::from(args.disk_reserve_mib) * MIB;
        let limits = Limits {
            disk_reserve,
            ..Limits::default()
        };
        let snapshots =
            Snapshots::open(state, content.clone(), leases.clone(), limits, args.layers)?;
        let archives = Archives::new(content.clone(), images.clone(), limits);
        let grace = Duration::from_secs(u64::from(args.collect_grace_seconds));
        let maintenance = Maintenance::new(
            content.clone(),
            images.clone(),
            leases.clone(),
            snapshots.clone(),
            Quarantine::at(state),
            grace,
            args.budget_mib.map(|mib| mib.saturating_mul(MIB)),
        );
        let check = Check::new(Parts {
            state: state.to_owned(),
            content: content.clone(),
            images: images.clone(),
            leases: leases.clone(),
            snapshots: snapshots.clone(),
            index: index.clone(),
            quarantine: Quarantine::at(state),
        });
        let lock = Arc::new(lock);
        Ok(Self {
            content,
            images,
            leases,
            snapshots,
            archives,
            maintenance,
            check,
            index,
            _lock: lock,
        })
    }

    /// The services, to be served.
    pub fn routes(&self) -> Routes {
        grpc::routes(self)
    }
}

/// Makes durable what an earlier process was killed before it synced: what is seen from now on must not
/// be lost with the power.
fn settle(state: &Path) -> Result<(), StoreError> {
    let leases = state.join("leases");
    if leases.exists() {
        settle_leases(&leases)?;
    }
    let parts = ["images", "layers", "snapshots", "ingest"].map(|part| state.join(part));
    let blobs = ["sha256", "sha384", "sha512"].map(|part| state.join("blobs").join(part));
    let all = parts.iter().chain(&blobs).chain([&leases]);
    all.filter(|directory| directory.exists())
        .try_for_each(|directory| files::sync_directory(directory))
}

/// Lines are appended to these files. All are cleared before the first is synced: the journal of the
/// file system then commits once.
fn settle_leases(directory: &Path) -> Result<(), StoreError> {
    let names = files::names(directory)?;
    let paths: Vec<_> = names.iter().map(|name| directory.join(name)).collect();
    for path in paths.iter().filter(|path| path.is_file()) {
        files::clear_behind_end(path)?;
    }
    paths
        .iter()
        .try_for_each(|path| files::sync_directory(path))
}

fn lock(state: &Path) -> Result<File, StoreError> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(StoreError::io("create", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked {
            path: state.to_owned(),
        }),
        Err(error) => Err(StoreError::io("lock", &path)(error)),
    }
}
