//! `Images`: names and how they change.

use orlop_proto::error::{Kind, reason};
use orlop_proto::store as pb;
use orlop_proto::store::put_image_request::Expected;
use orlop_proto::types::Descriptor;

use crate::calls::{kind, named, refusal};
use crate::reach::Subject;
use crate::words::digest;

conforms! {
    a_name_is_put_found_and_deleted,
    names_are_put_in_their_normal_form,
    compare_and_swap_lets_one_win,
    of_sixteen_writers_each_swap_has_one_winner,
    a_name_is_deleted_only_from_where_it_is_said_to_point,
    names_are_listed_by_prefix_and_in_pages,
    a_page_goes_on_while_names_change,
    a_watch_tells_changes_from_now_on,
}

const NAME: &str = "docker.io/library/a:latest";

async fn get(store: &Subject, name: &str) -> Result<pb::Image, tonic::Status> {
    let name = name.to_owned();
    let answer = store.images().get(pb::GetImageRequest { name }).await;
    answer.map(tonic::Response::into_inner)
}

async fn delete(store: &Subject, name: &str, expected: &str) -> Result<(), tonic::Status> {
    let request = pb::DeleteImageRequest {
        name: name.to_owned(),
        expected: expected.to_owned(),
    };
    store.images().delete(request).await.map(drop)
}

/// Names, and the token of the next page.
async fn page(store: &Subject, prefix: &str, page_size: u32, token: &str) -> (Vec<String>, String) {
    let request = pb::ListImagesRequest {
        prefix: prefix.to_owned(),
        page_size,
        page_token: token.to_owned(),
    };
    let page = store.images().list(request).await.unwrap().into_inner();
    let names = page
        .images
        .into_iter()
        .map(|summary| summary.image.unwrap().name);
    (names.collect(), page.next_page_token)
}

async fn a_name_is_put_found_and_deleted(store: Subject) {
    assert_eq!(
        refusal(get(&store, NAME).await).reason,
        reason::IMAGE_NOT_FOUND
    );
    let first = store.named(NAME, b"first").await;
    let updated = |image: &pb::Image| image.updated.map(|at| (at.seconds, at.nanos));
    let image = get(&store, NAME).await.unwrap();
    let before = updated(&image);
    assert_eq!((image.name.as_str(), image.target), (NAME, Some(first)));
    let second = store.named(NAME, b"second").await;
    let moved = get(&store, NAME).await.unwrap();
    assert!(updated(&moved) > before);
    assert_eq!(moved.target, Some(second));
    delete(&store, NAME, "").await.unwrap();
    assert_eq!(kind(delete(&store, NAME, "").await), Kind::NotFound);
    assert_eq!(kind(get(&store, NAME).await), Kind::NotFound);
}

async fn names_are_put_in_their_normal_form(store: Subject) {
    let target = store.image(b"layer").await;
    for (short, normal) in [
        ("a", NAME),
        ("docker.io/a", NAME),
        ("me/a:1", "docker.io/me/a:1"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
    ] {
        let put = store
            .images()
            .put(named(short, &target))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(put.name, normal);
        get(&store, normal).await.unwrap();
    }
    let long = format!("a:{}", "x".repeat(129));
    for bad in ["", "A", "a b", "../x", "a//b", &long] {
        let answer = store.images().put(named(bad, &target)).await;
        assert_eq!(kind(answer), Kind::InvalidArgument, "{bad}");
    }
    let nowhere = pb::PutImageRequest {
        target: None,
        ..named("a", &target)
    };
    assert_eq!(
        kind(store.images().put(nowhere).await),
        Kind::InvalidArgument
    );
}

fn swap(target: &Descriptor, expected: Expected) -> pb::PutImageRequest {
    pb::PutImageRequest {
        expected: Some(expected),
        ..named(NAME, target)
    }
}

async fn compare_and_swap_lets_one_win(store: Subject) {
    let target = store.image(b"layer").await;
    let put = async |expected| store.images().put(swap(&target, expected)).await;
    let elsewhere = digest(b"?");
    let there = || Expected::Digest(target.digest.clone());
    assert_eq!(kind(put(there()).await), Kind::Aborted);
    put(Expected::Absent(true)).await.unwrap();
    assert_eq!(kind(put(Expected::Absent(true)).await), Kind::Aborted);
    assert_eq!(kind(put(Expected::Digest(elsewhere)).await), Kind::Aborted);
    put(there()).await.unwrap();
    put(Expected::Absent(false)).await.unwrap();
}

async fn of_sixteen_writers_each_swap_has_one_winner(store: Subject) {
    let mut targets = Vec::new();
    for n in 0..16_u8 {
        targets.push(store.image(&[n]).await);
    }
    let mut now: Option<Descriptor> = None;
    for _ in 0..4 {
        let calls = targets
            .iter()
            .filter(|target| Some(*target) != now.as_ref())
            .map(|target| {
                let expected = match &now {
                    None => Expected::Absent(true),
                    Some(now) => Expected::Digest(now.digest.clone()),
                };
                let (store, request, target) =
                    (store.clone(), swap(target, expected), target.clone());
                tokio::spawn(async move { (store.images().put(request).await.map(drop), target) })
            });
        let mut winners = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            match call.await.unwrap() {
                (Ok(()), target) => winners.push(target),
                (lost, _) => assert_eq!(kind(lost), Kind::Aborted),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(
            get(&store, NAME).await.unwrap().target.as_ref(),
            winners.first()
        );
        now = winners.pop();
    }
}

async fn a_name_is_deleted_only_from_where_it_is_said_to_point(store: Subject) {
    let target = store.named(NAME, b"layer").await;
    assert_eq!(
        kind(delete(&store, NAME, &digest(b"?")).await),
        Kind::Aborted
    );
    delete(&store, NAME, &target.digest).await.unwrap();
    assert_eq!(
        kind(delete(&store, NAME, &target.digest).await),
        Kind::NotFound
    );
}

async fn names_are_listed_by_prefix_and_in_pages(store: Subject) {
    let target = store.image(b"layer").await;
    for name in ["b:2", "a:1", "b:1", "me/b:1", "localhost/b:1"] {
        store.images().put(named(name, &target)).await.unwrap();
    }
    let library = ["a:1", "b:1", "b:2"].map(|name| format!("docker.io/library/{name}"));
    let expected = [
        library.as_slice(),
        &["docker.io/me/b:1".into(), "localhost/b:1".into()],
    ]
    .concat();
    assert_eq!(
        page(&store, "", 0, "").await,
        (expected.clone(), String::new())
    );
    assert_eq!(page(&store, "docker.io/library/", 0, "").await.0, library);
    assert_eq!(
        page(&store, "nobody", 0, "").await,
        (Vec::new(), String::new())
    );
    for page_size in [1, 2, 4, 5, 6] {
        let (mut names, mut token) = (Vec::new(), String::new());
        loop {
            let (some, next) = page(&store, "", page_size, &token).await;
            assert!(some.len() <= page_size as usize);
            names.extend(some);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(names, expected, "{page_size}");
    }
}

async fn a_page_goes_on_while_names_change(store: Subject) {
    let target = store.image(b"layer").await;
    let name = |n: u32| format!("docker.io/library/n:{n:02}");
    for n in (0..20).step_by(2) {
        store.images().put(named(&name(n), &target)).await.unwrap();
    }
    let (first, token) = page(&store, "", 3, "").await;
    assert_eq!(first, [0, 2, 4].map(name));
    // Before the page's end, at it, and behind it.
    for n in [1, 15] {
        store.images().put(named(&name(n), &target)).await.unwrap();
    }
    for n in [4, 6] {
        delete(&store, &name(n), "").await.unwrap();
    }
    let (rest, token) = page(&store, "", 100, &token).await;
    assert_eq!(rest, [8, 10, 12, 14, 15, 16, 18].map(name));
    assert_eq!(token, "");
}

async fn a_watch_tells_changes_from_now_on(store: Subject) {
    let before = store.named("docker.io/library/before:1", b"layer").await;
    let watch = async |prefix: &str| {
        let prefix = prefix.to_owned();
        let request = pb::WatchImagesRequest { prefix };
        store.images().watch(request).await.unwrap().into_inner()
    };
    let mut everything = watch("").await;
    let mut some = watch("docker.io/library/b").await;
    for name in ["a:1", "b:1"] {
        store.images().put(named(name, &before)).await.unwrap();
    }
    delete(&store, "docker.io/library/b:1", "").await.unwrap();
    // What was refused changed nothing.
    let refused = swap(&before, Expected::Digest(digest(b"?")));
    assert_eq!(kind(store.images().put(refused).await), Kind::Aborted);
    store.images().put(named("last", &before)).await.unwrap();
    for (name, deleted) in [
        ("a:1", false),
        ("b:1", false),
        ("b:1", true),
        ("last:latest", false),
    ] {
        let event = everything.message().await.unwrap().unwrap();
        let image = event.image.unwrap();
        assert_eq!(
            (image.name, event.deleted),
            (format!("docker.io/library/{name}"), deleted)
        );
        assert!(deleted || image.target.as_ref() == Some(&before));
    }
    for deleted in [false, true] {
        let event = some.message().await.unwrap().unwrap();
        let name = event.image.unwrap().name;
        assert_eq!(
            (name.as_str(), event.deleted),
            ("docker.io/library/b:1", deleted)
        );
    }
}
