//! What `Content` and `Leases` keep across a kill.
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
async fn a_lease_and_what_it_holds_survive_a_kill() {
    let served = Served::start().await;
    let blob = served.blob(b"held").await;
    let resource = pb::Resource {
        resource: Some(pb::resource::Resource::Blob(blob.clone())),
    };
    let put = pb::PutLeaseRequest {
        id: "l".into(),
        ttl_seconds: 60,
        ..Default::default()
    };
    served.leases().put(put).await.unwrap();
    let add = pb::AddResourcesRequest {
        lease: "l".into(),
        resources: vec![resource.clone()],
    };
    served.leases().add(add).await.unwrap();

    let served = served.after_a_kill().await;
    let list = pb::ListResourcesRequest { lease: "l".into() };
    let mut held = served.leases().list_resources(list).await.unwrap();
    assert_eq!(held.get_mut().message().await.unwrap(), Some(resource));
    let delete = pb::DeleteRequest { digest: blob };
    let error = served.content().delete(delete).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
}
