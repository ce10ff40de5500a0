//! The rpcs of `Repositories`.

use orlop_proto::error::{Failure, Kind};
use orlop_proto::registry as pb;

use crate::support::{Image, Service};

fn kind<T>(answer: Result<T, tonic::Status>) -> Option<Kind> {
    answer.err().map(|status| Failure::from(status).kind)
}

fn delete(repository: &str, tag: &str, digest: &str) -> pb::DeleteRepositoryRequest {
    pb::DeleteRepositoryRequest {
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        digest: digest.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_tags_are_listed_in_pages() {
    let service = Service::start().await;
    let image = Image::new("a");
    let digest = service.upload_image("a", "v1", &image).await;
    service.upload_image("a", "v2", &image).await;
    service.upload_image("b", "v1", &image).await;
    let mut client = service.repositories();
    let page = |page_size, last: &str| pb::ListRepositoriesRequest {
        page_size,
        last: last.to_owned(),
    };
    let names = client.list(page(0, "")).await.unwrap().into_inner().names;
    assert_eq!(names, ["a", "b"]);
    let names = client.list(page(1, "a")).await.unwrap().into_inner().names;
    assert_eq!(names, ["b"]);
    let tags = |repository: &str| pb::ListTagsRequest {
        repository: repository.to_owned(),
        page_size: 1,
        last: "v1".to_owned(),
    };
    let list = client.list_tags(tags("a")).await.unwrap().into_inner().tags;
    assert_eq!(list.len(), 1);
    assert_eq!((&list[0].name[..], &list[0].digest), ("v2", &digest));
    assert_eq!(
        kind(client.list_tags(tags("none")).await),
        Some(Kind::NotFound)
    );
    let invalid = client.list_tags(tags("../x")).await;
    assert_eq!(kind(invalid), Some(Kind::InvalidArgument));
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_manifests_and_repositories_are_deleted() {
    let service = Service::start().await;
    let image = Image::new("a");
    let digest = service.upload_image("a", "v1", &image).await;
    service.upload_image("a", "v2", &image).await;
    let mut client = service.repositories();
    client.delete(delete("a", "v1", "")).await.unwrap();
    let again = client.delete(delete("a", "v1", "")).await;
    assert_eq!(kind(again), Some(Kind::NotFound));
    client.delete(delete("a", "", &digest)).await.unwrap();
    let tags = service.send("GET", "/v2/a/tags/list").await;
    assert_eq!(tags.text().await.unwrap(), r#"{"name":"a","tags":[]}"#);
    let both = client.delete(delete("a", "v1", &digest)).await;
    assert_eq!(kind(both), Some(Kind::InvalidArgument));
    client.delete(delete("a", "", "")).await.unwrap();
    let gone = client.delete(delete("a", "", "")).await;
    assert_eq!(kind(gone), Some(Kind::NotFound));
    assert_eq!(service.send("GET", "/v2/a/tags/list").await.status(), 404);
    assert!(service.memory.state().leases.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_mounted_and_its_bytes_stay_where_they_are() {
    let service = Service::start().await;
    let digest = service.upload("a", b"layer").await;
    let mount = |from: &str, digest: &str| pb::MountBlobRequest {
        from: from.to_owned(),
        to: "b".to_owned(),
        digest: digest.to_owned(),
    };
    let mut client = service.repositories();
    client.mount(mount("a", &digest)).await.unwrap();
    client.mount(mount("a", &digest)).await.unwrap();
    let blob = service.send("GET", &format!("/v2/b/blobs/{digest}")).await;
    assert_eq!(blob.status(), 200);
    assert_eq!(service.memory.state().blobs.len(), 1);
    let held = service
        .memory
        .state()
        .leases
        .values()
        .filter(|l| l.contains(&digest))
        .count();
    assert_eq!(held, 2, "each repository's lease holds it");
    let unknown = client.mount(mount("c", &digest)).await;
    assert_eq!(kind(unknown), Some(Kind::NotFound));
    let malformed = client.mount(mount("a", "sha256:../x")).await;
    assert_eq!(kind(malformed), Some(Kind::InvalidArgument));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_is_where_v2_answers() {
    let service = Service::start().await;
    let answer = service
        .repositories()
        .endpoint(pb::EndpointRequest {})
        .await;
    assert_eq!(answer.unwrap().into_inner().address, service.address);
    assert_eq!(service.send("GET", "/v2/").await.status(), 200);
}
