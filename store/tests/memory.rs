//! How much memory the real process takes, whatever it is given.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use orlop_proto::store as pb;
use orlop_proto::store::content_client::ContentClient;
use orlop_proto::store::write_request;
use sha2::{Digest as _, Sha256};
use smith::Tar;
use tonic::Code;

#[path = "support/process.rs"]
mod process;
#[path = "support/smith.rs"]
mod smith;

use process::Process;

/// What the store may take at most (`SECURITY` row A5).
const MEMORY_KIB_MAX: u64 = 128 * 1024;
/// Layers that arrive at once, and bytes of each: without a bound they take twice the maximum.
const LAYERS: usize = 10;
const LAYER_BYTES: usize = 24 << 20;
const MEMBER_BYTES: usize = 64 << 20;

/// Writes a layer as a pull does, to be unpacked on its way.
fn write(
    store: &Process,
    id: String,
    blob: Bytes,
    diff_id: String,
) -> impl Future<Output = bool> + use<> {
    let open = pb::OpenIngest {
        ingest_id: id,
        diff_id,
        ..pb::OpenIngest::default()
    };
    let pieces = (0..blob.len()).step_by(orlop_wire::CHUNK_BYTES).map(|at| {
        let end = blob.len().min(at + orlop_wire::CHUNK_BYTES);
        write_request::Message::Data(blob.slice(at..end))
    });
    let messages: Vec<_> = std::iter::once(write_request::Message::Open(open))
        .chain(pieces)
        .chain([write_request::Message::Commit(pb::CommitIngest::default())])
        .map(|message| pb::WriteRequest {
            message: Some(message),
        })
        .collect();
    let mut content = ContentClient::new(store.channel.clone());
    async move { content.write(tokio_stream::iter(messages)).await.is_ok() }
}

/// A tar of one small file, and gibibytes of zeros after its end. Gzip members may follow each other:
/// one is made, and repeated.
fn bomb(gibibytes: usize, level: Compression) -> Vec<u8> {
    let member = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut blob = member(&Tar::new().file("f", b"x").end());
    let zeros = member(&vec![0; MEMBER_BYTES]);
    blob.extend(zeros.repeat(gibibytes * ((1 << 30) / MEMBER_BYTES)));
    blob
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_i5_gibibytes_of_zeros_take_little_memory() {
    let store = Process::start().await;
    let fair = bomb(3, Compression::fast());
    let image = store.import(fair).await.unwrap();
    assert_eq!(store.unpack(image).await.unwrap().unpacked, 1);
    assert!(store.peak_kib() < MEMORY_KIB_MAX, "{}", store.peak_kib());

    let steep = bomb(4, Compression::best());
    let image = store.import(steep).await.unwrap();
    let refused = store.unpack(image).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(store.peak_kib() < MEMORY_KIB_MAX, "{}", store.peak_kib());
}

/// A layer of many bytes, half of them noise; its blob and its diff id.
fn half_noise(seed: u32) -> (Bytes, String) {
    let noise = (0..LAYER_BYTES / 8).flat_map(|n| {
        let n = u32::try_from(n).unwrap() ^ seed;
        let noise = n.wrapping_mul(2_654_435_761).rotate_left(n % 32);
        u64::from(noise).to_le_bytes()
    });
    let body: Vec<u8> = noise.collect();
    let tar = Tar::new().file("f", &body).end();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&tar).unwrap();
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&tar)));
    (encoder.finish().unwrap().into(), diff_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_layers_that_arrive_at_once_take_little_memory() {
    let store = Process::start().await;
    let layers: Vec<_> = (0..LAYERS)
        .map(|n| half_noise(u32::try_from(n).unwrap()))
        .collect();
    let mut writes = tokio::task::JoinSet::new();
    for (n, (blob, diff_id)) in layers.into_iter().enumerate() {
        writes.spawn(write(&store, n.to_string(), blob, diff_id));
    }
    assert!(writes.join_all().await.into_iter().all(|written| written));
    assert!(store.peak_kib() < MEMORY_KIB_MAX, "{}", store.peak_kib());
}
