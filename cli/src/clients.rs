//! Connections to the services, made when first used; with no service running and none configured
//! they are started first. The only file here that knows the transport.

use std::cell::OnceCell;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use orlop_proto::error::Failure;
use orlop_proto::{builder, registry, runtime, store};
use orlop_wire::{Endpoint, MESSAGE_BYTES_MAX};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::config::{Config, SERVICES};
use crate::error::CliError;
use crate::services;

/// A stream of answers.
pub(crate) type Answers<T> = tonic::Streaming<T>;

/// How long a service may take to say that it is well.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// The services of one instance.
#[derive(Debug)]
pub(crate) struct Clients {
    config: Config,
    channels: [OnceCell<Channel>; 4],
}

/// A client for each gRPC service, with our message limits.
macro_rules! clients {
    ($($name:ident: $service:literal, $($path:ident)::+;)*) => {$(
        pub(crate) fn $name(&self) -> Result<$($path)::+<Channel>, CliError> {
            Ok(<$($path)::+<Channel>>::new(self.channel($service)?)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX))
        }
    )*};
}

impl Clients {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            channels: Default::default(),
        }
    }

    clients! {
        images: "store", store::images_client::ImagesClient;
        archives: "store", store::archives_client::ArchivesClient;
        maintenance: "store", store::maintenance_client::MaintenanceClient;
        containers: "runtime", runtime::containers_client::ContainersClient;
        events: "runtime", runtime::events_client::EventsClient;
        networks: "runtime", runtime::networks_client::NetworksClient;
        volumes: "runtime", runtime::volumes_client::VolumesClient;
        build: "builder", builder::build_client::BuildClient;
        cache: "builder", builder::cache_client::CacheClient;
        transfer: "registry", registry::transfer_client::TransferClient;
        repositories: "registry", registry::repositories_client::RepositoriesClient;
    }

    /// Makes sure that these services answer, for a command that will need them through another one.
    pub(crate) fn need(&self, names: &[&'static str]) -> Result<(), CliError> {
        for name in names {
            self.channel(name)?;
        }
        Ok(())
    }

    fn channel(&self, service: &'static str) -> Result<Channel, CliError> {
        let index = SERVICES.iter().position(|name| *name == service);
        let cell = &self.channels[index.unwrap_or_default()];
        if let Some(channel) = cell.get() {
            return Ok(channel.clone());
        }
        let endpoint = self.config.endpoint(service);
        match probe(endpoint) {
            Ok(()) => {}
            Err(error) if !self.config.configured && is_absent(&error) => {
                services::start_missing(&self.config, &services::StartOptions::default())?;
            }
            Err(source) => {
                return Err(CliError::Unreachable {
                    service,
                    endpoint: endpoint.to_string(),
                    source,
                });
            }
        }
        Ok(cell.get_or_init(|| orlop_wire::connect(endpoint)).clone())
    }
}

/// Whether something listens at an endpoint. Costs tens of microseconds on a Unix socket.
pub(crate) fn probe(endpoint: &Endpoint) -> io::Result<()> {
    match endpoint {
        Endpoint::Unix(path) => services::connect_unix(path).map(drop::<UnixStream>),
        Endpoint::Tcp(address) => {
            std::net::TcpStream::connect_timeout(address, Duration::from_secs(5)).map(drop)
        }
    }
}

/// Whether an error of [`probe`] says that nobody listens.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Asks a service for its health. Blocks; runs on a thread of its own, because it is also needed
/// within the async runtime of a command.
pub(crate) fn healthy(endpoint: &Endpoint) -> bool {
    let endpoint = endpoint.clone();
    let check = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .ok()?;
        runtime.block_on(async {
            let mut client = HealthClient::new(orlop_wire::connect(&endpoint));
            let call = client.check(HealthCheckRequest::default());
            tokio::time::timeout(HEALTH_TIMEOUT, call).await.ok()?.ok()
        })
    };
    std::thread::spawn(check).join().ok().flatten().is_some()
}

impl From<tonic::Status> for CliError {
    fn from(status: tonic::Status) -> Self {
        let mut failure = Failure::from(status);
        if failure.message.is_empty() {
            failure.message = format!(
                "the service answered with an error of kind {:?}",
                failure.kind
            );
        }
        Self::Service(Box::new(failure))
    }
}
