//! What can go wrong in this service, and which row of the table of kinds each cause is.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use orlop_proto::descriptor::DescriptorError;
use orlop_proto::error::{Classify, Failure, Kind, reason};
use orlop_proto::reference::ReferenceError;

use crate::index::IndexError;
use crate::manifest::ManifestError;
use crate::names::NameError;

/// The result of nearly everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A cause each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was typed for an image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A repository or a tag.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A digest or a descriptor in a request.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// A credential without a registry, or for another one.
    #[error("the credential is for {credential:?} and not for {registry}")]
    Credential {
        /// Whose it is.
        credential: String,
        /// Whom it was to be shown.
        registry: String,
    },
    /// A request whose fields contradict each other.
    #[error("invalid request: {0}")]
    Request(String),
    /// A manifest that is refused.
    #[error("{origin}: the manifest is refused")]
    Manifest {
        /// Who sent it.
        origin: String,
        /// Why.
        source: ManifestError,
    },
    /// A document larger than we read.
    #[error("{what} is larger than {most} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// The limit in bytes.
        most: usize,
    },
    /// No such image in the store.
    #[error("no such image: {0}")]
    ImageNotFound(String),
    /// One of our own repositories, or something in it.
    #[error("not found: {what} in repository {repository}")]
    NotFound {
        /// The repository.
        repository: String,
        /// The tag, the digest, or `anything`.
        what: String,
    },
    /// A manifest that names what its repository does not have.
    #[error("repository {repository} has no {digest}, which the manifest names")]
    MissingLink {
        /// The repository.
        repository: String,
        /// What is missing.
        digest: String,
    },
    /// The remote's 404.
    #[error("{host} has no {what}")]
    RemoteNotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// An index without the platform.
    #[error("{name} has no image for {wanted} (it has {offered})")]
    NoPlatform {
        /// The image.
        name: String,
        /// The platform.
        wanted: String,
        /// Those that it has.
        offered: String,
    },
    /// The remote's 401.
    #[error("{host} does not let you in: {detail}")]
    Unauthenticated {
        /// The registry.
        host: String,
        /// What it said.
        detail: String,
    },
    /// The remote's 403.
    #[error("{host} denies access: {detail}")]
    Denied {
        /// The registry.
        host: String,
        /// What it said.
        detail: String,
    },
    /// Something that does not speak the protocol.
    #[error("{host} is not a registry: {got}")]
    NotARegistry {
        /// Who.
        host: String,
        /// What it answered.
        got: String,
    },
    /// Bytes that are not what their digest or size says.
    #[error("{host} sent wrong bytes for {digest}: {detail}")]
    WrongBytes {
        /// The registry.
        host: String,
        /// What was asked for.
        digest: String,
        /// What is wrong.
        detail: String,
    },
    /// Nobody answers, or the connection broke too often.
    #[error("cannot reach registry {host}")]
    Unreachable {
        /// The registry.
        host: String,
        /// What the transport says.
        source: reqwest::Error,
    },
    /// An answer with an error status.
    #[error("{host} answered {status}: {detail}")]
    Status {
        /// The registry.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// A token server that must not see the credential (`SECURITY` row G2).
    #[error("{host} wants the credential to be sent to {realm}, which is refused: {reason}")]
    Realm {
        /// The registry.
        host: String,
        /// Where it points.
        realm: String,
        /// Why not.
        reason: &'static str,
    },
    /// A redirect that is not followed (`SECURITY` row G3).
    #[error("{host} redirects to {target}, which is refused: {reason}")]
    Redirect {
        /// The registry.
        host: String,
        /// Where it points.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The store's answer, passed on.
    #[error(transparent)]
    Store(#[from] Failure),
    /// A file of ours.
    #[error("{path}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// `/v2/` is not served.
    #[error("the registry serves no HTTP: {0}")]
    NoEndpoint(String),
    /// The address of `/v2/` cannot be had.
    #[error("cannot serve /v2/ at {address}")]
    Bind {
        /// `host:port`.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// An address that others can reach, without authentication.
    #[error(
        "refusing to serve /v2/ at {0}: anyone who reaches it could read and write every image"
    )]
    Anonymous(String),
    /// A blocking task of ours ended without a result.
    #[error("a task of the registry failed")]
    Task(#[from] tokio::task::JoinError),
    /// Our own gRPC socket.
    #[error(transparent)]
    Listen(#[from] orlop_wire::ListenError),
    /// Serving it.
    #[error(transparent)]
    Serve(#[from] orlop_wire::ServeError),
}

impl Error {
    /// Adds the path to what the system said.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Reference(_)
            | Self::Name(_)
            | Self::Descriptor(_)
            | Self::Credential { .. }
            | Self::Request(_)
            | Self::Manifest { .. } => Kind::InvalidArgument,
            Self::TooLarge { .. } => Kind::ResourceExhausted,
            Self::ImageNotFound(_)
            | Self::NotFound { .. }
            | Self::RemoteNotFound { .. }
            | Self::NoPlatform { .. } => Kind::NotFound,
            Self::Unauthenticated { .. } => Kind::Unauthenticated,
            Self::Denied { .. } => Kind::PermissionDenied,
            Self::WrongBytes { .. } => Kind::DataLoss,
            Self::Unreachable { .. } => Kind::Unavailable,
            Self::Status { status, .. } if *status >= 500 || *status == 429 => Kind::Unavailable,
            Self::MissingLink { .. }
            | Self::NotARegistry { .. }
            | Self::Status { .. }
            | Self::Realm { .. }
            | Self::Redirect { .. }
            | Self::NoEndpoint(_)
            | Self::Bind { .. }
            | Self::Anonymous(_) => Kind::FailedPrecondition,
            Self::Store(failure) => failure.kind,
            Self::Client(_)
            | Self::Io { .. }
            | Self::Index(_)
            | Self::Task(_)
            | Self::Listen(_)
            | Self::Serve(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::NotARegistry { .. } => Some(reason::NOT_A_REGISTRY),
            Self::WrongBytes { .. } => Some(reason::DIGEST_MISMATCH),
            Self::ImageNotFound(_) => Some(reason::IMAGE_NOT_FOUND),
            Self::Store(failure) => failure.reason(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unauthenticated { host, .. } | Self::Denied { host, .. } => Some(format!(
                "log in with `orlop login {host}`, and check the name"
            )),
            Self::ImageNotFound(_) => Some("list images with `orlop images`".to_owned()),
            Self::Anonymous(_) => Some(
                "serve a loopback address, or allow it with --registry-http-anonymous".to_owned(),
            ),
            Self::Store(failure) => failure.hint(),
            _ => None,
        }
    }

    fn metadata(&self) -> HashMap<String, String> {
        match self {
            Self::Store(failure) => failure.metadata(),
            _ => HashMap::new(),
        }
    }
}
