//! Builds the service's parts, finds what an earlier life left running, and serves.

use std::sync::Arc;

use orlop_wire::{Listener, shutdown_signal};

use crate::cgroups::Cgroups;
use crate::clients::Store;
use crate::config::Config;
use crate::containers::{Containers, Parts, recover};
use crate::error::{Result, blocking};
use crate::events::Events;
use crate::grpc;
use crate::index::Index;
use crate::memory;
use crate::network::{Network, instance};
use crate::runtimes::Runtimes;
use crate::shim::Program;
use crate::subids::SubIds;
use crate::volumes::Volumes;

/// Runs the service until it is told to stop. Containers live on.
pub async fn serve(config: Config) -> Result<()> {
    serve_until(config, shutdown_signal()).await
}

/// Runs the service until `shutdown` resolves.
pub async fn serve_until(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    // The socket's lock comes first: no two services work on one root.
    let endpoint = config.endpoint();
    let listener = Listener::bind(&endpoint, config.service.insecure).await?;
    let containers = open(&config).await?;
    let (routes, names) = grpc::routes(&containers);
    let events = containers.events().clone();
    tokio::spawn(memory::give_back_after_work(events.clone()));
    let shutdown = async move {
        shutdown.await;
        events.close();
    };
    orlop_wire::serve(listener, routes, &names, shutdown).await?;
    containers.release().await;
    Ok(())
}

async fn open(config: &Config) -> Result<Containers> {
    let paths = config.paths();
    let state = paths.state("runtime");
    let directory = state.join("containers");
    let sockets = paths.run_dir.join("shims");
    let store = Store::connect(&config.store_endpoint());
    let instance = instance::name(&paths.root);
    let (shim, no_new_privileges) = (config.shim_file(), config.no_new_privileges);
    let runtimes = Runtimes::new(config.runtime.clone(), config.search_path());
    let (log_bytes_max, network_pool) = (config.log_bytes_max, config.network_pool);
    let userns = config.default_userns().to_owned();
    let subordinate = config.subordinate_user().map(str::to_owned);
    let published_ports = config.published_ports;
    let events = Events::new();
    let parts = blocking(move || {
        recover::make_directories(&directory, &sockets)?;
        Ok(Parts {
            volumes: Volumes::open(state.join("volumes"), events.clone())?,
            cgroups: Cgroups::discover(&instance)?,
            index: Index::open(&state.join("index"), directory.clone())?,
            network: Arc::new(Network::open(
                &paths.root,
                &state.join("networks"),
                network_pool,
                published_ports,
            )?),
            directory,
            sockets,
            shim: Program::open(shim),
            runtimes,
            no_new_privileges,
            userns,
            subids: SubIds::open(subordinate.as_deref())?,
            log_bytes_max,
            store,
            events,
        })
    })
    .await?;
    let containers = Containers::new(parts);
    containers.recover().await?;
    Ok(containers)
}
