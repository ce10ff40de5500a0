//! `Content` in memory.

use bytes::Bytes;
use orlop_proto::descriptor::parse_digest;
use orlop_proto::error::{Kind, reason};
use orlop_proto::store as pb;
use orlop_proto::store::write_request::Message;
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tonic::{Request, Status, Streaming};

use super::{Answer, Answers, Memory, State, answer, answers, check_id};
use super::{invalid, missing, now, refuse, refuse_for, signed};

const FIND_MISSING_MAX: usize = 100_000;
const DATA_BYTES_MAX: usize = 1 << 20;

#[derive(Clone)]
pub(super) struct Blob {
    pub(super) bytes: Bytes,
    created: Timestamp,
    last_used: Timestamp,
}

pub(super) struct Ingest {
    pub(super) bytes: Vec<u8>,
    started: Timestamp,
    updated: Timestamp,
    busy: bool,
}

/// The digest of bytes by the algorithm of another digest.
pub(super) fn digest_like(model: &str, bytes: &[u8]) -> String {
    match model.split(':').next() {
        Some("sha512") => format!("sha512:{}", hex::encode(Sha512::digest(bytes))),
        Some("sha384") => format!("sha384:{}", hex::encode(Sha384::digest(bytes))),
        _ => format!("sha256:{}", hex::encode(Sha256::digest(bytes))),
    }
}

pub(super) fn check_digest(digest: &str) -> Result<(), Status> {
    parse_digest(digest)
        .map(drop)
        .map_err(|error| invalid(error.to_string()))
}

fn check_bytes(said: &str, bytes: &[u8]) -> Result<(), Status> {
    let actual = digest_like(said, bytes);
    if actual == said {
        return Ok(());
    }
    let message = format!("the bytes have digest {actual}, not {said}");
    let reason = reason::DIGEST_MISMATCH;
    Err(refuse_for(Kind::InvalidArgument, reason, message))
}

impl State {
    /// Keeps bytes under a digest that they are known to have. Whether they are new.
    pub(super) fn keep(&mut self, digest: &str, bytes: Bytes) -> bool {
        let fresh = !self.want(digest);
        if fresh {
            let blob = Blob {
                bytes,
                created: now(),
                last_used: now(),
            };
            self.blobs.insert(digest.to_owned(), blob);
        }
        fresh
    }

    pub(super) fn keep_made(&mut self, bytes: Vec<u8>) -> String {
        let digest = digest_like("sha256", &bytes);
        self.keep(&digest, bytes.into());
        digest
    }

    pub(super) fn want(&mut self, digest: &str) -> bool {
        let blob = self.blobs.get_mut(digest);
        blob.map(|blob| blob.last_used = now()).is_some()
    }

    pub(super) fn blob(&self, digest: &str) -> Result<&Blob, Status> {
        check_digest(digest)?;
        let blob = self.blobs.get(digest);
        blob.ok_or_else(|| missing("blob", digest))
    }

    fn ingest_info(&self, id: &str) -> Result<pb::IngestInfo, Status> {
        check_id(id)?;
        let ingest = self.ingests.get(id).ok_or_else(|| missing("ingest", id))?;
        Ok(pb::IngestInfo {
            ingest_id: id.to_owned(),
            offset: signed(ingest.bytes.len()),
            started: Some(ingest.started),
            updated: Some(ingest.updated),
        })
    }

    fn blob_info(&self, digest: &str) -> Result<pb::BlobInfo, Status> {
        let blob = self.blob(digest)?;
        Ok(pb::BlobInfo {
            digest: digest.to_owned(),
            size: signed(blob.bytes.len()),
            created: Some(blob.created),
            last_used: Some(blob.last_used),
        })
    }

    /// Lets one writer have an ingest.
    fn open(&mut self, open: &pb::OpenIngest) -> Result<(), Status> {
        check_id(&open.ingest_id)?;
        let fresh = || Ingest {
            bytes: Vec::new(),
            started: now(),
            updated: now(),
            busy: false,
        };
        let ingest = self.ingests.entry(open.ingest_id.clone());
        let ingest = ingest.or_insert_with(fresh);
        if ingest.busy {
            return Err(refuse(Kind::Aborted, "the ingest has another writer"));
        }
        if open.truncate {
            ingest.bytes.clear();
        }
        if open.offset != signed(ingest.bytes.len()) {
            let durable = ingest.bytes.len();
            let message = format!("the ingest goes on at {durable}");
            return Err(refuse(Kind::OutOfRange, message));
        }
        ingest.busy = true;
        Ok(())
    }

    fn publish(
        &mut self,
        open: &pb::OpenIngest,
        commit: &pb::CommitIngest,
    ) -> Result<pb::WriteResponse, Status> {
        if !commit.digest.is_empty() {
            check_digest(&commit.digest)?;
        }
        self.check_lease(&open.lease)?;
        let ingest = self.ingests.get(&open.ingest_id);
        let bytes = ingest
            .map(|ingest| ingest.bytes.clone())
            .unwrap_or_default();
        let size = signed(bytes.len());
        let digest = match commit.digest.as_str() {
            "" => digest_like("sha256", &bytes),
            said => said.to_owned(),
        };
        self.ingests.remove(&open.ingest_id);
        if commit.size != 0 && commit.size != size {
            let reason = reason::DIGEST_MISMATCH;
            return Err(refuse_for(Kind::InvalidArgument, reason, "another size"));
        }
        check_bytes(&digest, &bytes)?;
        self.hold_blob(&open.lease, &digest);
        self.keep(&digest, bytes.into());
        Ok(pb::WriteResponse {
            offset: size,
            digest,
        })
    }

    fn put_many(&mut self, request: &pb::PutManyRequest, lease: &str) -> Result<bool, Status> {
        check_digest(&request.digest)?;
        self.check_lease(lease)?;
        if request.data.len() > DATA_BYTES_MAX {
            return Err(invalid("a blob of PutMany has at most 1 MiB"));
        }
        if !self.blobs.contains_key(&request.digest) {
            check_bytes(&request.digest, &request.data)?;
        }
        self.hold_blob(lease, &request.digest);
        Ok(self.keep(&request.digest, request.data.clone()))
    }
}

/// Ends a writer, whatever becomes of its call.
struct Writing<'a> {
    memory: &'a Memory,
    id: String,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(ingest) = self.memory.lock().ingests.get_mut(&self.id) {
            ingest.busy = false;
        }
    }
}

impl Memory {
    async fn written(
        &self,
        open: &pb::OpenIngest,
        mut messages: Streaming<pb::WriteRequest>,
    ) -> Result<pb::WriteResponse, Status> {
        self.lock().open(open)?;
        let _writing = Writing {
            memory: self,
            id: open.ingest_id.clone(),
        };
        while let Some(message) = messages.message().await? {
            match message.message {
                Some(Message::Data(data)) if data.len() <= DATA_BYTES_MAX => {
                    if let Some(ingest) = self.lock().ingests.get_mut(&open.ingest_id) {
                        ingest.bytes.extend_from_slice(&data);
                        ingest.updated = now();
                    }
                }
                Some(Message::Commit(commit)) => return self.lock().publish(open, &commit),
                _ => return Err(invalid("a write has data of at most 1 MiB, then a commit")),
            }
        }
        let info = self.lock().ingest_info(&open.ingest_id)?;
        Ok(pb::WriteResponse {
            offset: info.offset,
            digest: String::new(),
        })
    }
}

/// The chunks of a range.
fn range(bytes: &Bytes, offset: i64, length: i64) -> Result<Vec<pb::ReadResponse>, Status> {
    let beyond = || refuse(Kind::OutOfRange, "a range beyond the end of the blob");
    let offset = usize::try_from(offset).map_err(|_| beyond())?;
    let length = usize::try_from(length).map_err(|_| beyond())?;
    let rest = bytes.len().checked_sub(offset).ok_or_else(beyond)?;
    if length > rest {
        return Err(beyond());
    }
    let end = offset + if length == 0 { rest } else { length };
    let chunks = bytes[offset..end].chunks(DATA_BYTES_MAX);
    Ok(chunks
        .map(|chunk| pb::ReadResponse {
            data: Bytes::copy_from_slice(chunk),
        })
        .collect())
}

#[tonic::async_trait]
impl pb::content_server::Content for Memory {
    type ReadStream = Answers<pb::ReadResponse>;
    type ListIngestsStream = Answers<pb::IngestInfo>;
    type ListStream = Answers<pb::BlobInfo>;

    async fn stat(&self, request: Request<pb::StatRequest>) -> Answer<pb::BlobInfo> {
        answer(self.lock().blob_info(&request.into_inner().digest)?)
    }

    async fn find_missing(
        &self,
        request: Request<pb::FindMissingRequest>,
    ) -> Answer<pb::FindMissingResponse> {
        let digests = request.into_inner().digests;
        if digests.len() > FIND_MISSING_MAX {
            return Err(invalid("more than 100,000 digests in one request"));
        }
        let mut state = self.lock();
        let mut missing = Vec::new();
        for digest in digests {
            check_digest(&digest)?;
            if !state.want(&digest) {
                missing.push(digest);
            }
        }
        answer(pb::FindMissingResponse { missing })
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Answer<Self::ReadStream> {
        let request = request.into_inner();
        let bytes = self.lock().blob(&request.digest)?.bytes.clone();
        answers(range(&bytes, request.offset, request.length)?)
    }

    async fn locate(&self, _: Request<pb::LocateRequest>) -> Answer<pb::LocateResponse> {
        Err(refuse(Kind::FailedPrecondition, "nothing here is a file"))
    }

    async fn write(
        &self,
        request: Request<Streaming<pb::WriteRequest>>,
    ) -> Answer<pb::WriteResponse> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|first| first.message);
        let Some(Message::Open(open)) = first else {
            return Err(invalid("the first message of a write opens the ingest"));
        };
        answer(self.written(&open, messages).await?)
    }

    async fn put_many(
        &self,
        request: Request<Streaming<pb::PutManyRequest>>,
    ) -> Answer<pb::PutManyResponse> {
        let mut messages = request.into_inner();
        let mut response = pb::PutManyResponse::default();
        let mut lease = None;
        while let Some(request) = messages.message().await? {
            let lease = lease.get_or_insert_with(|| request.lease.clone());
            match self.lock().put_many(&request, lease)? {
                true => response.stored += 1,
                false => response.existed += 1,
            }
        }
        answer(response)
    }

    async fn stat_ingest(&self, request: Request<pb::StatIngestRequest>) -> Answer<pb::IngestInfo> {
        answer(self.lock().ingest_info(&request.into_inner().ingest_id)?)
    }

    async fn list_ingests(
        &self,
        _: Request<pb::ListIngestsRequest>,
    ) -> Answer<Self::ListIngestsStream> {
        let state = self.lock();
        answers(
            state
                .ingests
                .keys()
                .flat_map(|id| state.ingest_info(id))
                .collect::<Vec<_>>(),
        )
    }

    async fn abort_ingest(
        &self,
        request: Request<pb::AbortIngestRequest>,
    ) -> Answer<pb::AbortIngestResponse> {
        let id = request.into_inner().ingest_id;
        check_id(&id)?;
        let mut state = self.lock();
        if state.ingests.get(&id).is_some_and(|ingest| ingest.busy) {
            return Err(refuse(Kind::Aborted, "a writer holds the ingest"));
        }
        state.ingests.remove(&id);
        answer(pb::AbortIngestResponse {})
    }

    async fn list(&self, _: Request<pb::ListRequest>) -> Answer<Self::ListStream> {
        let state = self.lock();
        answers(
            state
                .blobs
                .keys()
                .flat_map(|digest| state.blob_info(digest))
                .collect::<Vec<_>>(),
        )
    }

    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Answer<pb::DeleteResponse> {
        let digest = request.into_inner().digest;
        check_digest(&digest)?;
        let mut state = self.lock();
        if state.live().blobs.contains(&digest) {
            let message = format!("blob {digest} is in use");
            return Err(refuse_for(
                Kind::FailedPrecondition,
                reason::IN_USE,
                message,
            ));
        }
        state.blobs.remove(&digest);
        answer(pb::DeleteResponse {})
    }
}
