//! Serving until told to stop, then draining.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;

use crate::listen::Socket;
use crate::metrics::{self, CallsLayer};
use crate::{
    CONNECTION_WINDOW_BYTES, Endpoint, Listener, PathArgs, STREAM_WINDOW_BYTES, telemetry,
};

/// How long calls in flight may go on after the signal to stop. Streams that follow something for
/// ever are cut then; their clients see UNAVAILABLE.
const DRAIN: Duration = Duration::from_secs(3);
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;

/// The options that every service has.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceArgs {
    /// Which instance.
    #[command(flatten)]
    pub paths: PathArgs,

    /// Where to serve [default: the service's socket in the run directory]
    #[arg(long, value_name = "ENDPOINT")]
    pub listen: Option<Endpoint>,

    /// Allow plain TCP on a loopback address, and metrics on any
    #[arg(long)]
    pub insecure: bool,

    /// Serve metrics for Prometheus at http://ADDRESS/metrics (port 0 for any) [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,

    /// What to log: error, warn, info, debug, trace, or directives of tracing
    #[arg(long, env = "ORLOP_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// Why serving ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("serving at {endpoint} failed")]
    Transport {
        /// Where.
        endpoint: Endpoint,
        /// What tonic said.
        source: tonic::transport::Error,
    },
    /// The contracts' descriptors do not load.
    #[error("server reflection cannot be set up")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// The frame of every service's `main`: logs, a tokio runtime, the exit code. An error is logged here,
/// once.
pub fn run<E: std::error::Error>(
    service: &str,
    args: &ServiceArgs,
    body: impl Future<Output = Result<(), E>>,
) -> ExitCode {
    telemetry::init(&args.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(service, %error, "cannot start the async runtime");
            return ExitCode::FAILURE;
        }
    };
    let fail = |error: &dyn std::error::Error| {
        let error = orlop_proto::error::chain(error);
        tracing::error!(service, error, "cannot serve");
        ExitCode::FAILURE
    };
    runtime.block_on(async {
        if let Some(address) = args.metrics {
            match metrics::serve(address, args.insecure).await {
                Ok(address) => tracing::info!(%address, "serving metrics"),
                Err(error) => return fail(&error),
            }
        }
        match body.await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        }
    })
}

/// Serves the routes, with health and reflection beside them, until `shutdown`; then drains.
/// `services` are the full names of the gRPC services, for the health service.
pub async fn serve(
    listener: Listener,
    routes: Routes,
    services: &[&str],
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    for name in services {
        health
            .set_service_status(name, tonic_health::ServingStatus::Serving)
            .await;
    }
    let routes = routes.add_service(health_service);
    let routes = routes.add_service(reflection().build_v1().map_err(ServeError::Reflection)?);
    let routes = routes.add_service(
        reflection()
            .build_v1alpha()
            .map_err(ServeError::Reflection)?,
    );

    let endpoint = listener.endpoint.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopping = async move {
        shutdown.await;
        drop(stop);
    };
    let router = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true)
        .layer(CallsLayer)
        .add_routes(routes);
    tracing::info!(%endpoint, "serving");
    let serving = async {
        match listener.socket {
            Socket::Unix(socket) => {
                router
                    .serve_with_incoming_shutdown(UnixListenerStream::new(socket), stopping)
                    .await
            }
            Socket::Tcp(socket) => {
                router
                    .serve_with_incoming_shutdown(TcpListenerStream::new(socket), stopping)
                    .await
            }
        }
    };
    let drained = async {
        stopped.await.ok();
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = serving => result.map_err(|source| ServeError::Transport { endpoint, source }),
        () = drained => Ok(()),
    }
}

fn reflection<'a>() -> tonic_reflection::server::Builder<'a> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(orlop_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Resolves at SIGTERM or SIGINT.
pub async fn shutdown_signal() {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("cannot listen for signals");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("shutting down");
}

/// Whether a request came over a Unix socket, so from this host.
pub fn is_local<T>(request: &tonic::Request<T>) -> bool {
    request.extensions().get::<UdsConnectInfo>().is_some()
}
