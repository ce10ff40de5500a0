//! `Images.Watch` and lists in pages, while names change.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "served/store.rs"]
mod served;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orlop_proto::store as pb;
use orlop_proto::store::images_client::ImagesClient;
use orlop_proto::types::Descriptor;
use orlop_wire::{Endpoint, connect};
use served::{Served, put};
use tokio::time::timeout;
use tonic::{Code, Streaming};

const PATIENCE: Duration = Duration::from_secs(30);

async fn watch(served: &Served, prefix: &str) -> Streaming<pb::ImageEvent> {
    let request = pb::WatchImagesRequest {
        prefix: prefix.to_owned(),
    };
    served.images().watch(request).await.unwrap().into_inner()
}

/// The name of the next event, and where it points; nothing when it is gone.
async fn next(events: &mut Streaming<pb::ImageEvent>) -> (String, Option<String>) {
    let event = timeout(PATIENCE, events.message()).await.unwrap();
    let event = event.unwrap().unwrap();
    let image = event.image.unwrap();
    let target = image.target.unwrap().digest;
    (image.name, (!event.deleted).then_some(target))
}

async fn delete(served: &Served, name: &str) {
    let request = pb::DeleteImageRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    served.images().delete(request).await.unwrap();
}

#[tokio::test]
async fn a_watch_tells_changes_from_its_headers_on_and_of_its_prefix_only() {
    let served = Served::start().await;
    let target = served.named("docker.io/library/before:1", b"layer").await;
    let mut all = watch(&served, "").await;
    let mut some = watch(&served, "docker.io/library/b").await;
    for name in ["docker.io/library/a:1", "docker.io/library/b:1"] {
        served.images().put(put(name, &target)).await.unwrap();
    }
    delete(&served, "docker.io/library/a:1").await;
    delete(&served, "docker.io/library/b:1").await;
    let at = Some(target.digest);
    let (a, b) = ("docker.io/library/a:1", "docker.io/library/b:1");
    for (name, target) in [(a, &at), (b, &at), (a, &None), (b, &None)] {
        assert_eq!(next(&mut all).await, (name.to_owned(), target.clone()));
    }
    assert_eq!(next(&mut some).await, (b.to_owned(), at));
    assert_eq!(next(&mut some).await, (b.to_owned(), None));
}

#[tokio::test]
async fn a_change_that_did_not_happen_is_not_told() {
    let served = Served::start().await;
    let target = served.named("docker.io/library/a:1", b"layer").await;
    let mut events = watch(&served, "").await;
    let mut lost = put("docker.io/library/a:1", &target);
    lost.expected = Some(pb::put_image_request::Expected::Absent(true));
    served.images().put(lost).await.unwrap_err();
    delete(&served, "docker.io/library/a:1").await;
    assert_eq!(next(&mut events).await.1, None);
}

/// Each writer changes a name of its own, and all of them one together by comparing and swapping.
#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_name_are_its_acknowledged_changes_in_their_order() {
    const WRITERS: usize = 8;
    const CHANGES: usize = 24;
    let served = Served::start().await;
    let targets = [
        served.image(b"one").await,
        served.image(b"two").await,
        served.image(b"three").await,
    ];
    let mut events = watch(&served, "").await;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (images, targets) = (served.images(), targets.clone());
        writers.push(tokio::spawn(async move {
            let mut images = images;
            let name = format!("docker.io/library/w{writer}:1");
            let mut acknowledged = Vec::new();
            for turn in 0..CHANGES {
                let target = &targets[(writer + turn) % 3];
                if turn % 4 == 3 {
                    let request = pb::DeleteImageRequest {
                        name: name.clone(),
                        ..Default::default()
                    };
                    images.delete(request).await.unwrap();
                    acknowledged.push(None);
                } else {
                    images.put(put(&name, target)).await.unwrap();
                    acknowledged.push(Some(target.digest.clone()));
                }
                let shared = put("docker.io/library/shared:1", target);
                images.put(shared).await.unwrap();
            }
            (name, acknowledged)
        }));
    }
    let mut expected = BTreeMap::new();
    for writer in writers {
        expected.extend([writer.await.unwrap()]);
    }
    let mut told: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    for _ in 0..2 * WRITERS * CHANGES {
        let (name, target) = next(&mut events).await;
        told.entry(name).or_default().push(target);
    }
    let shared = told.remove("docker.io/library/shared:1").unwrap();
    assert_eq!(told, expected);
    let get = pb::GetImageRequest {
        name: "docker.io/library/shared:1".into(),
    };
    let last = served.images().get(get).await.unwrap().into_inner();
    let last = last.target.map(|target| target.digest);
    assert_eq!(shared.last().unwrap(), &last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_far_behind_is_ended() {
    let served = Served::start().await;
    let mut target = served.image(b"layer").await;
    // Large events, so that few of them fill what lies between the store and the reader.
    let large = ("a".to_owned(), "b".repeat(32 * 1024));
    target.annotations.extend([large]);
    // A connection of its own: what is not read on it holds up nobody else.
    let socket = served.directory.path().join("run").join("s.sock");
    let mut own = ImagesClient::new(connect(&Endpoint::Unix(socket)));
    let events = own.watch(pb::WatchImagesRequest::default()).await;
    let mut events = events.unwrap().into_inner();
    let writers = (0..8).map(|writer| {
        let (mut images, target) = (served.images(), target.clone());
        let name = format!("docker.io/library/w{writer}:1");
        tokio::spawn(async move {
            for _ in 0..250 {
                images.put(put(&name, &target)).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let end = loop {
        match timeout(PATIENCE, events.message()).await.unwrap() {
            Ok(event) => assert!(event.is_some(), "the watch ended without saying why"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Aborted, "{end}");
}

async fn page(served: &Served, token: String) -> pb::ListImagesResponse {
    let request = pb::ListImagesRequest {
        prefix: "docker.io/library/p".into(),
        page_token: token,
        page_size: 7,
    };
    served.images().list(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_stays_is_in_one_page_while_others_come_and_go() {
    let served = Served::start().await;
    let target = served.image(b"layer").await;
    let stays = |n: usize| format!("docker.io/library/p{n:03}:stays");
    for n in 0..50 {
        served.images().put(put(&stays(n), &target)).await.unwrap();
    }
    let comes_and_goes = tokio::spawn(come_and_go(served.images(), target));
    for _ in 0..20 {
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let page = page(&served, token).await;
            seen.extend(page.images.into_iter().map(|i| i.image.unwrap().name));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let once: BTreeSet<_> = seen.iter().collect();
        assert_eq!(once.len(), seen.len(), "a name is listed twice");
        assert!(seen.is_sorted());
        seen.retain(|name| name.ends_with(":stays"));
        assert_eq!(seen, (0..50).map(stays).collect::<Vec<_>>());
    }
    comes_and_goes.abort();
}

async fn come_and_go(mut images: ImagesClient<tonic::transport::Channel>, target: Descriptor) {
    for turn in 0.. {
        let name = format!("docker.io/library/p{:03}:goes", turn * 7 % 50);
        images.put(put(&name, &target)).await.unwrap();
        let request = pb::DeleteImageRequest {
            name,
            ..Default::default()
        };
        images.delete(request).await.unwrap();
    }
}

#[tokio::test]
async fn an_image_tells_when_it_was_last_used() {
    let served = Served::start().await;
    served.named("docker.io/library/a:1", b"layer").await;
    served.named("docker.io/library/b:1", b"other").await;
    let written = last_used(&served).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let request = pb::ResolveImageRequest {
        reference: "a:1".into(),
        platform: None,
    };
    served.images().resolve(request).await.unwrap();
    let resolved = last_used(&served).await;
    assert!(resolved[0] > written[0] && resolved[1] == written[1]);
}

async fn last_used(served: &Served) -> Vec<(i64, i32)> {
    let list = pb::ListImagesRequest::default();
    let page = served.images().list(list).await.unwrap().into_inner();
    let used = page
        .images
        .into_iter()
        .map(|image| image.last_used.unwrap());
    used.map(|time| (time.seconds, time.nanos)).collect()
}
