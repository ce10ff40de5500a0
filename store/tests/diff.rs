//! Layer blobs that went or were damaged.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::io::Write as _;

use orlop_proto::store::{Compression, DiffRequest};

#[path = "support/client.rs"]
mod client;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;
use client::{Client, passwd};

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_blob_is_looked_at_before_it_is_answered() {
    let mut client = Client::start().await;
    let base = client.base(passwd().end()).await;
    client.prepare("w", &base).await.unwrap();
    client.commit("w", "c").await.unwrap();
    let content = client.service.store.content.clone();
    let first = client.diff("c", Compression::Gzip).await;
    let digest = first.descriptor.clone().unwrap().digest;
    let digest = orlop_proto::descriptor::parse_digest(&digest).unwrap();
    assert!(content.remove(&digest).unwrap());
    assert_eq!(client.diff("c", Compression::Gzip).await, first);
    assert!(content.exists(&digest));

    // A blob that is another tar by now is not passed on in another compression.
    let mut other = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    other.write_all(&[0; 1024 * 3]).unwrap();
    fs::write(content.path(&digest), other.finish().unwrap()).unwrap();
    let request = DiffRequest {
        key: "c".into(),
        compression: Compression::Zstd.into(),
        ..Default::default()
    };
    let refused = client.rpc.diff(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::DataLoss, "{refused}");
}
