//! FROM: the image is in the store, or the registry pulls it.

use futures_util::StreamExt as _;
use orlop_proto::error::{Failure, Kind, reason};
use orlop_proto::reference::Reference;
use orlop_proto::registry::PullRequest;
use orlop_proto::store::ResolvedImage;
use orlop_proto::types::Credential;

use crate::dockerfile::Span;
use crate::error::{BuildError, Doing as _};
use crate::events::Sink;
use crate::image::Base;
use crate::ports::Ports;

/// How base images are got.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Pull though it is here.
    pub pull: bool,
    /// One for each registry.
    pub credentials: Vec<Credential>,
    /// Plain HTTP beyond loopback.
    pub insecure: bool,
}

impl Sources {
    /// One base image.
    pub async fn base(
        &self,
        ports: &Ports,
        name: &str,
        span: &Span,
        events: &Sink,
    ) -> Result<Base, BuildError> {
        let doing = || format!("{span}: base image {}", familiar(name));
        let here = match self.pull {
            true => None,
            false => ports.images.resolve(name).await.doing(doing)?,
        };
        if let Some(image) = here {
            return Base::read(&image, name, false);
        }
        let image = self.pulled(ports, name, events).await.doing(doing)?;
        Base::read(&image, name, true)
    }

    async fn pulled(
        &self,
        ports: &Ports,
        name: &str,
        events: &Sink,
    ) -> Result<ResolvedImage, Failure> {
        let registry = name
            .parse::<Reference>()
            .map(|r| r.registry().to_owned())
            .unwrap_or_default();
        let credential = self
            .credentials
            .iter()
            .find(|c| c.registry == registry)
            .cloned();
        let request = PullRequest {
            reference: name.to_owned(),
            platform: None,
            credential,
            insecure: self.insecure,
        };
        let mut progress = ports.pull.pull(request).await?;
        while let Some(step) = progress.next().await {
            events.progress("", step?).await;
        }
        ports.images.resolve(name).await?.ok_or_else(|| Failure {
            kind: Kind::NotFound,
            message: "it was pulled, and is not in the store".to_owned(),
            reason: reason::IMAGE_NOT_FOUND.to_owned(),
            hints: Vec::new(),
            metadata: std::collections::HashMap::new(),
        })
    }
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>()
        .map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}
