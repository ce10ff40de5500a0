//! Builds the parts of the service and serves them.

use std::path::Path;

use orlop_wire::{ListenError, Listener, ServeError, serve, shutdown_signal};

use crate::build::Builder;
use crate::cache::Cache;
use crate::clients;
use crate::config::Config;
use crate::context::Memory;
use crate::error::BuildError;
use crate::flight::Flights;
use crate::grpc;
use crate::index::Index;
use crate::ports::Ports;

/// Why the service does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its state.
    #[error(transparent)]
    State(#[from] BuildError),
    /// Serving.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the service until it is told to stop.
pub async fn run(config: &Config) -> Result<(), ServerError> {
    let paths = config.service.paths.resolve();
    let endpoint = config
        .service
        .listen
        .clone()
        .unwrap_or_else(|| paths.endpoint("builder"));
    let listener = Listener::bind(&endpoint, config.service.insecure).await?;
    let builder = open(
        &paths.make_state("builder")?,
        clients::ports(&config.endpoints(&paths)),
    )?;
    serve(
        listener,
        grpc::routes(&builder),
        &grpc::SERVICES,
        shutdown_signal(),
    )
    .await?;
    Ok(())
}

/// The builder over its state directory, which is made if need be.
pub fn open(state: &Path, ports: Ports) -> Result<Builder, BuildError> {
    let memory = Memory::open(&state.join("contexts"))?;
    let cache = Cache::new(Index::open(&state.join("index"))?);
    Ok(Builder {
        ports,
        cache,
        memory,
        flights: Flights::default(),
    })
}
