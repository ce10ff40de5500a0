//! `Content`: blobs.

use orlop_proto::error::{Kind, reason};
use orlop_proto::store as pb;
use orlop_proto::store::resource::Resource;
use orlop_proto::store::write_request::Message;
use sha2::{Digest as _, Sha384, Sha512};

use crate::calls::{all, commit, data, kind, named, open, put, refusal};
use crate::reach::{Subject, Way};
use crate::words::digest;

conforms! {
    bytes_come_back_whole_and_in_ranges,
    every_algorithm_names_blobs,
    e8_digests_are_checked_before_use,
    up_to_100_000_digests_are_looked_for_at_once,
    many_are_put_with_one_call,
    a_bad_blob_among_many_is_not_stored,
    a_blob_of_put_many_has_at_most_1_mib,
    blobs_are_listed_in_order_of_their_digest,
    what_is_needed_is_not_deleted,
    a_lease_holds_what_is_put_from_its_first_moment,
    who_asks_for_a_blob_uses_it,
    writers_and_readers_do_not_wait_for_each_other,
    a_read_may_verify_what_it_sends,
}

conforms_on_a_host! {
    a_blob_is_located_on_the_host,
    nothing_is_written_to_a_full_disk_of_the_host,
    a_blob_damaged_on_the_host_is_put_aside_and_heals,
}

async fn bytes_come_back_whole_and_in_ranges(store: Subject) {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let blob = store.blob(&bytes).await;
    assert_eq!(store.stat(&blob).await.unwrap().size, 3_000_000);
    assert!(store.bytes(&blob).await.unwrap() == bytes);
    for (offset, length, end) in [
        (0, 1, 1),
        (7, 2_000_000, 2_000_007),
        (2_999_999, 1, 3_000_000),
        (2_000_000, 0, 3_000_000),
        (3_000_000, 0, 3_000_000),
    ] {
        let range = store.range(&blob, offset, length).await.unwrap();
        let start = usize::try_from(offset).unwrap();
        assert!(range == bytes[start..end], "{offset} {length}");
    }
    for (offset, length) in [
        (3_000_001, 0),
        (3_000_000, 1),
        (0, 3_000_001),
        (-1, 1),
        (0, -1),
    ] {
        let answer = store.range(&blob, offset, length).await;
        assert_eq!(kind(answer), Kind::OutOfRange, "{offset} {length}");
    }
    let empty = store.blob(b"").await;
    assert_eq!(store.bytes(&empty).await.unwrap(), b"");
    let absent = digest(b"absent");
    assert_eq!(kind(store.bytes(&absent).await), Kind::NotFound);
    assert_eq!(kind(store.stat(&absent).await), Kind::NotFound);
}

async fn every_algorithm_names_blobs(store: Subject) {
    let (first, second) = (b"first".as_slice(), b"second".as_slice());
    let digests = |bytes: &[u8]| {
        [
            digest(bytes),
            format!("sha384:{}", hex::encode(Sha384::digest(bytes))),
            format!("sha512:{}", hex::encode(Sha512::digest(bytes))),
        ]
    };
    for (one, other) in digests(first).into_iter().zip(digests(second)) {
        let messages = vec![Message::Open(open("i", 0)), data(first), commit(&one, 5)];
        assert_eq!(store.write(messages).await.unwrap().digest, one);
        assert_eq!(store.bytes(&one).await.unwrap(), first);
        store.put_many(vec![put(&other, second)]).await.unwrap();
        assert_eq!(store.bytes(&other).await.unwrap(), second);
        assert_eq!(
            store
                .put_many(vec![put(&one, first)])
                .await
                .unwrap()
                .existed,
            1
        );
        let (algorithm, hex) = one.split_once(':').unwrap();
        let wrong = format!("{algorithm}:{}", "0".repeat(hex.len()));
        let answer = store.put_many(vec![put(&wrong, b"else")]).await;
        assert_eq!(kind(answer), Kind::InvalidArgument);
    }
}

async fn e8_digests_are_checked_before_use(store: Subject) {
    let long = format!("sha256:{}", "0".repeat(65));
    for bad in [
        "sha256:../../x",
        "",
        "sha256:AA",
        "md5:00",
        "sha256:",
        &long,
    ] {
        let said = bad.to_owned();
        assert_eq!(kind(store.bytes(bad).await), Kind::InvalidArgument, "{bad}");
        assert_eq!(kind(store.stat(bad).await), Kind::InvalidArgument, "{bad}");
        assert_eq!(
            kind(store.delete(bad).await),
            Kind::InvalidArgument,
            "{bad}"
        );
        let many = store.put_many(vec![put(bad, b"")]).await;
        assert_eq!(kind(many), Kind::InvalidArgument, "{bad}");
        let digests = vec![said];
        let missing = store
            .content()
            .find_missing(pb::FindMissingRequest { digests })
            .await;
        assert_eq!(kind(missing), Kind::InvalidArgument, "{bad}");
    }
}

async fn up_to_100_000_digests_are_looked_for_at_once(store: Subject) {
    let here = store.blob(b"here").await;
    for (count, allowed) in [(10_000, true), (100_000, true), (100_001, false)] {
        let mut digests: Vec<String> = (1..count).map(|n| format!("sha256:{n:064x}")).collect();
        digests.insert(77, here.clone());
        let request = pb::FindMissingRequest {
            digests: digests.clone(),
        };
        let answer = store.content().find_missing(request).await;
        if allowed {
            digests.remove(77);
            assert!(answer.unwrap().into_inner().missing == digests, "{count}");
        } else {
            assert_eq!(kind(answer), Kind::InvalidArgument);
        }
    }
}

async fn many_are_put_with_one_call(store: Subject) {
    let blobs: Vec<Vec<u8>> = (0..2500_u32).map(|n| n.to_le_bytes().to_vec()).collect();
    let requests: Vec<_> = blobs.iter().map(|blob| put(&digest(blob), blob)).collect();
    let first = store.put_many(requests.clone()).await.unwrap();
    assert_eq!((first.stored, first.existed), (2500, 0));
    let second = store.put_many(requests).await.unwrap();
    assert_eq!((second.stored, second.existed), (0, 2500));
    assert_eq!(
        store.bytes(&digest(&blobs[2499])).await.unwrap(),
        blobs[2499]
    );
    let none = store.put_many(Vec::new()).await.unwrap();
    assert_eq!((none.stored, none.existed), (0, 0));
}

async fn a_bad_blob_among_many_is_not_stored(store: Subject) {
    let (good, bad) = (digest(b"good"), digest(b"bad"));
    let requests = vec![put(&good, b"good"), put(&bad, b"worse")];
    let failure = refusal(store.put_many(requests).await);
    assert_eq!(failure.kind, Kind::InvalidArgument);
    assert_eq!(failure.reason, reason::DIGEST_MISMATCH);
    assert_eq!(kind(store.stat(&bad).await), Kind::NotFound);
    // A prefix may have been stored, and then it is whole.
    if let Ok(bytes) = store.bytes(&good).await {
        assert_eq!(bytes, b"good");
    }
    let again = vec![put(&good, b"good"), put(&bad, b"bad")];
    store.put_many(again).await.unwrap();
}

async fn a_blob_of_put_many_has_at_most_1_mib(store: Subject) {
    for (size, allowed) in [
        ((1 << 20) - 1, true),
        (1 << 20, true),
        ((1 << 20) + 1, false),
    ] {
        let bytes = vec![1; size];
        let blob = digest(&bytes);
        let answer = store.put_many(vec![put(&blob, &bytes)]).await;
        match allowed {
            true => assert_eq!(answer.unwrap().stored, 1),
            false => assert_eq!(kind(answer), Kind::InvalidArgument),
        }
        assert_eq!(store.stat(&blob).await.is_ok(), allowed);
    }
}

async fn blobs_are_listed_in_order_of_their_digest(store: Subject) {
    let mut expected = Vec::new();
    for n in 0..50_u8 {
        expected.push(store.blob(&[n; 100]).await);
    }
    let long = format!("sha512:{}", hex::encode(Sha512::digest([0; 100])));
    store.put_many(vec![put(&long, &[0; 100])]).await.unwrap();
    expected.push(long);
    expected.sort();
    let listed = all(store.content().list(pb::ListRequest {}).await)
        .await
        .unwrap();
    assert!(
        listed
            .iter()
            .all(|blob| blob.size == 100 && blob.created.is_some())
    );
    let listed: Vec<_> = listed.into_iter().map(|blob| blob.digest).collect();
    assert_eq!(listed, expected);
}

async fn what_is_needed_is_not_deleted(store: Subject) {
    let free = store.blob(b"free").await;
    store.delete(&free).await.unwrap();
    store.delete(&free).await.unwrap();
    assert_eq!(kind(store.bytes(&free).await), Kind::NotFound);

    let layer = digest(b"layer");
    let image = store.image(b"layer").await;
    let name = "docker.io/library/a:1";
    store.images().put(named(name, &image)).await.unwrap();
    for needed in [&layer, &image.digest] {
        let failure = refusal(store.delete(needed).await);
        assert_eq!(failure.kind, Kind::FailedPrecondition);
        assert_eq!(failure.reason, reason::IN_USE);
    }
    let delete = pb::DeleteImageRequest {
        name: name.to_owned(),
        expected: String::new(),
    };
    store.images().delete(delete).await.unwrap();
    store.delete(&layer).await.unwrap();

    let held = store.blob(b"held").await;
    store.lease("l", 0).await;
    store
        .hold("l", &[Resource::Blob(held.clone())])
        .await
        .unwrap();
    assert_eq!(refusal(store.delete(&held).await).reason, reason::IN_USE);
    store.end_lease("l").await;
    store.delete(&held).await.unwrap();
}

async fn a_lease_holds_what_is_put_from_its_first_moment(store: Subject) {
    let leased = |lease: &str, bytes: &[u8]| pb::PutManyRequest {
        lease: lease.to_owned(),
        ..put(&digest(bytes), bytes)
    };
    let unknown = store.put_many(vec![leased("l", b"a")]).await;
    assert_eq!(kind(unknown), Kind::NotFound);
    store.lease("l", 0).await;
    // The lease is read from the first message.
    let requests = vec![leased("l", b"a"), leased("", b"b")];
    store.put_many(requests).await.unwrap();
    let expected: Vec<_> = [digest(b"a"), digest(b"b")].map(Resource::Blob).into();
    let mut held = store.held("l").await.unwrap();
    held.sort_by_key(|resource| *resource != expected[0]);
    assert_eq!(held, expected);
    store.collect(false).await;
    store.bytes(&digest(b"b")).await.unwrap();
}

async fn who_asks_for_a_blob_uses_it(store: Subject) {
    let blob = store.blob(b"used").await;
    let used = async || {
        let time = store.stat(&blob).await.unwrap().last_used.unwrap();
        (time.seconds, time.nanos)
    };
    let (before, created) = (used().await, store.stat(&blob).await.unwrap().created);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let digests = vec![blob.clone()];
    store
        .content()
        .find_missing(pb::FindMissingRequest { digests })
        .await
        .unwrap();
    let asked = used().await;
    assert!(asked > before);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    store.blob(b"used").await;
    assert!(used().await > asked);
    assert_eq!(store.stat(&blob).await.unwrap().created, created);
}

async fn writers_and_readers_do_not_wait_for_each_other(store: Subject) {
    let same = vec![7; 600_000];
    let calls = (0..16_u8).map(|n| {
        let (store, same) = (store.clone(), same.clone());
        tokio::spawn(async move {
            let own = vec![n; 600_000];
            for bytes in [&same, &own] {
                let blob = digest(bytes);
                let opened = Message::Open(open(&format!("{n}-{}", bytes[0]), 0));
                let messages = vec![opened, data(bytes), commit(&blob, 600_000)];
                assert_eq!(store.write(messages).await.unwrap().digest, blob);
                assert!(store.bytes(&blob).await.unwrap() == *bytes);
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    let list = all(store.content().list(pb::ListRequest {}).await).await;
    assert_eq!(list.unwrap().len(), 16);
}

fn verified(digest: &str, offset: i64, length: i64) -> pb::ReadRequest {
    pb::ReadRequest {
        digest: digest.to_owned(),
        offset,
        length,
        verify: true,
    }
}

async fn a_read_may_verify_what_it_sends(store: Subject) {
    let bytes = vec![3; 2_500_000];
    let blob = store.blob(&bytes).await;
    let chunks = all(store.content().read(verified(&blob, 0, 0)).await)
        .await
        .unwrap();
    let read: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| chunk.data.to_vec())
        .collect();
    assert!(read == bytes);
    for (offset, length) in [(1, 0), (0, 1), (2_000_000, 499_999)] {
        let request = verified(&blob, offset, length);
        let chunks = all(store.content().read(request).await).await.unwrap();
        let read: usize = chunks.iter().map(|chunk| chunk.data.len()).sum();
        let rest = 2_500_000 - usize::try_from(offset).unwrap();
        assert_eq!(
            read,
            if length == 0 {
                rest
            } else {
                usize::try_from(length).unwrap()
            }
        );
    }
    for (offset, length) in [(2_500_001, 0), (0, 2_500_001), (-1, 0)] {
        let answer = store.content().read(verified(&blob, offset, length)).await;
        assert_eq!(kind(all(answer).await), Kind::OutOfRange);
    }
}

async fn locate(store: &Subject, digest: &str) -> Result<pb::LocateResponse, tonic::Status> {
    let digest = digest.to_owned();
    let answer = store.content().locate(pb::LocateRequest { digest }).await;
    answer.map(tonic::Response::into_inner)
}

async fn a_blob_is_located_on_the_host(store: Subject) {
    let blob = store.blob(b"here").await;
    let located = locate(&store, &blob).await.unwrap();
    assert_eq!(
        (std::fs::read(located.path).unwrap(), located.size),
        (b"here".to_vec(), 4)
    );
    assert_eq!(kind(locate(&store, &digest(b"?")).await), Kind::NotFound);
    assert_eq!(kind(locate(&store, "x").await), Kind::InvalidArgument);
    let remote = Subject::start(Way::Tcp).await;
    let blob = remote.blob(b"here").await;
    assert_eq!(kind(locate(&remote, &blob).await), Kind::FailedPrecondition);
}

async fn a_blob_damaged_on_the_host_is_put_aside_and_heals(store: Subject) {
    let bytes = vec![5; 1_500_000];
    let blob = store.blob(&bytes).await;
    let path = locate(&store, &blob).await.unwrap().path;
    let mut damaged = bytes.clone();
    damaged[1_499_999] = 6;
    std::fs::write(path, damaged).unwrap();
    let failure = refusal(all(store.content().read(verified(&blob, 0, 0)).await).await);
    assert_eq!(failure.kind, Kind::DataLoss);
    assert!(failure.message.contains(&blob), "{failure}");
    assert_eq!(kind(store.stat(&blob).await), Kind::NotFound);
    store.blob(&bytes).await;
    all(store.content().read(verified(&blob, 0, 0)).await)
        .await
        .unwrap();
}

async fn nothing_is_written_to_a_full_disk_of_the_host(_: Subject) {
    let store = Subject::start(Way::Full).await;
    let blob = digest(b"more");
    let many = store.put_many(vec![put(&blob, b"more")]).await;
    assert_eq!(kind(many), Kind::ResourceExhausted);
    let opened = Message::Open(open("i", 0));
    let written = store
        .write(vec![opened, data(b"more"), commit(&blob, 4)])
        .await;
    assert_eq!(kind(written), Kind::ResourceExhausted);
    assert_eq!(kind(store.stat(&blob).await), Kind::NotFound);
    let list = all(store.content().list(pb::ListRequest {}).await).await;
    assert!(list.unwrap().is_empty());
}
