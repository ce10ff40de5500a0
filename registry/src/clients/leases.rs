//! `orlop.store.v1.Leases`.

use std::collections::HashMap;

use futures_util::FutureExt as _;
use orlop_proto::store as pb;
use orlop_proto::store::leases_client::LeasesClient;
use tonic::transport::Channel;

use crate::ports::{Answer, Leases};

pub(super) struct Remote(LeasesClient<Channel>);

impl Remote {
    pub(super) fn new(channel: Channel) -> Self {
        Self(LeasesClient::new(channel))
    }
}

impl Leases for Remote {
    fn put<'a>(&'a self, id: &'a str, ttl_seconds: u64) -> Answer<'a, ()> {
        let mut client = self.0.clone();
        let request = pb::PutLeaseRequest {
            id: id.to_owned(),
            ttl_seconds,
            labels: HashMap::new(),
        };
        async move { Ok(client.put(request).await.map(drop)?) }.boxed()
    }

    fn add<'a>(&'a self, id: &'a str, digests: Vec<String>) -> Answer<'a, ()> {
        let mut client = self.0.clone();
        let request = pb::AddResourcesRequest {
            lease: id.to_owned(),
            resources: resources(digests),
        };
        async move { Ok(client.add(request).await.map(drop)?) }.boxed()
    }

    fn release<'a>(&'a self, id: &'a str, digests: Vec<String>) -> Answer<'a, ()> {
        let mut client = self.0.clone();
        let request = pb::ReleaseResourcesRequest {
            lease: id.to_owned(),
            resources: resources(digests),
        };
        async move { Ok(client.release(request).await.map(drop)?) }.boxed()
    }

    fn delete<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        let mut client = self.0.clone();
        let request = pb::DeleteLeaseRequest { id: id.to_owned() };
        async move { Ok(client.delete(request).await.map(drop)?) }.boxed()
    }
}

fn resources(digests: Vec<String>) -> Vec<pb::Resource> {
    let blob = |digest| pb::Resource {
        resource: Some(pb::resource::Resource::Blob(digest)),
    };
    digests.into_iter().map(blob).collect()
}
