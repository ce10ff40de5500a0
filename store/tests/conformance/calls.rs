//! Short ways to say what is wanted of a store.

use orlop_proto::error::{Failure, Kind};
use orlop_proto::store as pb;
use orlop_proto::store::file_op::Op;
use orlop_proto::store::resource::Resource;
use orlop_proto::store::write_request::Message;
use orlop_proto::types::Descriptor;
use prost_types::Timestamp;
use tonic::{Response, Status, Streaming};

use crate::reach::Subject;
use crate::words::{MANIFEST, config, digest, manifest, size, target};

pub(crate) type Outcome<T> = Result<T, Failure>;

/// The kind of what must have failed.
pub(crate) fn kind<T, E: Into<Failure>>(answer: Result<T, E>) -> Kind {
    refusal(answer).kind
}

pub(crate) fn refusal<T, E: Into<Failure>>(answer: Result<T, E>) -> Failure {
    match answer {
        Ok(_) => panic!("it was not refused"),
        Err(error) => error.into(),
    }
}

/// All of a stream.
pub(crate) async fn all<T>(answer: Result<Response<Streaming<T>>, Status>) -> Outcome<Vec<T>> {
    let mut stream = answer?.into_inner();
    let mut values = Vec::new();
    while let Some(value) = stream.message().await? {
        values.push(value);
    }
    Ok(values)
}

pub(crate) fn open(id: &str, offset: i64) -> pb::OpenIngest {
    pb::OpenIngest {
        ingest_id: id.to_owned(),
        offset,
        ..Default::default()
    }
}

pub(crate) fn write(message: Message) -> pb::WriteRequest {
    let message = Some(message);
    pb::WriteRequest { message }
}

pub(crate) fn data(bytes: &[u8]) -> Message {
    Message::Data(bytes.to_vec().into())
}

pub(crate) fn commit(digest: &str, size: i64) -> Message {
    Message::Commit(pb::CommitIngest {
        digest: digest.to_owned(),
        size,
    })
}

pub(crate) fn put(digest: &str, bytes: &[u8]) -> pb::PutManyRequest {
    pb::PutManyRequest {
        digest: digest.to_owned(),
        data: bytes.to_vec().into(),
        lease: String::new(),
    }
}

pub(crate) fn prepare(key: &str, parent: &str) -> pb::PrepareRequest {
    pb::PrepareRequest {
        key: key.to_owned(),
        parent: parent.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn named(name: &str, target: &Descriptor) -> pb::PutImageRequest {
    pb::PutImageRequest {
        name: name.to_owned(),
        target: Some(target.clone()),
        expected: None,
    }
}

pub(crate) fn bytes(text: &str) -> bytes::Bytes {
    text.to_owned().into()
}

pub(crate) fn owner(spec: &str) -> Option<pb::Owner> {
    let spec = spec.to_owned();
    Some(pb::Owner { spec })
}

pub(crate) fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

pub(crate) fn file(path: &str, digest: &str, mode: u32) -> pb::Entry {
    pb::Entry {
        path: bytes(path),
        kind: pb::EntryKind::File.into(),
        mode,
        mtime: at(1000),
        digest: digest.to_owned(),
        ..Default::default()
    }
}

impl Subject {
    pub(crate) async fn write(&self, messages: Vec<Message>) -> Outcome<pb::WriteResponse> {
        let messages = tokio_stream::iter(messages.into_iter().map(write));
        Ok(self.content().write(messages).await?.into_inner())
    }

    pub(crate) async fn put_many(
        &self,
        requests: Vec<pb::PutManyRequest>,
    ) -> Outcome<pb::PutManyResponse> {
        let requests = tokio_stream::iter(requests);
        Ok(self.content().put_many(requests).await?.into_inner())
    }

    /// A blob of any size.
    pub(crate) async fn blob(&self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        if bytes.len() <= 1 << 20 {
            self.put_many(vec![put(&digest, bytes)]).await.unwrap();
            return digest;
        }
        let mut messages = vec![Message::Open(open(&digest, 0))];
        messages.extend(bytes.chunks(1 << 20).map(data));
        messages.push(commit(&digest, size(bytes)));
        self.write(messages).await.unwrap();
        digest
    }

    pub(crate) async fn range(&self, digest: &str, offset: i64, length: i64) -> Outcome<Vec<u8>> {
        let request = pb::ReadRequest {
            digest: digest.to_owned(),
            offset,
            length,
            verify: false,
        };
        let chunks = all(self.content().read(request).await).await?;
        assert!(chunks.iter().all(|chunk| chunk.data.len() <= 1 << 20));
        Ok(chunks
            .iter()
            .flat_map(|chunk| chunk.data.to_vec())
            .collect())
    }

    pub(crate) async fn bytes(&self, digest: &str) -> Outcome<Vec<u8>> {
        self.range(digest, 0, 0).await
    }

    pub(crate) async fn stat(&self, digest: &str) -> Outcome<pb::BlobInfo> {
        let digest = digest.to_owned();
        let request = pb::StatRequest { digest };
        Ok(self.content().stat(request).await?.into_inner())
    }

    pub(crate) async fn delete(&self, digest: &str) -> Outcome<()> {
        let digest = digest.to_owned();
        self.content().delete(pb::DeleteRequest { digest }).await?;
        Ok(())
    }

    pub(crate) async fn stat_ingest(&self, id: &str) -> Outcome<pb::IngestInfo> {
        let ingest_id = id.to_owned();
        let request = pb::StatIngestRequest { ingest_id };
        Ok(self.content().stat_ingest(request).await?.into_inner())
    }

    /// A whole image of layers, with what its configuration says of each.
    pub(crate) async fn image_of(&self, layers: &[(&[u8], String)], word: &str) -> Descriptor {
        let diff_ids: Vec<String> = layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
        let blobs: Vec<&[u8]> = layers.iter().map(|(blob, _)| *blob).collect();
        for blob in &blobs {
            self.blob(blob).await;
        }
        let config = config(&diff_ids, word);
        self.blob(config.as_bytes()).await;
        let json = manifest(config.as_bytes(), &blobs);
        self.blob(json.as_bytes()).await;
        target(MANIFEST, json.as_bytes())
    }

    pub(crate) async fn image(&self, layer: &[u8]) -> Descriptor {
        self.image_of(&[(layer, digest(layer))], "").await
    }

    pub(crate) async fn named(&self, name: &str, layer: &[u8]) -> Descriptor {
        let target = self.image(layer).await;
        self.images().put(named(name, &target)).await.unwrap();
        target
    }

    pub(crate) async fn lease(&self, id: &str, ttl_seconds: u64) {
        let request = pb::PutLeaseRequest {
            id: id.to_owned(),
            ttl_seconds,
            ..Default::default()
        };
        self.leases().put(request).await.unwrap();
    }

    pub(crate) async fn hold(&self, lease: &str, resources: &[Resource]) -> Outcome<()> {
        let resources = resources.iter().map(|resource| pb::Resource {
            resource: Some(resource.clone()),
        });
        let request = pb::AddResourcesRequest {
            lease: lease.to_owned(),
            resources: resources.collect(),
        };
        self.leases().add(request).await?;
        Ok(())
    }

    pub(crate) async fn held(&self, lease: &str) -> Outcome<Vec<Resource>> {
        let lease = lease.to_owned();
        let request = pb::ListResourcesRequest { lease };
        let held = all(self.leases().list_resources(request).await).await?;
        Ok(held.into_iter().flat_map(|held| held.resource).collect())
    }

    pub(crate) async fn end_lease(&self, id: &str) {
        let id = id.to_owned();
        self.leases()
            .delete(pb::DeleteLeaseRequest { id })
            .await
            .unwrap();
    }

    pub(crate) async fn collect(&self, dry_run: bool) -> pb::CollectResponse {
        let request = pb::CollectRequest { dry_run };
        self.maintenance()
            .collect(request)
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn unpack(&self, digest: &str) -> Outcome<pb::UnpackResponse> {
        let request = pb::UnpackRequest {
            digest: digest.to_owned(),
            lease: String::new(),
        };
        Ok(self.snapshots().unpack(request).await?.into_inner())
    }

    /// The committed snapshot of a layer.
    pub(crate) async fn base(&self, tar: &[u8]) -> String {
        let image = self.image(tar).await;
        self.unpack(&image.digest).await.unwrap().name
    }

    pub(crate) async fn prepare(&self, key: &str, parent: &str) -> Outcome<pb::SnapshotMount> {
        Ok(self
            .snapshots()
            .prepare(prepare(key, parent))
            .await?
            .into_inner())
    }

    pub(crate) async fn commit(&self, key: &str, name: &str) -> Outcome<pb::SnapshotInfo> {
        let request = pb::CommitRequest {
            key: key.to_owned(),
            name: name.to_owned(),
            ..Default::default()
        };
        Ok(self.snapshots().commit(request).await?.into_inner())
    }

    pub(crate) async fn info(&self, key: &str) -> Outcome<pb::SnapshotInfo> {
        let key = key.to_owned();
        let request = pb::StatSnapshotRequest { key };
        Ok(self.snapshots().stat(request).await?.into_inner())
    }

    pub(crate) async fn keys(&self) -> Vec<String> {
        let list = self.snapshots().list(pb::ListSnapshotsRequest {}).await;
        let infos = all(list).await.unwrap();
        infos.into_iter().map(|info| info.key).collect()
    }

    pub(crate) async fn remove(&self, key: &str) -> Outcome<()> {
        let key = key.to_owned();
        let request = pb::RemoveSnapshotRequest { key };
        self.snapshots().remove(request).await?;
        Ok(())
    }

    pub(crate) async fn apply(&self, key: &str, ops: Vec<Op>) -> Outcome<u64> {
        let ops = ops.into_iter().map(|op| pb::FileOp { op: Some(op) });
        let message = pb::ApplyRequest {
            key: key.to_owned(),
            ops: ops.collect(),
        };
        let answer = self.snapshots().apply(tokio_stream::once(message)).await?;
        Ok(answer.into_inner().entries)
    }

    pub(crate) async fn read(&self, key: &str, path: &str) -> Outcome<Vec<u8>> {
        let request = pb::ReadFileRequest {
            key: key.to_owned(),
            path: bytes(path),
        };
        let answer = self.snapshots().read_file(request).await?;
        Ok(answer.into_inner().data.to_vec())
    }

    pub(crate) async fn export(&self, key: &str) -> Outcome<Vec<u8>> {
        let key = key.to_owned();
        let request = pb::ExportSnapshotRequest { key };
        let pieces = all(self.snapshots().export(request).await).await?;
        Ok(pieces
            .iter()
            .flat_map(|piece| piece.data.to_vec())
            .collect())
    }

    pub(crate) async fn changes(&self, key: &str) -> Outcome<Vec<(String, pb::ChangeKind)>> {
        let key = key.to_owned();
        let request = pb::ChangesRequest { key };
        let changes = all(self.snapshots().changes(request).await).await?;
        let told = changes.into_iter().map(|change| {
            let path = String::from_utf8(change.path.to_vec()).unwrap();
            (path, change.kind())
        });
        Ok(told.collect())
    }

    pub(crate) async fn diff(
        &self,
        key: &str,
        compression: pb::Compression,
    ) -> Outcome<pb::DiffResponse> {
        let request = pb::DiffRequest {
            key: key.to_owned(),
            compression: compression.into(),
            lease: String::new(),
        };
        Ok(self.snapshots().diff(request).await?.into_inner())
    }
}
