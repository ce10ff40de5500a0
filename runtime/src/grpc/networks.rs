//! `Networks`.

use std::sync::Arc;

use orlop_proto::error::{to_status, unimplemented};
use orlop_proto::runtime as wire;
use orlop_proto::runtime::networks_server::Networks;
use tonic::{Request, Response, Status};

use crate::network::{Network, NetworkError, NetworkInfo, NetworkKind};

/// The networks of this instance.
#[derive(Debug)]
pub(super) struct Service {
    network: Arc<Network>,
}

impl Service {
    /// Answers for these networks.
    pub(super) fn new(network: Arc<Network>) -> Self {
        Self { network }
    }
}

#[tonic::async_trait]
impl Networks for Service {
    async fn create(
        &self,
        _request: Request<wire::CreateNetworkRequest>,
    ) -> Result<Response<wire::Network>, Status> {
        Err(unimplemented("Networks.Create"))
    }

    async fn list(
        &self,
        _request: Request<wire::ListNetworksRequest>,
    ) -> Result<Response<wire::ListNetworksResponse>, Status> {
        let networks = self.network.list().await;
        let networks = networks.map_err(|error| to_status(&error))?;
        let networks = networks.into_iter().map(message).collect();
        Ok(Response::new(wire::ListNetworksResponse { networks }))
    }

    async fn inspect(
        &self,
        request: Request<wire::InspectNetworkRequest>,
    ) -> Result<Response<wire::Network>, Status> {
        let name = request.into_inner().name;
        let kind = kind_of(&name).map_err(|error| to_status(&error))?;
        let network = self.network.inspect(kind).await;
        let network = network.map_err(|error| to_status(&error))?;
        Ok(Response::new(message(network)))
    }

    async fn remove(
        &self,
        _request: Request<wire::RemoveNetworkRequest>,
    ) -> Result<Response<wire::RemoveNetworkResponse>, Status> {
        Err(unimplemented("Networks.Remove"))
    }
}

/// An empty name is no network here, as it is when a container is created.
fn kind_of(name: &str) -> Result<NetworkKind, NetworkError> {
    match name {
        "" => Err(NetworkError::UnknownNetwork(String::new())),
        name => name.parse(),
    }
}

fn message(info: NetworkInfo) -> wire::Network {
    wire::Network {
        name: info.kind.name().to_owned(),
        driver: info.kind.driver().to_owned(),
        subnet: info.subnet,
        gateway: info.gateway,
        interface: info.interface,
        labels: std::collections::HashMap::default(),
    }
}
