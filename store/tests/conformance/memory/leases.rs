//! `Leases` in memory.

use std::collections::BTreeSet;

use orlop_proto::store as pb;
use orlop_proto::store::resource::Resource;
use tonic::{Request, Status};

use super::content::check_digest;
use super::{Answer, Answers, Memory, State, answer, answers, check_id, invalid, missing, now};

pub(super) struct Held {
    lease: pb::Lease,
    pub(super) blobs: BTreeSet<String>,
    pub(super) snapshots: BTreeSet<String>,
}

impl Held {
    fn lives(&self) -> bool {
        let now = now();
        let ends = self.lease.expires;
        ends.is_none_or(|at| (at.seconds, at.nanos) > (now.seconds, now.nanos))
    }

    fn change(&mut self, resource: &Resource, add: bool) {
        let (set, name) = match resource {
            Resource::Blob(digest) => (&mut self.blobs, digest),
            Resource::Snapshot(key) => (&mut self.snapshots, key),
        };
        if add {
            set.insert(name.clone());
        } else {
            set.remove(name);
        }
    }
}

impl State {
    pub(super) fn living(&self) -> impl Iterator<Item = &Held> {
        self.leases.values().filter(|held| held.lives())
    }

    /// An empty id is no lease, and fine.
    pub(super) fn check_lease(&mut self, id: &str) -> Result<(), Status> {
        if id.is_empty() {
            return Ok(());
        }
        self.lease(id).map(drop)
    }

    pub(super) fn hold_blob(&mut self, id: &str, digest: &str) {
        if let Some(held) = self.leases.get_mut(id) {
            held.blobs.insert(digest.to_owned());
        }
    }

    pub(super) fn hold_snapshot(&mut self, id: &str, key: &str) {
        if let Some(held) = self.leases.get_mut(id) {
            held.snapshots.insert(key.to_owned());
        }
    }

    fn lease(&mut self, id: &str) -> Result<&mut Held, Status> {
        check_id(id)?;
        let held = self.leases.get_mut(id).filter(|held| held.lives());
        held.ok_or_else(|| missing("lease", id))
    }

    fn change(&mut self, id: &str, resources: &[pb::Resource], add: bool) -> Result<(), Status> {
        for resource in resources {
            match &resource.resource {
                Some(Resource::Blob(digest)) => check_digest(digest)?,
                Some(Resource::Snapshot(key)) => check_id(key)?,
                None => return Err(invalid("a resource is a blob or a snapshot")),
            }
        }
        let held = self.lease(id)?;
        let named = resources.iter().flat_map(|resource| &resource.resource);
        named.for_each(|resource| held.change(resource, add));
        Ok(())
    }
}

#[tonic::async_trait]
impl pb::leases_server::Leases for Memory {
    type ListStream = Answers<pb::Lease>;
    type ListResourcesStream = Answers<pb::Resource>;

    async fn put(&self, request: Request<pb::PutLeaseRequest>) -> Answer<pb::Lease> {
        let request = request.into_inner();
        check_id(&request.id)?;
        let mut ends = now();
        let seconds = i64::try_from(request.ttl_seconds).ok();
        let seconds = seconds.and_then(|seconds| ends.seconds.checked_add(seconds));
        // The last second of the year 9999, where google.protobuf.Timestamp ends.
        let seconds = seconds.filter(|seconds| *seconds <= 253_402_300_799);
        ends.seconds = seconds.ok_or_else(|| invalid("a lease's time is too long"))?;
        let mut state = self.lock();
        let old = state.leases.remove(&request.id);
        let lease = pb::Lease {
            id: request.id.clone(),
            created: old.as_ref().map_or(Some(now()), |old| old.lease.created),
            expires: (request.ttl_seconds > 0).then_some(ends),
            labels: request.labels,
        };
        let (blobs, snapshots) = old
            .map(|old| (old.blobs, old.snapshots))
            .unwrap_or_default();
        let held = Held {
            lease: lease.clone(),
            blobs,
            snapshots,
        };
        state.leases.insert(request.id, held);
        answer(lease)
    }

    async fn add(
        &self,
        request: Request<pb::AddResourcesRequest>,
    ) -> Answer<pb::AddResourcesResponse> {
        let request = request.into_inner();
        self.lock()
            .change(&request.lease, &request.resources, true)?;
        answer(pb::AddResourcesResponse {})
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseResourcesRequest>,
    ) -> Answer<pb::ReleaseResourcesResponse> {
        let request = request.into_inner();
        self.lock()
            .change(&request.lease, &request.resources, false)?;
        answer(pb::ReleaseResourcesResponse {})
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteLeaseRequest>,
    ) -> Answer<pb::DeleteLeaseResponse> {
        let id = request.into_inner().id;
        check_id(&id)?;
        self.lock().leases.remove(&id);
        answer(pb::DeleteLeaseResponse {})
    }

    async fn list(&self, _: Request<pb::ListLeasesRequest>) -> Answer<Self::ListStream> {
        let state = self.lock();
        answers(
            state
                .living()
                .map(|held| held.lease.clone())
                .collect::<Vec<_>>(),
        )
    }

    async fn list_resources(
        &self,
        request: Request<pb::ListResourcesRequest>,
    ) -> Answer<Self::ListResourcesStream> {
        let mut state = self.lock();
        let held = state.lease(&request.into_inner().lease)?;
        let blobs = held.blobs.iter().cloned().map(Resource::Blob);
        let snapshots = held.snapshots.iter().cloned().map(Resource::Snapshot);
        let resources = blobs.chain(snapshots).map(|resource| pb::Resource {
            resource: Some(resource),
        });
        answers(resources.collect::<Vec<_>>())
    }
}
