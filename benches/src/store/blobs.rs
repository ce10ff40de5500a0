//! Many small blobs, and one blob that many want: how each operation's cost grows, what memory it
//! takes, and how long a start takes then. `BENCH_BLOBS` (default 100,000) is the number.

use std::time::{Duration, Instant};

use orlop_proto::store as pb;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;

use super::service::{Service, digest};

const BATCH: usize = 10_000;
const READERS: usize = 100;
const READ_BYTES: usize = 100 << 20;

pub(crate) fn measure(runtime: &Runtime) {
    let count = std::env::var("BENCH_BLOBS").ok();
    let count: usize = count.and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let mut service = Service::start(runtime, "auto");
    println!("\nmany blobs (one store; ours alone: no peer has these operations)");
    for batch in 0..count.div_ceil(BATCH) {
        let started = Instant::now();
        runtime.block_on(put(&service, batch));
        if batch == 0 || (batch + 1) * BATCH >= count {
            let so_far = (batch + 1) * BATCH;
            say(
                &format!("put, 10,000 more, {so_far} in all"),
                started,
                BATCH,
            );
        }
    }
    let known: Vec<String> = (0..BATCH).map(|n| digest(&blob(n))).collect();
    let started = Instant::now();
    let request = pb::FindMissingRequest {
        digests: known.clone(),
    };
    runtime.block_on(async { service.content().find_missing(request).await.unwrap() });
    say("find-missing, 10,000 in one call", started, BATCH);
    let started = Instant::now();
    runtime.block_on(stat(&service, &known[..1000]));
    say("stat, one call each", started, 1000);
    let started = Instant::now();
    let listed = runtime.block_on(list(&service));
    say("list", started, listed);
    let started = Instant::now();
    service.restart();
    println!("  {:44}{:>10.1} ms", "start-up", millis(started.elapsed()));
    let started = Instant::now();
    runtime.block_on(collect(&service));
    say("collect, nothing stays", started, listed);
    let (most, now) = service.memory();
    println!(
        "  {:44}{most:>10} KiB at most, {now} KiB now",
        "resident, since that start"
    );
    crowd(runtime, &service);
}

/// A hundred clients read one blob at once.
fn crowd(runtime: &Runtime, service: &Service) {
    let bytes: Vec<u8> = (0..READ_BYTES).map(|n| n.to_le_bytes()[n % 3]).collect();
    let blob = runtime.block_on(service.put(bytes, "application/octet-stream", ""));
    let started = Instant::now();
    let readers = (0..READERS).map(|_| read(service, &blob.digest));
    let total: usize = runtime
        .block_on(futures_util::future::join_all(readers))
        .into_iter()
        .sum();
    #[allow(clippy::cast_precision_loss, reason = "a number to look at")]
    let rate = total as f64 / started.elapsed().as_secs_f64() / 1e9;
    println!(
        "  {:44}{rate:>10.2} GB/s",
        "100 readers of one blob of 100 MiB"
    );
}

fn say(what: &str, started: Instant, operations: usize) {
    #[allow(clippy::cast_precision_loss, reason = "a number to look at")]
    let each = millis(started.elapsed()) * 1e3 / operations.max(1) as f64;
    println!(
        "  {what:44}{:>10.1} ms {each:>10.2} us each",
        millis(started.elapsed())
    );
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn blob(number: usize) -> Vec<u8> {
    format!("small blob {number}\n").into_bytes()
}

async fn put(service: &Service, batch: usize) {
    let blobs = (batch * BATCH..(batch + 1) * BATCH).map(|number| {
        let data = blob(number);
        pb::PutManyRequest {
            digest: digest(&data),
            data: data.into(),
            lease: String::new(),
        }
    });
    let stream = tokio_stream::iter(blobs.collect::<Vec<_>>());
    service.content().put_many(stream).await.unwrap();
}

async fn stat(service: &Service, digests: &[String]) {
    let mut content = service.content();
    for digest in digests {
        let request = pb::StatRequest {
            digest: digest.clone(),
        };
        content.stat(request).await.unwrap();
    }
}

async fn list(service: &Service) -> usize {
    let mut stream = service
        .content()
        .list(pb::ListRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut count = 0;
    while let Some(blob) = stream.next().await {
        blob.unwrap();
        count += 1;
    }
    count
}

async fn collect(service: &Service) {
    let request = pb::CollectRequest { dry_run: false };
    service.maintenance().collect(request).await.unwrap();
}

async fn read(service: &Service, digest: &str) -> usize {
    let request = pb::ReadRequest {
        digest: digest.to_owned(),
        ..pb::ReadRequest::default()
    };
    let mut stream = service.content().read(request).await.unwrap().into_inner();
    let mut bytes = 0;
    while let Some(piece) = stream.next().await {
        bytes += piece.unwrap().data.len();
    }
    bytes
}
