//! Leases made, filled, emptied and ended.

use std::collections::BTreeSet;

use orlop_proto::store::{
    AddResourcesRequest, DeleteLeaseRequest, ReleaseResourcesRequest, Resource,
};

use super::{Step, Worker, held_as};
use crate::crash::journal::{acknowledge, begin, present, refuse};
use crate::crash::material::sha256;

const LEASES_MAX: usize = 5;
/// Lines of several pages: a write of them can be cut in two.
const RESOURCES_MAX: u64 = 120;

impl Worker {
    pub(super) async fn leases(mut self) {
        while {
            let step = self.lease_step().await;
            self.goes_on("keep leases", step)
        } {}
    }

    async fn lease_step(&mut self) -> Step {
        let leases = present(&self.journal.facts().leases, &self.name);
        let Some(lease) = self.chance.pick(&leases).cloned() else {
            return self.make_lease().await;
        };
        let held = self.resources_of(&lease);
        match self.chance.below(6) {
            0 if leases.len() < LEASES_MAX => self.make_lease().await,
            1 => self.end_lease(&lease).await,
            2 => self.put_lease(&lease, held).await,
            3 => self.empty_lease(&lease, held).await,
            _ => self.fill_lease(&lease, held).await,
        }
    }

    async fn make_lease(&mut self) -> Step {
        let id = self.fresh();
        self.put_lease(&id, BTreeSet::new()).await
    }

    async fn end_lease(&self, id: &str) -> Step {
        let request = DeleteLeaseRequest { id: id.to_owned() };
        self.change(
            |facts| begin(&mut facts.leases, id, None),
            self.clients.leases.clone().delete(request),
            |facts, _| acknowledge(&mut facts.leases, id, None),
            |facts| refuse(&mut facts.leases, id),
        )
        .await
        .map(drop)
    }

    async fn fill_lease(&mut self, id: &str, held: BTreeSet<String>) -> Step {
        let more: Vec<String> = (0..=self.chance.below(RESOURCES_MAX))
            .map(|_| sha256(&self.chance.number().to_le_bytes()))
            .collect();
        let request = AddResourcesRequest {
            lease: id.to_owned(),
            resources: resources(&more),
        };
        let held: BTreeSet<String> = held.into_iter().chain(more).collect();
        self.change(
            |facts| begin(&mut facts.leases, id, Some(held.clone())),
            self.clients.leases.clone().add(request),
            |facts, _| acknowledge(&mut facts.leases, id, Some(held.clone())),
            |facts| refuse(&mut facts.leases, id),
        )
        .await
        .map(drop)
    }

    async fn empty_lease(&self, id: &str, held: BTreeSet<String>) -> Step {
        let gone: Vec<String> = held.iter().step_by(2).cloned().collect();
        let left: BTreeSet<String> = held.into_iter().skip(1).step_by(2).collect();
        let request = ReleaseResourcesRequest {
            lease: id.to_owned(),
            resources: resources(&gone),
        };
        self.change(
            |facts| begin(&mut facts.leases, id, Some(left.clone())),
            self.clients.leases.clone().release(request),
            |facts, _| acknowledge(&mut facts.leases, id, Some(left.clone())),
            |facts| refuse(&mut facts.leases, id),
        )
        .await
        .map(drop)
    }

    fn resources_of(&self, id: &str) -> BTreeSet<String> {
        let facts = self.journal.facts();
        let lease = facts.leases.get(id);
        lease
            .and_then(|lease| lease.get().cloned())
            .unwrap_or_default()
    }
}

fn resources(of: &[String]) -> Vec<Resource> {
    of.iter().map(|resource| held_as(resource)).collect()
}
