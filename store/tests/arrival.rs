//! Layers that are unpacked while they are written, through a socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{Timestamp, ToSpan as _};
use orlop_proto::error::Kind;
use orlop_proto::store::content_client::ContentClient;
use orlop_proto::store::write_request::Message;
use orlop_proto::store::{
    CommitIngest, OpenIngest, StatIngestRequest, StatRequest, WriteRequest, WriteResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

#[path = "support/client.rs"]
mod client;
#[path = "support/service.rs"]
mod service;
#[path = "support/smith.rs"]
mod smith;
use client::{Client, emptied, kind};
use orlop_store::snapshots::collect::Names;
use service::{Channel, names, sha256};
use smith::{Canary, Tar};

/// Small, so that there are many.
const DATA_BYTES: usize = 10_000;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer of some size that does not compress to nothing.
fn layer(name: &str) -> Vec<u8> {
    let noise: Vec<u8> = (0..200_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    Tar::new()
        .directory("d", 0o755)
        .file("d/noise", &noise)
        .file("d/name", name.as_bytes())
        .end()
}

fn message(message: Message) -> WriteRequest {
    WriteRequest {
        message: Some(message),
    }
}

fn open(id: &str, offset: usize, diff_id: &str) -> WriteRequest {
    message(Message::Open(OpenIngest {
        ingest_id: id.to_owned(),
        offset: i64::try_from(offset).unwrap(),
        diff_id: diff_id.to_owned(),
        ..OpenIngest::default()
    }))
}

fn data(bytes: &[u8]) -> Vec<WriteRequest> {
    let pieces = bytes.chunks(DATA_BYTES);
    pieces
        .map(|piece| message(Message::Data(Bytes::copy_from_slice(piece))))
        .collect()
}

fn commit(digest: &str) -> WriteRequest {
    message(Message::Commit(CommitIngest {
        digest: digest.to_owned(),
        size: 0,
    }))
}

/// All messages of a whole write.
fn whole(id: &str, blob: &[u8], diff_id: &str) -> Vec<WriteRequest> {
    let mut messages = vec![open(id, 0, diff_id)];
    messages.extend(data(blob));
    messages.push(commit(&sha256(blob)));
    messages
}

async fn send(client: &Client, messages: Vec<WriteRequest>) -> Result<WriteResponse, Status> {
    let mut content: ContentClient<Channel> = client.service.client(ContentClient::new);
    let response = content.write(tokio_stream::iter(messages)).await?;
    Ok(response.into_inner())
}

/// A write whose messages come one by one: dropped, its client is gone.
struct Slow {
    messages: mpsc::Sender<WriteRequest>,
    answer: tokio::task::JoinHandle<Result<WriteResponse, Status>>,
}

impl Slow {
    fn start(client: &Client) -> Self {
        let mut content: ContentClient<Channel> = client.service.client(ContentClient::new);
        let (messages, receiver) = mpsc::channel(4);
        let answer = tokio::spawn(async move {
            let response = content.write(ReceiverStream::new(receiver)).await?;
            Ok(response.into_inner())
        });
        Self { messages, answer }
    }

    async fn send(&self, messages: impl IntoIterator<Item = WriteRequest>) {
        for message in messages {
            self.messages.send(message).await.unwrap();
        }
    }

    async fn finish(self) -> Result<WriteResponse, Status> {
        drop(self.messages);
        self.answer.await.unwrap()
    }
}

fn is_here(client: &Client, diff_id: &str) -> bool {
    let snapshots = &client.service.store.snapshots;
    snapshots.layer_bytes(diff_id).is_some()
}

/// Waits for something that another thread is about to do.
async fn eventually(what: &str, is: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !is().await {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A layer of this write is under way.
async fn under_way(client: &Client) {
    let layers = client.service.state().join("layers");
    eventually("an arrival begins", async || !names(&layers).is_empty()).await;
}

/// No layer and no half of one.
async fn nothing_left(client: &Client) {
    let layers = client.service.state().join("layers");
    eventually("no layers", async || names(&layers).is_empty()).await;
    emptied(&client.service.state().join("trash")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_written_layer_is_unpacked_in_every_compression() {
    let mut client = Client::start().await;
    for (compression, compress) in [
        ("plain", <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>),
        ("gzip", gzip),
        ("zstd", |tar| zstd::bulk::compress(tar, 3).unwrap()),
    ] {
        let tar = layer(compression);
        let (blob, diff_id) = (compress(&tar), sha256(&tar));
        let written = send(&client, whole(compression, &blob, &diff_id)).await;
        assert_eq!(written.unwrap().digest, sha256(&blob));
        assert!(is_here(&client, &diff_id), "{compression}");

        let image = client.service.image(&[(&blob, diff_id)]);
        let unpacked = client.unpack(&image).await.unwrap();
        assert_eq!((unpacked.existed, unpacked.unpacked), (1, 0));
        client.prepare(compression, &unpacked.name).await.unwrap();
        let name = client.read(compression, "d/name").await.unwrap();
        assert_eq!(name, compression.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_here_is_not_unpacked_again() {
    let client = Client::start().await;
    let tar = layer("twice");
    let diff_id = sha256(&tar);
    send(&client, whole("plain", &tar, &diff_id)).await.unwrap();
    let before = names(&client.service.state().join("layers"));
    let slow = Slow::start(&client);
    slow.send([open("gzip", 0, &diff_id)]).await;
    slow.send(data(&gzip(&tar))).await;
    slow.send([commit("")]).await;
    assert!(slow.finish().await.is_ok());
    assert_eq!(names(&client.service.state().join("layers")), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn h5_a_layer_with_another_diff_id_is_only_a_blob() {
    let mut client = Client::start().await;
    let blob = gzip(&layer("one"));
    let other = sha256(b"another");
    let written = send(&client, whole("up", &blob, &other)).await.unwrap();
    assert_eq!(written.digest, sha256(&blob));
    assert!(!is_here(&client, &other));
    nothing_left(&client).await;
    let image = client.service.image(&[(&blob, other)]);
    assert_eq!(kind(client.unpack(&image).await), Kind::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_a10_a_blob_that_cannot_be_unpacked_is_stored_and_touches_nothing() {
    let mut client = Client::start().await;
    let canary = Canary::new();
    let through = Tar::new()
        .symlink("way", canary.path())
        .file("way/f", b"harm");
    for (name, blob) in [
        ("text", b"no tar at all".repeat(1000)),
        ("out", Tar::new().file("../out", b"x").end()),
        ("through", through.end()),
        ("cut", gzip(&layer("cut"))[..10_000].to_vec()),
    ] {
        let diff_id = sha256(&blob);
        let written = send(&client, whole(name, &blob, &diff_id)).await.unwrap();
        assert_eq!(written.digest, sha256(&blob), "{name}");
        assert!(!is_here(&client, &diff_id), "{name}");
        // What comes through a link is made within the layer, in directories that take their
        // attributes from the layers below: it waits for these.
        let image = client.service.image(&[(&blob, diff_id)]);
        assert_eq!(
            client.unpack(&image).await.is_ok(),
            name == "through",
            "{name}"
        );
    }
    canary.sings();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_diff_id_is_no_hint() {
    let client = Client::start().await;
    for odd in ["sha256:../../x", "../x", "sha256:", "x"] {
        let written = send(&client, whole("up", &layer("odd"), odd)).await;
        assert!(written.is_ok(), "{odd}");
        nothing_left(&client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_write_unpacks_what_came_before() {
    let mut client = Client::start().await;
    let tar = layer("resumed");
    let (blob, diff_id) = (gzip(&tar), sha256(&tar));
    let half = blob.len() / 2;
    let mut first = vec![open("up", 0, &diff_id)];
    first.extend(data(&blob[..half]));
    let left = send(&client, first).await.unwrap();
    assert_eq!(usize::try_from(left.offset).unwrap(), half);
    nothing_left(&client).await;

    let mut second = vec![open("up", half, &diff_id)];
    second.extend(data(&blob[half..]));
    second.push(commit(&sha256(&blob)));
    send(&client, second).await.unwrap();
    assert!(is_here(&client, &diff_id));
    let image = client.service.image(&[(&blob, diff_id)]);
    assert_eq!(client.unpack(&image).await.unwrap().unpacked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_write_leaves_no_layer() {
    let client = Client::start().await;
    let tar = layer("abandoned");
    let slow = Slow::start(&client);
    slow.send([open("up", 0, &sha256(&tar))]).await;
    slow.send(data(&tar[..tar.len() / 2])).await;
    under_way(&client).await;
    slow.answer.abort();
    nothing_left(&client).await;
    // Its ingest is free again, and so is its place among the arrivals.
    let diff_id = sha256(&tar);
    eventually("the ingest is free", async || {
        let mut content: ContentClient<Channel> = client.service.client(ContentClient::new);
        let request = StatIngestRequest {
            ingest_id: "up".to_owned(),
        };
        let info = content.stat_ingest(request).await.unwrap().into_inner();
        let offset = usize::try_from(info.offset).unwrap();
        let mut rest = vec![open("up", offset, &diff_id)];
        rest.extend(data(&tar[offset..]));
        rest.push(commit(""));
        send(&client, rest).await.is_ok()
    })
    .await;
    assert!(is_here(&client, &diff_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_bytes_that_are_not_the_blob_leave_no_layer() {
    let client = Client::start().await;
    let tar = layer("mismatch");
    let mut messages = vec![open("up", 0, &sha256(&tar))];
    messages.extend(data(&tar));
    messages.push(commit(&sha256(b"another")));
    let error = send(&client, messages).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    nothing_left(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_of_one_layer_the_first_unpacks() {
    let mut client = Client::start().await;
    let tar = layer("shared");
    let (blob, diff_id) = (gzip(&tar), sha256(&tar));
    let first = Slow::start(&client);
    first.send([open("first", 0, &diff_id)]).await;
    first.send(data(&tar[..tar.len() / 2])).await;
    under_way(&client).await;
    // The second is not held up by the first.
    send(&client, whole("second", &blob, &diff_id))
        .await
        .unwrap();
    assert!(!is_here(&client, &diff_id));
    first.send(data(&tar[tar.len() / 2..])).await;
    first.send([commit("")]).await;
    assert_eq!(first.finish().await.unwrap().digest, diff_id);
    assert!(is_here(&client, &diff_id));
    let image = client.service.image(&[(&blob, diff_id)]);
    assert_eq!(client.unpack(&image).await.unwrap().unpacked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_unpacked_while_its_layer_arrives_has_it_once() {
    let mut client = Client::start().await;
    let tar = layer("both");
    let (blob, diff_id) = (gzip(&tar), sha256(&tar));
    let slow = Slow::start(&client);
    slow.send([open("up", 0, &diff_id)]).await;
    slow.send(data(&tar[..tar.len() / 2])).await;
    under_way(&client).await;
    let image = client.service.image(&[(&blob, diff_id.clone())]);
    assert_eq!(client.unpack(&image).await.unwrap().unpacked, 1);
    slow.send(data(&tar[tar.len() / 2..])).await;
    slow.send([commit("")]).await;
    assert!(slow.finish().await.is_ok());
    assert_eq!(names(&client.service.state().join("layers")).len(), 1);
    assert_eq!(client.unpack(&image).await.unwrap().existed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_writers_than_cores_all_succeed() {
    let mut client = Client::start().await;
    let cores = std::thread::available_parallelism().unwrap().get();
    let tars: Vec<_> = (0..cores + 3).map(|n| layer(&n.to_string())).collect();
    let slow: Vec<_> = tars.iter().map(|_| Slow::start(&client)).collect();
    for (n, (slow, tar)) in slow.iter().zip(&tars).enumerate() {
        let id = format!("up-{n}");
        slow.send([open(&id, 0, &sha256(tar))]).await;
        slow.send(data(tar)).await;
    }
    for slow in slow {
        slow.send([commit("")]).await;
        slow.finish().await.unwrap();
    }
    let here = tars.iter().filter(|tar| is_here(&client, &sha256(tar)));
    assert!(here.count() >= cores);
    let layers: Vec<_> = tars.iter().map(|t| (t.as_slice(), sha256(t))).collect();
    let image = client.service.image(&layers);
    let unpacked = client.unpack(&image).await.unwrap();
    let total = unpacked.existed + unpacked.unpacked;
    assert_eq!(usize::try_from(total).unwrap(), tars.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_just_arrived_has_the_grace_of_a_blob() {
    let client = Client::start().await;
    let tar = layer("grace");
    let diff_id = sha256(&tar);
    send(&client, whole("up", &tar, &diff_id)).await.unwrap();
    let snapshots = &client.service.store.snapshots;
    let nothing = Names::default();
    let hour = 1.hour();
    snapshots
        .collect(&nothing, Timestamp::now() - hour, false)
        .unwrap();
    assert!(is_here(&client, &diff_id));
    snapshots
        .collect(&nothing, Timestamp::now() + hour, false)
        .unwrap();
    nothing_left(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_a_diff_id_makes_no_layer() {
    let client = Client::start().await;
    let tar = layer("none");
    send(&client, whole("up", &tar, "")).await.unwrap();
    nothing_left(&client).await;
    let mut content: ContentClient<Channel> = client.service.client(ContentClient::new);
    let digest = sha256(&tar);
    assert!(content.stat(StatRequest { digest }).await.is_ok());
}
