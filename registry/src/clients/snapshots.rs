//! `orlop.store.v1.Snapshots`.

use futures_util::FutureExt as _;
use orlop_proto::store as pb;
use orlop_proto::store::snapshots_client::SnapshotsClient;
use tonic::transport::Channel;

use crate::ports::{Answer, Snapshots};

pub(super) struct Remote(SnapshotsClient<Channel>);

impl Remote {
    pub(super) fn new(channel: Channel) -> Self {
        Self(SnapshotsClient::new(channel))
    }
}

impl Snapshots for Remote {
    fn unpack<'a>(&'a self, digest: &'a str, lease: &'a str) -> Answer<'a, ()> {
        let mut client = self.0.clone();
        let request = pb::UnpackRequest {
            digest: digest.to_owned(),
            lease: lease.to_owned(),
        };
        async move { Ok(client.unpack(request).await.map(drop)?) }.boxed()
    }
}
