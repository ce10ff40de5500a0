//! Counts rpcs and makes a span of each. A call is in flight until the last byte of its answer is taken, so
//! that the time of a stream is how long it was open. The names are those of the gRPC projects' own
//! Prometheus interceptors, for which dashboards exist.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::{Counter, Family, Gauge, Histogram, register, seconds};

type Labels = [(&'static str, Arc<str>); 2];
type CodeLabels = [(&'static str, Arc<str>); 3];
type Seconds = Family<Labels, Histogram, fn() -> Histogram>;

/// The metrics of all rpcs, and the labels of each path.
struct Calls {
    started: Family<Labels, Counter>,
    handled: Family<CodeLabels, Counter>,
    seconds: Seconds,
    in_flight: Family<Labels, Gauge>,
    labels: HashMap<String, Labels>,
    unknown: Labels,
}

static CALLS: LazyLock<Calls> = LazyLock::new(|| Calls {
    started: register("grpc_server_started", "Calls that began", Family::default()),
    handled: register(
        "grpc_server_handled",
        "Calls that ended, by their code",
        Family::default(),
    ),
    seconds: register(
        "grpc_server_handling_seconds",
        "From the request's head to the answer's last byte",
        Seconds::new_with_constructor(seconds),
    ),
    in_flight: register(
        "grpc_server_in_flight",
        "Calls that began and did not end",
        Family::default(),
    ),
    labels: paths().collect(),
    unknown: labels("unknown", "unknown"),
});

/// The rpcs of the contracts, and of what every service has beside them. What a client calls that is none of them
/// gets no labels of its own: clients must not be able to make metrics.
fn paths() -> impl Iterator<Item = (String, Labels)> {
    let sets = [
        orlop_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.into_iter().flat_map(|set| {
        let decoded = FileDescriptorSet::decode(set);
        decoded.map(|set| set.file).unwrap_or_default()
    });
    files.flat_map(|file| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let name = format!("{package}.{}", service.name());
            let methods: Vec<_> = service.method.iter().map(|m| m.name().to_owned()).collect();
            methods
                .into_iter()
                .map(move |method| (format!("/{name}/{method}"), labels(&name, &method)))
        })
    })
}

fn labels(service: &str, method: &str) -> Labels {
    [
        ("grpc_service", Arc::from(service)),
        ("grpc_method", Arc::from(method)),
    ]
}

/// Wraps the routes of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallsLayer;

impl<S> Layer<S> for CallsLayer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner }
    }
}

/// A service whose calls are counted.
#[derive(Clone, Debug)]
pub(crate) struct Counted<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<CountedBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut call = Call::begin(request.uri().path());
        let method = request.uri().path().trim_start_matches('/');
        let span = tracing::info_span!("rpc", method, about = tracing::field::Empty);
        let answer = self.inner.call(request);
        let counted = async move {
            let response = answer.await?;
            call.see(response.headers());
            Ok(response.map(|body| CountedBody { body, call }))
        };
        Box::pin(counted.instrument(span))
    }
}

/// A call in flight. What is dropped before its status was seen was given up by the client.
struct Call {
    labels: &'static Labels,
    began: Instant,
    code: Code,
}

impl Call {
    fn begin(path: &str) -> Self {
        let labels = CALLS.labels.get(path).unwrap_or(&CALLS.unknown);
        CALLS.started.get_or_create(labels).inc();
        CALLS.in_flight.get_or_create(labels).inc();
        Self {
            labels,
            began: Instant::now(),
            code: Code::Cancelled,
        }
    }

    /// The status is in the trailers, or in the headers of an answer without a body.
    fn see(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = status.code();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let [service, method] = self.labels.clone();
        let code = [service, method, ("grpc_code", name(self.code).into())];
        CALLS.handled.get_or_create(&code).inc();
        CALLS.in_flight.get_or_create(self.labels).dec();
        let seconds = self.began.elapsed().as_secs_f64();
        CALLS.seconds.get_or_create(self.labels).observe(seconds);
    }
}

/// The names that gRPC for Go gives to the codes.
fn name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        other => format!("{other:?}"),
    }
}

/// An answer on its way; its end is the call's.
pub(crate) struct CountedBody {
    body: Body,
    call: Call,
}

impl http_body::Body for CountedBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.see(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
