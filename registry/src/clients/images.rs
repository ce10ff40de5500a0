//! `orlop.store.v1.Images`.

use futures_util::FutureExt as _;
use orlop_proto::store as pb;
use orlop_proto::store::images_client::ImagesClient;
use orlop_proto::types::Descriptor;
use tonic::transport::Channel;

use super::found;
use crate::ports::{Answer, Images};

pub(super) struct Remote(ImagesClient<Channel>);

impl Remote {
    pub(super) fn new(channel: Channel) -> Self {
        Self(ImagesClient::new(channel))
    }
}

impl Images for Remote {
    fn get<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Descriptor>> {
        let mut client = self.0.clone();
        let request = pb::GetImageRequest {
            name: name.to_owned(),
        };
        async move {
            let image = found(client.get(request).await)?;
            Ok(image.and_then(|image| image.into_inner().target))
        }
        .boxed()
    }

    fn put<'a>(&'a self, name: &'a str, target: Descriptor) -> Answer<'a, ()> {
        let mut client = self.0.clone();
        let request = pb::PutImageRequest {
            name: name.to_owned(),
            target: Some(target),
            expected: None,
        };
        async move { Ok(client.put(request).await.map(drop)?) }.boxed()
    }
}
