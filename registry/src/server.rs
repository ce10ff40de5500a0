//! Builds the parts, and serves them until told to stop.

use std::sync::Arc;

use orlop_wire::Listener;
use tokio::sync::watch;

use crate::index::Index;
use crate::ports::Store;
use crate::remote::delay;
use crate::repositories::Repositories;
use crate::transfer::Transfer;
use crate::v2::{self, Http, V2};
use crate::{Config, Result, clients, grpc};

/// Serves with the store that the configuration names.
pub async fn serve(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let store = clients::store(&config.store());
    serve_with(config, store, shutdown).await
}

/// Serves with this store.
pub async fn serve_with(
    config: Config,
    store: Store,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let listener = Listener::bind(&config.listen(), config.service.insecure).await?;
    let http = v2::bind(&config).await?;
    let root = config.service.paths.resolve().make_state("registry")?;
    let (opened, for_parts) = (root.clone(), store.clone());
    let open = move || -> Result<_> {
        let (index, rebuild) = Index::open(&opened.join("index"))?;
        let index = Arc::new(index);
        let repositories = Repositories::open(&opened, Arc::clone(&index), rebuild, for_parts)?;
        Ok((index, Arc::new(repositories), rebuild))
    };
    let (index, repositories, rebuilt) = tokio::task::spawn_blocking(open).await??;
    if rebuilt {
        tokio::spawn(hold_again(Arc::clone(&repositories)));
    }
    let transfer = Arc::new(Transfer::new(store.clone(), Arc::clone(&index)));

    let (stop, stopped) = watch::channel(false);
    let address = match http {
        Http::Off(reason) => Err(reason),
        Http::Listening(listener, address) => {
            let loopback = address.ip().is_loopback();
            let v2 = Arc::new(V2::new(Arc::clone(&repositories), store, loopback));
            tokio::spawn(v2::serve(listener, v2, stopped));
            tracing::info!(%address, "serving /v2/");
            Ok(address)
        }
    };
    let routes = grpc::routes(transfer, repositories, address);
    let served = orlop_wire::serve(listener, routes, &grpc::SERVICES, shutdown).await;
    stop.send_replace(true);
    tokio::task::spawn_blocking(move || index.close()).await??;
    Ok(served?)
}

/// After a crash: what repositories have is held in the store, as soon as that answers.
async fn hold_again(repositories: Arc<Repositories>) {
    let mut attempt = 0;
    while let Err(error) = repositories.hold_again().await {
        let Some(pause) = delay(attempt) else {
            let error = orlop_proto::error::chain(&error);
            tracing::error!(error, "the leases of the repositories were not made anew");
            return;
        };
        attempt += 1;
        tokio::time::sleep(pause).await;
    }
}
