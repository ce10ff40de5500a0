//! `Content` and `Leases` through a socket.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "served/store.rs"]
mod served;

use orlop_proto::store as pb;
use orlop_proto::store::write_request::Message;
use served::{Served, digest};
use tonic::{Code, Status};

fn write(message: Message) -> pb::WriteRequest {
    pb::WriteRequest {
        message: Some(message),
    }
}

fn open(id: &str, offset: i64) -> pb::WriteRequest {
    let ingest_id = id.to_owned();
    write(Message::Open(pb::OpenIngest {
        ingest_id,
        offset,
        ..pb::OpenIngest::default()
    }))
}

fn data(bytes: &'static [u8]) -> pb::WriteRequest {
    write(Message::Data(bytes.into()))
}

fn commit(digest: &str, size: i64) -> pb::WriteRequest {
    write(Message::Commit(pb::CommitIngest {
        digest: digest.to_owned(),
        size,
    }))
}

async fn send(
    served: &Served,
    messages: Vec<pb::WriteRequest>,
) -> Result<pb::WriteResponse, Status> {
    let response = served.content().write(tokio_stream::iter(messages)).await?;
    Ok(response.into_inner())
}

async fn read(served: &Served, digest: &str, offset: i64, length: i64) -> Result<Vec<u8>, Status> {
    let request = pb::ReadRequest {
        digest: digest.to_owned(),
        offset,
        length,
        ..pb::ReadRequest::default()
    };
    let mut stream = served.content().read(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await? {
        bytes.extend_from_slice(&message.data);
    }
    Ok(bytes)
}

#[tokio::test]
async fn an_ingest_is_resumed_after_a_kill() {
    let served = Served::start().await;
    let response = send(&served, vec![open("up", 0), data(b"hello ")])
        .await
        .unwrap();
    assert_eq!((response.offset, response.digest.as_str()), (6, ""));

    let served = served.after_a_kill().await;
    let request = pb::StatIngestRequest {
        ingest_id: "up".into(),
    };
    assert_eq!(
        served
            .content()
            .stat_ingest(request)
            .await
            .unwrap()
            .into_inner()
            .offset,
        6
    );
    let wrong = send(&served, vec![open("up", 3), data(b"x")])
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::OutOfRange);
    let whole = digest(b"hello world");
    let messages = vec![open("up", 6), data(b"world"), commit(&whole, 11)];
    assert_eq!(send(&served, messages).await.unwrap().digest, whole);
    assert_eq!(read(&served, &whole, 0, 0).await.unwrap(), b"hello world");
    assert_eq!(read(&served, &whole, 6, 2).await.unwrap(), b"wo");
    assert_eq!(
        read(&served, &whole, 12, 0).await.unwrap_err().code(),
        Code::OutOfRange
    );
    let mut ingests = served
        .content()
        .list_ingests(pb::ListIngestsRequest {})
        .await
        .unwrap();
    assert!(ingests.get_mut().message().await.unwrap().is_none());
}

#[tokio::test]
async fn h2_h6_bytes_that_are_not_what_was_said_are_discarded() {
    let served = Served::start().await;
    let right = digest(b"abc");
    for bad in [
        commit(&digest(b"abd"), 0),
        commit(&right, 2),
        commit(&right, 4),
        commit(&right, i64::MAX),
        commit(&right, -1),
    ] {
        let error = send(&served, vec![open("u", 0), data(b"abc"), bad])
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let abort = pb::AbortIngestRequest {
            ingest_id: "u".into(),
        };
        served.content().abort_ingest(abort).await.unwrap();
    }
    let error = read(&served, &right, 0, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn e8_g8_ids_and_digests_are_checked_before_use() {
    let served = Served::start().await;
    for id in ["../x", "/x", "", &"x".repeat(300)] {
        let error = send(&served, vec![open(id, 0)]).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{id}");
    }
    for bad in ["sha256:../../x", "", "sha256:AA", "md5:00"] {
        assert_eq!(
            read(&served, bad, 0, 0).await.unwrap_err().code(),
            Code::InvalidArgument
        );
        let delete = pb::DeleteRequest {
            digest: bad.to_owned(),
        };
        let error = served.content().delete(delete).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{bad}");
    }
}

#[tokio::test]
async fn an_ingest_has_one_writer() {
    let served = Served::start().await;
    let (sender, messages) = tokio::sync::mpsc::channel(4);
    sender.send(open("one", 0)).await.unwrap();
    let mut client = served.content();
    let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
    let first = tokio::spawn(async move { client.write(stream).await });
    let stat = pb::StatIngestRequest {
        ingest_id: "one".into(),
    };
    while served.content().stat_ingest(stat.clone()).await.is_err() {
        tokio::task::yield_now().await;
    }
    let error = send(&served, vec![open("one", 0)]).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    let abort = pb::AbortIngestRequest {
        ingest_id: "one".into(),
    };
    let error = served.content().abort_ingest(abort).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    drop(sender);
    first.await.unwrap().unwrap();
    send(&served, vec![open("one", 0), commit("", 0)])
        .await
        .unwrap();
}

#[tokio::test]
async fn many_blobs_are_put_found_listed_located_and_deleted() {
    let served = Served::start().await;
    let blobs: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![n; 100]).collect();
    let requests: Vec<_> = blobs
        .iter()
        .map(|blob| pb::PutManyRequest {
            digest: digest(blob),
            data: blob.clone().into(),
            lease: String::new(),
        })
        .collect();
    let first = served
        .content()
        .put_many(tokio_stream::iter(requests.clone()))
        .await
        .unwrap();
    assert_eq!((first.get_ref().stored, first.get_ref().existed), (40, 0));
    let second = served
        .content()
        .put_many(tokio_stream::iter(requests))
        .await
        .unwrap();
    assert_eq!(second.get_ref().existed, 40);

    let absent = digest(b"absent");
    let digests = vec![digest(&blobs[0]), absent.clone()];
    let request = pb::FindMissingRequest { digests };
    let missing = served
        .content()
        .find_missing(request)
        .await
        .unwrap()
        .into_inner()
        .missing;
    assert_eq!(missing, [absent]);

    let mut list = served
        .content()
        .list(pb::ListRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut listed = Vec::new();
    while let Some(blob) = list.message().await.unwrap() {
        assert_eq!(blob.size, 100);
        listed.push(blob.digest);
    }
    assert!(listed.is_sorted() && listed.len() == 40);

    located_and_deleted(&served, &blobs[7]).await;
}

async fn located_and_deleted(served: &Served, bytes: &[u8]) {
    let one = digest(bytes);
    let locate = pb::LocateRequest {
        digest: one.clone(),
    };
    let path = served
        .content()
        .locate(locate)
        .await
        .unwrap()
        .into_inner()
        .path;
    assert_eq!(std::fs::read(path).unwrap(), bytes);
    let stat = pb::StatRequest {
        digest: one.clone(),
    };
    assert_eq!(
        served
            .content()
            .stat(stat.clone())
            .await
            .unwrap()
            .into_inner()
            .size,
        100
    );
    let delete = pb::DeleteRequest { digest: one };
    served.content().delete(delete.clone()).await.unwrap();
    served.content().delete(delete).await.unwrap();
    assert_eq!(
        served.content().stat(stat).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn leases_are_made_filled_listed_and_ended() {
    let served = Served::start().await;
    let mut leases = served.leases();
    let blob = served.blob(b"held").await;
    let resource = pb::Resource {
        resource: Some(pb::resource::Resource::Blob(blob.clone())),
    };
    let add = pb::AddResourcesRequest {
        lease: "l".into(),
        resources: vec![resource.clone()],
    };
    assert_eq!(
        leases.add(add.clone()).await.unwrap_err().code(),
        Code::NotFound
    );
    let put = pb::PutLeaseRequest {
        id: "l".into(),
        ttl_seconds: 60,
        ..Default::default()
    };
    assert!(
        leases
            .put(put)
            .await
            .unwrap()
            .into_inner()
            .expires
            .is_some()
    );
    leases.add(add).await.unwrap();

    let served = served.after_a_kill().await;
    let mut leases = served.leases();
    let list = pb::ListResourcesRequest { lease: "l".into() };
    let mut held = leases
        .list_resources(list.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(held.message().await.unwrap(), Some(resource.clone()));
    let delete = pb::DeleteRequest { digest: blob };
    let error = served.content().delete(delete.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let release = pb::ReleaseResourcesRequest {
        lease: "l".into(),
        resources: vec![resource],
    };
    leases.release(release).await.unwrap();
    served.content().delete(delete).await.unwrap();
    let mut all = leases
        .list(pb::ListLeasesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(all.message().await.unwrap().unwrap().id, "l");
    leases
        .delete(pb::DeleteLeaseRequest { id: "l".into() })
        .await
        .unwrap();
    assert_eq!(
        leases.list_resources(list).await.unwrap_err().code(),
        Code::NotFound
    );
}
