//! `Images` in memory.

use std::collections::BTreeSet;
use std::pin::Pin;

use oci_spec::image::Descriptor;
use orlop_proto::error::{Kind, reason};
use orlop_proto::reference::Reference;
use orlop_proto::store as pb;
use orlop_proto::store::put_image_request::Expected;
use orlop_proto::types::Platform;
use prost_types::Timestamp;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::documents::Wanted;
use super::{Answer, Memory, State, answer, invalid, missing, now, refuse, refuse_for, signed};

const PAGE_MAX: usize = 10_000;

#[derive(Clone)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) target: Descriptor,
    updated: Timestamp,
    last_used: Timestamp,
}

impl Named {
    fn image(&self) -> pb::Image {
        pb::Image {
            name: self.name.clone(),
            target: Some((&self.target).into()),
            updated: Some(self.updated),
        }
    }
}

fn unknown(name: &str) -> Status {
    let message = format!("no such image: {name}");
    refuse_for(Kind::NotFound, reason::IMAGE_NOT_FOUND, message)
}

impl State {
    fn compare(&self, name: &str, expected: Option<&Expected>) -> Result<(), Status> {
        let actual = self.images.get(name).map(|named| named.target.digest());
        let holds = match expected {
            Some(Expected::Absent(true)) => actual.is_none(),
            Some(Expected::Digest(digest)) => actual.is_some_and(|at| at.as_ref() == digest),
            _ => true,
        };
        if holds {
            return Ok(());
        }
        Err(refuse(Kind::Aborted, format!("{name} was moved")))
    }

    /// Names a target whose tree is here.
    pub(super) fn name(
        &mut self,
        name: &str,
        target: Descriptor,
        expected: Option<&Expected>,
    ) -> Result<pb::Image, Status> {
        let name = name.parse::<Reference>();
        let name = name
            .map_err(|error| invalid(error.to_string()))?
            .to_string();
        self.tree(&target)?;
        self.compare(&name, expected)?;
        let named = Named {
            name: name.clone(),
            target,
            updated: now(),
            last_used: now(),
        };
        let image = named.image();
        self.images.insert(name, named);
        self.tell(&image, false);
        Ok(image)
    }

    /// Nobody may be listening.
    fn tell(&self, image: &pb::Image, deleted: bool) {
        let image = Some(image.clone());
        self.watchers.send(pb::ImageEvent { image, deleted }).ok();
    }

    fn by_reference(&self, text: &str) -> Option<Named> {
        let reference = text.parse::<Reference>().ok()?;
        if let Some(named) = self.images.get(&reference.to_string()) {
            return Some(named.clone());
        }
        let digest = reference.digest()?;
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let same = |named: &&Named| {
            let rest = named.name.strip_prefix(&repository);
            rest.is_some_and(|rest| rest.starts_with([':', '@']))
                && named.target.digest().as_ref() == digest
        };
        self.images.values().find(same).cloned()
    }

    /// By the digest of a configuration, a manifest or an index, or by a prefix of an image id.
    fn by_id(&self, text: &str) -> Result<Option<Descriptor>, Status> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let (mut ids, mut found) = (BTreeSet::new(), None);
        for named in self.images.values() {
            let tree = self.tree(&named.target)?;
            let whole = tree
                .documents
                .iter()
                .filter(|_| prefix.len() == 64)
                .cloned();
            for id in tree.image_ids().chain(whole) {
                if id["sha256:".len()..].starts_with(prefix) {
                    ids.insert(id);
                    found.get_or_insert_with(|| named.target.clone());
                }
            }
        }
        if ids.len() > 1 {
            let reason = reason::AMBIGUOUS_PREFIX;
            return Err(refuse_for(Kind::FailedPrecondition, reason, text));
        }
        Ok(found)
    }

    /// The name (empty if it was not one) and the target.
    fn locate(&self, text: &str) -> Result<(String, Descriptor), Status> {
        if text.starts_with("sha256:") {
            let target = self.by_id(text)?.ok_or_else(|| unknown(text))?;
            return Ok((String::new(), target));
        }
        if let Some(named) = self.by_reference(text) {
            return Ok((named.name, named.target));
        }
        if let Some(target) = self.by_id(text)? {
            return Ok((String::new(), target));
        }
        match text.parse::<Reference>() {
            Ok(_) => Err(unknown(text)),
            Err(error) => Err(invalid(error.to_string())),
        }
    }

    pub(super) fn resolve(
        &mut self,
        text: &str,
        wanted: &Wanted,
    ) -> Result<pb::ResolvedImage, Status> {
        let (name, target) = self.locate(text)?;
        let single = self.pick(&target, wanted).ok_or_else(|| unknown(text))?;
        let bytes = |descriptor: &Descriptor| {
            let blob = self.blob(descriptor.digest().as_ref());
            blob.map(|blob| blob.bytes.clone())
        };
        let (manifest_json, config) = (bytes(&single.descriptor)?, single.manifest.config());
        let config_json = bytes(config)?;
        let mut names = Vec::new();
        for named in self.images.values_mut() {
            if named.target.digest() == target.digest() {
                named.last_used = now();
                names.push(named.name.clone());
            }
        }
        Ok(pb::ResolvedImage {
            name,
            target: Some((&target).into()),
            manifest: Some((&single.descriptor).into()),
            manifest_json,
            config: Some(config.into()),
            config_json,
            names,
        })
    }

    fn summary(&self, named: &Named) -> pb::ImageSummary {
        let mut summary = pb::ImageSummary {
            image: Some(named.image()),
            last_used: Some(named.last_used),
            ..Default::default()
        };
        let single = self.pick(&named.target, &Wanted::or_host(None));
        let Some((single, config)) =
            single.and_then(|single| single.config.clone().map(|config| (single, config)))
        else {
            return summary;
        };
        summary.image_id = single.manifest.config().digest().to_string();
        let created = config.created().as_ref();
        summary.created = created.and_then(|created| created.parse().ok());
        let layers = single
            .manifest
            .layers()
            .iter()
            .zip(config.rootfs().diff_ids());
        summary.size = layers
            .map(|(layer, diff_id)| {
                let unpacked = self.layer_bytes(diff_id);
                unpacked.unwrap_or_else(|| i64::try_from(layer.size()).unwrap_or(i64::MAX))
            })
            .sum();
        summary.platform = Some(Platform {
            os: config.os().to_string(),
            architecture: config.architecture().to_string(),
            variant: config.variant().clone().unwrap_or_default(),
        });
        summary.labels = config.labels_of_config().cloned().unwrap_or_default();
        summary
    }
}

#[tonic::async_trait]
impl pb::images_server::Images for Memory {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::ImageEvent, Status>> + Send>>;

    async fn get(&self, request: Request<pb::GetImageRequest>) -> Answer<pb::Image> {
        let name = request.into_inner().name;
        let state = self.lock();
        answer(
            state
                .images
                .get(&name)
                .ok_or_else(|| unknown(&name))?
                .image(),
        )
    }

    async fn resolve(
        &self,
        request: Request<pb::ResolveImageRequest>,
    ) -> Answer<pb::ResolvedImage> {
        let request = request.into_inner();
        let wanted = Wanted::or_host(request.platform);
        answer(self.lock().resolve(&request.reference, &wanted)?)
    }

    async fn put(&self, request: Request<pb::PutImageRequest>) -> Answer<pb::Image> {
        let request = request.into_inner();
        let target = request.target.ok_or_else(|| invalid("no descriptor"))?;
        let target = Descriptor::try_from(&target).map_err(|error| invalid(error.to_string()))?;
        answer(
            self.lock()
                .name(&request.name, target, request.expected.as_ref())?,
        )
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteImageRequest>,
    ) -> Answer<pb::DeleteImageResponse> {
        let request = request.into_inner();
        let mut state = self.lock();
        if !state.images.contains_key(&request.name) {
            return Err(missing("image", &request.name));
        }
        if !request.expected.is_empty() {
            state.compare(&request.name, Some(&Expected::Digest(request.expected)))?;
        }
        if let Some(named) = state.images.remove(&request.name) {
            state.tell(&named.image(), true);
        }
        answer(pb::DeleteImageResponse {})
    }

    async fn list(
        &self,
        request: Request<pb::ListImagesRequest>,
    ) -> Answer<pb::ListImagesResponse> {
        let request = request.into_inner();
        let limit = match usize::try_from(request.page_size).unwrap_or(0) {
            0 => PAGE_MAX,
            size => size.min(PAGE_MAX),
        };
        let state = self.lock();
        let rest = state.images.values().filter(|named| {
            named.name.starts_with(&request.prefix) && named.name > request.page_token
        });
        let page: Vec<_> = rest.take(limit + 1).collect();
        let images: Vec<_> = page
            .iter()
            .take(limit)
            .map(|named| state.summary(named))
            .collect();
        let next_page_token = match page.len() > limit {
            true => page[limit - 1].name.clone(),
            false => String::new(),
        };
        answer(pb::ListImagesResponse {
            images,
            next_page_token,
        })
    }

    async fn watch(&self, request: Request<pb::WatchImagesRequest>) -> Answer<Self::WatchStream> {
        let prefix = request.into_inner().prefix;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut events = self.lock().watchers.subscribe();
        tokio::spawn(async move {
            loop {
                let event = match events.recv().await {
                    Ok(event) => Ok(event),
                    Err(RecvError::Lagged(_)) => Err(refuse(Kind::Aborted, "too far behind")),
                    Err(RecvError::Closed) => return,
                };
                let named = |event: &pb::ImageEvent| {
                    event
                        .image
                        .as_ref()
                        .is_some_and(|image| image.name.starts_with(&prefix))
                };
                let last = event.is_err();
                if event.as_ref().is_ok_and(|event| !named(event)) {
                    continue;
                }
                if sender.send(event).await.is_err() || last {
                    return;
                }
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        Ok(Response::new(Box::pin(stream)))
    }
}

/// The number of names, for the accounts.
pub(super) fn count(state: &State) -> u64 {
    u64::try_from(signed(state.images.len())).unwrap_or_default()
}
