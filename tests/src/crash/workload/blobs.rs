//! Uploads in one go and in parts, small blobs by the dozen, and their removal.

use std::ops::Range;

use orlop_proto::store::write_request::Message;
use orlop_proto::store::{
    AbortIngestRequest, CommitIngest, DeleteRequest, OpenIngest, WriteRequest,
};

use super::{Step, Worker};
use crate::crash::journal::{Facts, acknowledge, begin, present, refuse};
use crate::crash::material::{Blob, Layer};

/// Blobs that a worker holds at once.
const HELD_MAX: usize = 24;
const INGESTS_MAX: usize = 4;
const MESSAGE_BYTES: usize = 256 << 10;

impl Worker {
    pub(super) async fn blobs(mut self) {
        while {
            let step = self.blob_step().await;
            self.goes_on("store blobs", step)
        } {}
    }

    async fn blob_step(&mut self) -> Step {
        self.own_lease().await?;
        let held: Vec<String> = self.held().into_iter().collect();
        if held.len() > HELD_MAX {
            return self.let_go(&held).await;
        }
        let ingests = present(&self.journal.facts().ingests, &self.name);
        match self.chance.below(6) {
            0 => self.dozen().await,
            1 if ingests.len() < INGESTS_MAX => self.leave().await,
            2 | 3 if !ingests.is_empty() => {
                let id = self.chance.pick(&ingests).unwrap().clone();
                self.go_on(&id).await
            }
            _ => {
                let blob = self.some_blob();
                let id = self.fresh();
                self.upload(&id, 0, &blob).await
            }
        }
    }

    /// Anything, and at times a layer.
    fn some_blob(&mut self) -> Blob {
        if self.chance.one_in(3) {
            return Layer::fresh(&mut self.chance).blob.clone();
        }
        Blob::random(&mut self.chance)
    }

    async fn dozen(&mut self) -> Step {
        let mut blobs = Vec::new();
        for _ in 0..=self.chance.below(20) {
            let size = usize::try_from(self.chance.below(8 << 10)).unwrap();
            blobs.push(Blob::new(self.chance.bytes(size)));
        }
        self.put_many(&blobs).await
    }

    /// Half of what is held, some of it deleted at once.
    async fn let_go(&mut self, held: &[String]) -> Step {
        let start = usize::try_from(self.chance.below(2)).unwrap();
        let gone: Vec<String> = held.iter().skip(start).step_by(2).cloned().collect();
        self.release(&gone).await?;
        for digest in gone.into_iter().take(3) {
            let request = DeleteRequest { digest };
            self.sort(self.clients.content.clone().delete(request).await)?;
        }
        Ok(())
    }

    /// Writes the rest of a blob and commits it, held by the worker's lease.
    pub(super) async fn upload(&self, id: &str, offset: usize, blob: &Blob) -> Step {
        let held = self.held_with([blob.digest.clone()]);
        let key = format!("{} {}", self.name, blob.digest);
        let size = blob.bytes.len();
        let mut messages = self.pieces(id, blob, offset..size);
        messages.push(message(Message::Commit(CommitIngest {
            digest: blob.digest.clone(),
            size: i64::try_from(size).unwrap(),
        })));
        self.change(
            |facts| {
                begin(&mut facts.leases, &self.name, Some(held.clone()));
                begin(&mut facts.blobs, &key, Some(size));
                begin(&mut facts.ingests, id, Some((offset, blob.clone())));
                begin(&mut facts.ingests, id, None);
            },
            self.clients
                .content
                .clone()
                .write(tokio_stream::iter(messages)),
            |facts, _| {
                acknowledge(&mut facts.leases, &self.name, Some(held.clone()));
                acknowledge(&mut facts.blobs, &key, Some(size));
                facts.ingests.remove(id);
            },
            |facts| {
                refuse(&mut facts.leases, &self.name);
                refuse(&mut facts.blobs, &key);
                facts.ingests.remove(id);
            },
        )
        .await
        .map(drop)
    }

    /// Begins an upload, and leaves it.
    async fn leave(&mut self) -> Step {
        let blob = self.some_blob();
        let id = self.fresh();
        self.write_until(&id, 0, &blob).await
    }

    /// Goes on with an upload that was left: to its end, somewhat further, or not at all.
    async fn go_on(&mut self, id: &str) -> Step {
        let left = self
            .journal
            .facts()
            .ingests
            .get(id)
            .and_then(|left| left.get().cloned());
        let (offset, blob) = left.unwrap();
        match self.chance.below(4) {
            0 => self.abort(id).await,
            1 => self.write_until(id, offset, &blob).await,
            _ => self.upload(id, offset, &blob).await,
        }
    }

    /// Writes somewhat further, and leaves it.
    pub(super) async fn write_until(&mut self, id: &str, offset: usize, blob: &Blob) -> Step {
        let rest = u64::try_from(blob.bytes.len() - offset).unwrap();
        let end = offset + usize::try_from(self.chance.below(rest + 1)).unwrap();
        let left = Some((end, blob.clone()));
        let messages = self.pieces(id, blob, offset..end);
        let opened = |facts: &mut Facts| {
            begin(&mut facts.ingests, id, Some((offset, blob.clone())));
        };
        self.change(
            opened,
            self.clients
                .content
                .clone()
                .write(tokio_stream::iter(messages)),
            |facts, _| acknowledge(&mut facts.ingests, id, left),
            |facts| refuse(&mut facts.ingests, id),
        )
        .await
        .map(drop)
    }

    async fn abort(&self, id: &str) -> Step {
        let request = AbortIngestRequest {
            ingest_id: id.to_owned(),
        };
        self.change(
            |facts| begin(&mut facts.ingests, id, None),
            self.clients.content.clone().abort_ingest(request),
            |facts, _| acknowledge(&mut facts.ingests, id, None),
            |facts| refuse(&mut facts.ingests, id),
        )
        .await
        .map(drop)
    }

    fn pieces(&self, id: &str, blob: &Blob, part: Range<usize>) -> Vec<WriteRequest> {
        let open = OpenIngest {
            ingest_id: id.to_owned(),
            offset: i64::try_from(part.start).unwrap(),
            truncate: part.start == 0,
            lease: self.name.clone(),
            diff_id: blob.diff_id.clone(),
        };
        let bytes = blob.bytes.slice(part);
        let pieces = (0..bytes.len())
            .step_by(MESSAGE_BYTES)
            .map(|start| bytes.slice(start..bytes.len().min(start + MESSAGE_BYTES)));
        std::iter::once(message(Message::Open(open)))
            .chain(pieces.map(|piece| message(Message::Data(piece))))
            .collect()
    }
}

fn message(message: Message) -> WriteRequest {
    WriteRequest {
        message: Some(message),
    }
}
