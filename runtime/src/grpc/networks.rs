//! `Networks`.

use orlop_proto::error::to_status;
use orlop_proto::runtime as wire;
use orlop_proto::runtime::networks_server::Networks;
use tonic::{Request, Response, Status};

use super::convert::network;
use super::status;
use crate::containers::Containers;
use crate::error::Error;
use crate::network::{NetworkError, NetworkInfo};

/// The networks of this instance.
#[derive(Debug)]
pub(super) struct Service(pub(super) Containers);

#[tonic::async_trait]
impl Networks for Service {
    async fn create(
        &self,
        request: Request<wire::CreateNetworkRequest>,
    ) -> Result<Response<wire::Network>, Status> {
        let made = self.0.create_network(request.into_inner()).await;
        Ok(Response::new(network(made.map_err(status)?)))
    }

    async fn list(
        &self,
        _request: Request<wire::ListNetworksRequest>,
    ) -> Result<Response<wire::ListNetworksResponse>, Status> {
        let networks = self.0.network().list();
        let networks = networks.into_iter().map(network).collect();
        Ok(Response::new(wire::ListNetworksResponse { networks }))
    }

    async fn inspect(
        &self,
        request: Request<wire::InspectNetworkRequest>,
    ) -> Result<Response<wire::Network>, Status> {
        let found = self.0.network().inspect(&request.into_inner().name);
        let found = found.map_err(|error| to_status(&error))?;
        Ok(Response::new(network(found)))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveNetworkRequest>,
    ) -> Result<Response<wire::RemoveNetworkResponse>, Status> {
        let removed = self.0.remove_network(&request.into_inner().name).await;
        removed.map_err(status)?;
        Ok(Response::new(wire::RemoveNetworkResponse {}))
    }

    async fn connect_container(
        &self,
        request: Request<wire::ConnectContainerRequest>,
    ) -> Result<Response<wire::ConnectContainerResponse>, Status> {
        let request = request.into_inner();
        let membership = request.membership.unwrap_or_default();
        let container = self.0.find(&request.container).map_err(status)?;
        let connected = self.0.connect(&container, &membership).await;
        connected.map_err(status)?;
        Ok(Response::new(wire::ConnectContainerResponse {}))
    }

    async fn disconnect_container(
        &self,
        request: Request<wire::DisconnectContainerRequest>,
    ) -> Result<Response<wire::DisconnectContainerResponse>, Status> {
        let request = request.into_inner();
        let left = match self.0.find(&request.container) {
            Ok(container) => self.0.disconnect(&container, &request.network).await,
            Err(error) => Err(error),
        };
        match left {
            Err(Error::NoContainer(_) | Error::Network(NetworkError::NotConnected { .. }))
                if request.force => {}
            left => left.map_err(status)?,
        }
        Ok(Response::new(wire::DisconnectContainerResponse {}))
    }

    async fn prune(
        &self,
        request: Request<wire::PruneNetworksRequest>,
    ) -> Result<Response<wire::PruneNetworksResponse>, Status> {
        let labels = super::convert::labels(request.into_inner().filters).map_err(status)?;
        let fits = |network: &NetworkInfo| {
            labels.iter().all(|(key, value)| {
                let own = network.labels.get(key);
                own.is_some_and(|own| value.as_ref().is_none_or(|value| own == value))
            })
        };
        let names = self.0.prune_networks(fits).await;
        Ok(Response::new(wire::PruneNetworksResponse { names }))
    }
}
