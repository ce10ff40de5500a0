//! `Content`: blobs while they are written.

use orlop_proto::error::{Kind, reason};
use orlop_proto::store as pb;
use orlop_proto::store::resource::Resource;
use orlop_proto::store::write_request::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use crate::calls::{all, commit, data, kind, open, refusal, write};
use crate::reach::Subject;
use crate::smith::Tar;
use crate::words::{digest, size};

conforms! {
    without_commit_the_bytes_stay_to_be_resumed,
    a_dropped_stream_is_resumed_at_the_durable_offset,
    an_ingest_has_one_writer,
    h2_h6_bytes_that_are_not_what_was_said_are_discarded,
    a_known_blob_costs_nothing_more,
    a_message_has_at_most_1_mib,
    a_write_is_opened_once_and_first,
    e8_ids_are_checked_before_use,
    ingests_are_listed_and_aborted,
    a_lease_holds_a_blob_from_its_commit_on,
    a_wrong_hint_of_a_diff_id_spoils_nothing,
}

/// A writer that stays, and its end.
type Writer = (
    mpsc::Sender<pb::WriteRequest>,
    JoinHandle<Result<Response<pb::WriteResponse>, Status>>,
);

/// Starts a writer, and waits until it has the ingest with its first bytes.
async fn writer(store: &Subject, id: &str, bytes: &[u8]) -> Writer {
    let (sender, messages) = mpsc::channel(4);
    sender
        .send(write(Message::Open(open(id, 0))))
        .await
        .unwrap();
    sender.send(write(data(bytes))).await.unwrap();
    let mut client = store.content();
    let call = tokio::spawn(async move { client.write(ReceiverStream::new(messages)).await });
    let written = |info: pb::IngestInfo| info.offset == size(bytes);
    while !store.stat_ingest(id).await.is_ok_and(written) {
        tokio::task::yield_now().await;
    }
    (sender, call)
}

async fn without_commit_the_bytes_stay_to_be_resumed(store: Subject) {
    let first = store
        .write(vec![Message::Open(open("up", 0)), data(b"hello ")])
        .await
        .unwrap();
    assert_eq!((first.offset, first.digest.as_str()), (6, ""));
    let whole = digest(b"hello world");
    assert_eq!(kind(store.stat(&whole).await), Kind::NotFound);
    let info = store.stat_ingest("up").await.unwrap();
    assert_eq!(info.offset, 6);
    assert!(info.started.is_some() && info.updated.is_some());
    for wrong in [0, 5, 7, -1] {
        let answer = store
            .write(vec![Message::Open(open("up", wrong)), data(b"x")])
            .await;
        assert_eq!(kind(answer), Kind::OutOfRange, "{wrong}");
    }
    let opened = Message::Open(open("up", 6));
    let second = store
        .write(vec![opened, data(b"world"), commit(&whole, 11)])
        .await
        .unwrap();
    assert_eq!((second.offset, second.digest), (11, whole.clone()));
    assert_eq!(store.bytes(&whole).await.unwrap(), b"hello world");
    assert_eq!(kind(store.stat_ingest("up").await), Kind::NotFound);

    store
        .write(vec![Message::Open(open("again", 0)), data(b"dropped")])
        .await
        .unwrap();
    let opened = Message::Open(pb::OpenIngest {
        truncate: true,
        ..open("again", 0)
    });
    let over = store
        .write(vec![opened, data(b"kept"), commit("", 0)])
        .await
        .unwrap();
    assert_eq!(over.digest, digest(b"kept"));
}

async fn a_dropped_stream_is_resumed_at_the_durable_offset(store: Subject) {
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (sender, call) = writer(&store, "cut", &bytes[..700_000]).await;
    sender
        .send(write(data(&bytes[700_000..1_400_000])))
        .await
        .unwrap();
    call.abort();
    drop(sender);
    let whole = digest(&bytes);
    loop {
        let offset = store.stat_ingest("cut").await.unwrap().offset;
        let rest = usize::try_from(offset).unwrap();
        assert!((700_000..=1_400_000).contains(&rest));
        let mut messages = vec![Message::Open(open("cut", offset))];
        messages.extend(bytes[rest..].chunks(500_000).map(data));
        messages.push(commit(&whole, 2_000_000));
        match store.write(messages).await {
            Ok(written) => break assert_eq!(written.digest, whole),
            // The first writer is still on its way out.
            Err(error) => assert!(
                matches!(error.kind, Kind::Aborted | Kind::OutOfRange),
                "{error}"
            ),
        }
        tokio::task::yield_now().await;
    }
    assert!(store.bytes(&whole).await.unwrap() == bytes);
}

async fn an_ingest_has_one_writer(store: Subject) {
    let (sender, call) = writer(&store, "one", b"first").await;
    for truncate in [false, true] {
        let opened = pb::OpenIngest {
            truncate,
            ..open("one", 0)
        };
        let second = store.write(vec![Message::Open(opened)]).await;
        assert_eq!(kind(second), Kind::Aborted);
    }
    let ingest_id = "one".to_owned();
    let abort = pb::AbortIngestRequest { ingest_id };
    assert_eq!(
        kind(store.content().abort_ingest(abort).await),
        Kind::Aborted
    );
    drop(sender);
    assert_eq!(call.await.unwrap().unwrap().into_inner().offset, 5);
    let next = vec![Message::Open(open("one", 5)), commit(&digest(b"first"), 5)];
    store.write(next).await.unwrap();
}

async fn h2_h6_bytes_that_are_not_what_was_said_are_discarded(store: Subject) {
    let right = digest(b"abc");
    for bad in [
        commit(&digest(b"abd"), 0),
        commit(&digest(b"abd"), 3),
        commit(&right, 2),
        commit(&right, 4),
        commit(&right, i64::MAX),
    ] {
        let messages = vec![Message::Open(open("u", 0)), data(b"abc"), bad];
        let failure = refusal(store.write(messages).await);
        assert_eq!(failure.kind, Kind::InvalidArgument);
        assert_eq!(failure.reason, reason::DIGEST_MISMATCH);
        assert_eq!(kind(store.stat_ingest("u").await), Kind::NotFound);
    }
    for malformed in [
        commit(&right, -1),
        commit("sha256:x", 0),
        commit("md5:00", 0),
    ] {
        let id = format!("{malformed:?}").len().to_string();
        let messages = vec![Message::Open(open(&id, 0)), data(b"abc"), malformed];
        assert_eq!(kind(store.write(messages).await), Kind::InvalidArgument);
    }
    assert_eq!(kind(store.bytes(&right).await), Kind::NotFound);
}

async fn a_known_blob_costs_nothing_more(store: Subject) {
    let usage = async || {
        let request = pb::DiskUsageRequest {};
        let usage = store
            .maintenance()
            .disk_usage(request)
            .await
            .unwrap()
            .into_inner();
        (usage.blobs, usage.blob_bytes, usage.ingest_bytes)
    };
    let blob = store.blob(&[9; 100_000]).await;
    let before = usage().await;
    for id in ["a", "b"] {
        let messages = vec![
            Message::Open(open(id, 0)),
            data(&[9; 100_000]),
            commit(&blob, 0),
        ];
        assert_eq!(store.write(messages).await.unwrap().digest, blob);
    }
    assert_eq!(usage().await, before);
}

async fn a_message_has_at_most_1_mib(store: Subject) {
    let mib = vec![1; 1 << 20];
    let opened = Message::Open(open("m", 0));
    let ok = store
        .write(vec![opened, data(&mib[1..]), data(&mib)])
        .await
        .unwrap();
    assert_eq!(ok.offset, (2 << 20) - 1);
    let more = vec![1; (1 << 20) + 1];
    let answer = store
        .write(vec![Message::Open(open("m", ok.offset)), data(&more)])
        .await;
    assert_eq!(kind(answer), Kind::InvalidArgument);
    // What was durable stays.
    assert_eq!(store.stat_ingest("m").await.unwrap().offset, ok.offset);
}

async fn a_write_is_opened_once_and_first(store: Subject) {
    for messages in [
        Vec::new(),
        vec![data(b"x")],
        vec![commit("", 0)],
        vec![Message::Open(open("o", 0)), Message::Open(open("o", 0))],
    ] {
        assert_eq!(kind(store.write(messages).await), Kind::InvalidArgument);
    }
}

async fn e8_ids_are_checked_before_use(store: Subject) {
    let (longest, longer) = ("x".repeat(128), "x".repeat(129));
    for id in [
        "../x",
        "/x",
        "",
        ".x",
        "-x",
        "a/b",
        "a b",
        "ä",
        longer.as_str(),
    ] {
        let answer = store.write(vec![Message::Open(open(id, 0))]).await;
        assert_eq!(kind(answer), Kind::InvalidArgument, "{id}");
        assert_eq!(
            kind(store.stat_ingest(id).await),
            Kind::InvalidArgument,
            "{id}"
        );
        let ingest_id = id.to_owned();
        let abort = store
            .content()
            .abort_ingest(pb::AbortIngestRequest { ingest_id })
            .await;
        assert_eq!(kind(abort), Kind::InvalidArgument, "{id}");
    }
    for id in ["a", "A.b_c-9", longest.as_str()] {
        store
            .write(vec![Message::Open(open(id, 0)), data(b"x")])
            .await
            .unwrap();
    }
}

async fn ingests_are_listed_and_aborted(store: Subject) {
    let list = async || {
        let list = store
            .content()
            .list_ingests(pb::ListIngestsRequest {})
            .await;
        let infos = all(list).await.unwrap();
        let pairs = infos.into_iter().map(|info| (info.ingest_id, info.offset));
        pairs.collect::<Vec<_>>()
    };
    for id in ["b", "a", "c"] {
        store
            .write(vec![Message::Open(open(id, 0)), data(id.as_bytes())])
            .await
            .unwrap();
    }
    let expected = ["a", "b", "c"].map(|id| (id.to_owned(), 1));
    assert_eq!(list().await, expected);
    for ingest_id in ["b", "b", "unknown"].map(str::to_owned) {
        store
            .content()
            .abort_ingest(pb::AbortIngestRequest { ingest_id })
            .await
            .unwrap();
    }
    assert_eq!(list().await, [expected[0].clone(), expected[2].clone()]);
    assert_eq!(kind(store.stat_ingest("b").await), Kind::NotFound);
}

async fn a_lease_holds_a_blob_from_its_commit_on(store: Subject) {
    let opened = |offset| {
        let lease = "l".to_owned();
        Message::Open(pb::OpenIngest {
            lease,
            ..open("i", offset)
        })
    };
    let blob = digest(b"leased");
    let unknown = store
        .write(vec![opened(0), data(b"leased"), commit(&blob, 6)])
        .await;
    assert_eq!(kind(unknown), Kind::NotFound);
    assert_eq!(kind(store.stat(&blob).await), Kind::NotFound);
    store.lease("l", 0).await;
    store
        .write(vec![opened(6), commit(&blob, 6)])
        .await
        .unwrap();
    assert_eq!(
        store.held("l").await.unwrap(),
        [Resource::Blob(blob.clone())]
    );
    store.collect(false).await;
    assert_eq!(store.bytes(&blob).await.unwrap(), b"leased");
}

async fn a_wrong_hint_of_a_diff_id_spoils_nothing(store: Subject) {
    let layer = Tar::new().file("f", b"1").end();
    for (n, hint) in [digest(&layer), digest(b"wrong"), "nonsense".to_owned()]
        .into_iter()
        .enumerate()
    {
        let store = store.another().await;
        let opened = Message::Open(pb::OpenIngest {
            diff_id: hint,
            ..open(&n.to_string(), 0)
        });
        let blob = digest(&layer);
        store
            .write(vec![opened, data(&layer), commit(&blob, 0)])
            .await
            .unwrap();
        let image = store.image(&layer).await;
        let unpacked = store.unpack(&image.digest).await.unwrap();
        assert_eq!(unpacked.unpacked + unpacked.existed, 1);
        assert_eq!(store.read(&unpacked.name, "f").await.unwrap(), b"1");
    }
}
