//! Images: pushed blob by blob, named by compare-and-swap, loaded, imported, unnamed.

use orlop_proto::store::import_request::Message;
use orlop_proto::store::put_image_request::Expected;
use orlop_proto::store::{
    AddResourcesRequest, DeleteImageRequest, FindMissingRequest, ImportOptions, ImportRequest,
    LoadRequest, PutImageRequest,
};

use super::{Step, Worker, held_as};
use crate::crash::journal::{ANY, acknowledge, begin, present, refuse};
use crate::crash::material::{Blob, Image, tar_of};

/// Names that a worker has.
const NAMES: u64 = 5;
const PIECE_BYTES: usize = 256 << 10;

impl Worker {
    pub(super) async fn images(mut self) {
        while {
            let step = self.image_step().await;
            self.goes_on("keep images", step)
        } {}
    }

    async fn image_step(&mut self) -> Step {
        self.own_lease().await?;
        let leftovers: Vec<String> = self.held().into_iter().collect();
        if !leftovers.is_empty() {
            self.release(&leftovers).await?;
        }
        let name = format!("registry.test/{}:t{}", self.name, self.chance.below(NAMES));
        match self.chance.below(8) {
            0 => self.load(&name).await,
            1 => self.import(&name).await,
            2 | 3 if !present(&self.journal.facts().names, &name).is_empty() => {
                self.unname(&name).await
            }
            _ => self.push(&name).await,
        }
    }

    async fn push(&mut self, name: &str) -> Step {
        let image = self.shelf.image(&mut self.chance);
        self.send(&image).await?;
        self.name_it(name, &image).await?;
        let held: Vec<String> = self.held().into_iter().collect();
        self.release(&held).await
    }

    /// As a registry's client does: hold, ask what is missing, send that.
    pub(super) async fn send(&mut self, image: &Image) -> Step {
        let blobs = image.blobs();
        let digests: Vec<String> = blobs.iter().map(|blob| blob.digest.clone()).collect();
        self.hold(&digests).await?;
        let request = FindMissingRequest {
            digests: digests.clone(),
        };
        let answer = self.clients.content.clone().find_missing(request).await;
        let missing = self.sort(answer)?.missing;
        for blob in blobs {
            if missing.contains(&blob.digest) {
                self.send_blob(&blob).await?;
            } else {
                let key = format!("{} {}", self.name, blob.digest);
                acknowledge(
                    &mut self.journal.facts().blobs,
                    &key,
                    Some(blob.bytes.len()),
                );
            }
        }
        Ok(())
    }

    /// In one go or in two, and from where an earlier attempt came to.
    async fn send_blob(&mut self, blob: &Blob) -> Step {
        let id = format!("{}-{}", self.name, blob.digest.replace(':', "-"));
        if self.chance.one_in(4) {
            self.write_until(&id, self.offset_of(&id), blob).await?;
        }
        self.upload(&id, self.offset_of(&id), blob).await
    }

    fn offset_of(&self, ingest: &str) -> usize {
        let facts = self.journal.facts();
        let left = facts.ingests.get(ingest).and_then(|left| left.get());
        left.map_or(0, |(offset, _)| *offset)
    }

    pub(super) async fn hold(&self, resources: &[String]) -> Step {
        let held = self.held_with(resources.iter().cloned());
        let request = AddResourcesRequest {
            lease: self.name.clone(),
            resources: resources.iter().map(|resource| held_as(resource)).collect(),
        };
        self.change(
            |facts| begin(&mut facts.leases, &self.name, Some(held.clone())),
            self.clients.leases.clone().add(request),
            |facts, _| acknowledge(&mut facts.leases, &self.name, Some(held.clone())),
            |facts| refuse(&mut facts.leases, &self.name),
        )
        .await
        .map(drop)
    }

    async fn name_it(&self, name: &str, image: &Image) -> Step {
        let digest = image.manifest.digest.clone();
        let now = self.points_at(name);
        let request = PutImageRequest {
            name: name.to_owned(),
            target: Some(image.target()),
            expected: Some(now.map_or(Expected::Absent(true), Expected::Digest)),
        };
        self.change(
            |facts| {
                facts.images.insert(digest.clone(), image.clone());
                begin(&mut facts.names, name, Some(digest.clone()));
            },
            self.clients.images.clone().put(request),
            |facts, _| acknowledge(&mut facts.names, name, Some(digest.clone())),
            |facts| refuse(&mut facts.names, name),
        )
        .await
        .map(drop)
    }

    async fn unname(&self, name: &str) -> Step {
        let request = DeleteImageRequest {
            name: name.to_owned(),
            expected: self.points_at(name).unwrap_or_default(),
        };
        self.change(
            |facts| begin(&mut facts.names, name, None),
            self.clients.images.clone().delete(request),
            |facts, _| acknowledge(&mut facts.names, name, None),
            |facts| refuse(&mut facts.names, name),
        )
        .await
        .map(drop)
    }

    async fn load(&mut self, name: &str) -> Step {
        let image = self.shelf.image(&mut self.chance);
        let archive = bytes::Bytes::from(image.archive(name));
        let messages: Vec<_> = pieces(&archive).map(|data| LoadRequest { data }).collect();
        let digest = image.manifest.digest.clone();
        self.change(
            |facts| {
                facts.images.insert(digest.clone(), image.clone());
                begin(&mut facts.names, name, Some(digest.clone()));
            },
            self.clients
                .archives
                .clone()
                .load(tokio_stream::iter(messages)),
            |facts, _| acknowledge(&mut facts.names, name, Some(digest.clone())),
            |facts| refuse(&mut facts.names, name),
        )
        .await
        .map(drop)
    }

    /// The manifest of an import has the time in it: its digest is known with the answer.
    async fn import(&mut self, name: &str) -> Step {
        let content = self.chance.bytes(2000);
        let tar = bytes::Bytes::from(tar_of(&[("f".to_owned(), content)].into()));
        let options = ImportOptions {
            name: name.to_owned(),
            ..Default::default()
        };
        let data = pieces(&tar).map(Message::Data);
        let messages: Vec<_> = std::iter::once(Message::Options(options))
            .chain(data)
            .map(|message| ImportRequest {
                message: Some(message),
            })
            .collect();
        self.change(
            |facts| begin(&mut facts.names, name, Some(ANY.to_owned())),
            self.clients
                .archives
                .clone()
                .import(tokio_stream::iter(messages)),
            |facts, imported| {
                let target = imported.target.clone().unwrap_or_default();
                acknowledge(&mut facts.names, name, Some(target.digest));
            },
            |facts| refuse(&mut facts.names, name),
        )
        .await
        .map(drop)
    }

    fn points_at(&self, name: &str) -> Option<String> {
        let facts = self.journal.facts();
        facts.names.get(name).and_then(|name| name.get().cloned())
    }
}

fn pieces(bytes: &bytes::Bytes) -> impl Iterator<Item = bytes::Bytes> {
    (0..bytes.len())
        .step_by(PIECE_BYTES)
        .map(|start| bytes.slice(start..bytes.len().min(start + PIECE_BYTES)))
}
