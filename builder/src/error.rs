//! Why a build, or a question about the cache, fails.

use std::collections::HashMap;

use orlop_proto::error::{Classify, Failure, Kind, reason};

use crate::dockerfile::DockerfileError;

/// Every cause. Clonable, because builds that share a step share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BuildError {
    /// A mistake in the Dockerfile.
    #[error("{0}")]
    Dockerfile(DockerfileError),
    /// The Dockerfile is not text.
    #[error("{name} is not UTF-8 text")]
    NotText {
        /// Its name.
        name: String,
    },
    /// An RUN command ended with another code than 0.
    #[error("{place}: process {command:?} did not complete successfully: exit code: {code}")]
    CommandFailed {
        /// `Dockerfile:3`.
        place: String,
        /// What was run.
        command: String,
        /// Its exit code.
        code: i32,
    },
    /// The runtime said nothing more, and not how the command ended.
    #[error("{place}: the runtime did not tell how the command ended; build again")]
    NoExit {
        /// `Dockerfile:3`.
        place: String,
    },
    /// No such stage.
    #[error("target stage {target:?} not found in {name}: the stages are {stages}")]
    Target {
        /// What was asked for.
        target: String,
        /// The Dockerfile.
        name: String,
        /// What there is.
        stages: String,
    },
    /// A tag that is none.
    #[error("invalid tag: {0}")]
    Tag(#[from] orlop_proto::reference::ReferenceError),
    /// A network that is none.
    #[error("unknown network {0:?} for a build: expected bridge, none or host")]
    Network(String),
    /// What the client sends of its context breaks the rules.
    #[error("build context: {0}")]
    Context(String),
    /// A file had another content when it was sent than when it was hashed.
    #[error("the file {path:?} changed while it was sent; build again")]
    ContextChanged {
        /// The file.
        path: String,
    },
    /// The client broke the order of messages.
    #[error("unexpected message: expected {0}")]
    Protocol(&'static str),
    /// A base image that cannot be used.
    #[error("base image {image}: {problem}")]
    Base {
        /// Its name.
        image: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another service failed.
    #[error("{doing}")]
    Service {
        /// What was being done.
        doing: String,
        /// What it said.
        #[source]
        source: Failure,
    },
    /// The builder's own state cannot be read or written.
    #[error("builder state {path}: {problem}")]
    State {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The image's documents cannot be made.
    #[error("cannot write the image's {document}: {problem}")]
    Document {
        /// Configuration or manifest.
        document: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The client went away, or the service stops.
    #[error("the build was cancelled")]
    Cancelled,
}

impl From<DockerfileError> for BuildError {
    fn from(error: DockerfileError) -> Self {
        Self::Dockerfile(error)
    }
}

/// Says what was being done when another service failed.
pub trait Doing<T> {
    /// The failure with its context.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, BuildError>;
}

impl<T> Doing<T> for Result<T, Failure> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, BuildError> {
        self.map_err(|source| BuildError::Service {
            doing: crate::redact::urls(&what()),
            source,
        })
    }
}

impl Classify for BuildError {
    fn kind(&self) -> Kind {
        match self {
            Self::Dockerfile(_)
            | Self::NotText { .. }
            | Self::Target { .. }
            | Self::Tag(_)
            | Self::Network(_)
            | Self::Context(_)
            | Self::Protocol(_)
            | Self::Base { .. } => Kind::InvalidArgument,
            Self::CommandFailed { .. } => Kind::FailedPrecondition,
            Self::ContextChanged { .. } => Kind::Aborted,
            Self::NoExit { .. } => Kind::Unavailable,
            Self::Service { source, .. } => source.kind(),
            Self::State { .. } | Self::Document { .. } => Kind::Internal,
            Self::Cancelled => Kind::Cancelled,
        }
    }

    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Dockerfile(_) => Some(reason::DOCKERFILE_ERROR),
            Self::CommandFailed { .. } => Some(reason::COMMAND_FAILED),
            Self::Service { source, .. } => source.reason(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Service { source, .. } => source.hint(),
            _ => None,
        }
    }

    fn metadata(&self) -> HashMap<String, String> {
        match self {
            Self::CommandFailed { code, .. } => {
                HashMap::from([("exit_code".to_owned(), code.to_string())])
            }
            Self::Service { source, .. } => source.metadata(),
            _ => HashMap::new(),
        }
    }
}
