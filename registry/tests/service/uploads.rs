//! `/v2/`: uploads and mounts.

use orlop_registry::manifest::digest_like;

use crate::support::{Service, code, header};

async fn begin(service: &Service) -> String {
    let response = service.send("POST", "/v2/app/blobs/uploads/").await;
    assert_eq!(response.status(), 202);
    header(&response, "location")
}

async fn patch(service: &Service, location: &str, range: &str, bytes: &'static [u8]) -> u16 {
    let mut request = service.request("PATCH", location);
    if !range.is_empty() {
        request = request.header("content-range", range);
    }
    request.body(bytes).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_uploads_a_blob() {
    let service = Service::start().await;
    let digest = service.upload("app", b"bytes").await;
    let response = service
        .send("GET", &format!("/v2/app/blobs/{digest}"))
        .await;
    assert_eq!(response.text().await.unwrap(), "bytes");
    assert!(service.memory.state().ingests.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_go_in_order_and_on_after_a_restart() {
    let service = Service::start().await;
    let location = begin(&service).await;
    assert_eq!(patch(&service, &location, "0-4", b"first").await, 202);
    assert_eq!(patch(&service, &location, "0-4", b"first").await, 416);
    assert_eq!(patch(&service, &location, "9-13", b"later").await, 416);
    assert_eq!(patch(&service, &location, "5-99", b"second").await, 400);
    let service = service.restart(|_| {}).await;
    let state = service.send("GET", &location).await;
    assert_eq!(state.status(), 204);
    assert_eq!(header(&state, "range"), "0-4");
    assert_eq!(patch(&service, &location, "", b"second").await, 202);
    let digest = digest_like("sha256", b"firstsecondlast");
    let put = service.request("PUT", &format!("{location}?digest={digest}"));
    let put = put.body("last").send().await.unwrap();
    assert_eq!(put.status(), 201);
    assert_eq!(header(&put, "location"), format!("/v2/app/blobs/{digest}"));
    let blob = service.send("GET", &header(&put, "location")).await;
    assert_eq!(blob.text().await.unwrap(), "firstsecondlast");
    assert_eq!(service.send("GET", &location).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_leaves_nothing() {
    let service = Service::start().await;
    let location = begin(&service).await;
    let digest = digest_like("sha256", b"something else");
    let put = service.request("PUT", &format!("{location}?digest={digest}"));
    let put = put.body("bytes").send().await.unwrap();
    assert_eq!(put.status(), 400);
    assert_eq!(code(put).await, "DIGEST_INVALID");
    let blob = service
        .send("HEAD", &format!("/v2/app/blobs/{digest}"))
        .await;
    assert_eq!(blob.status(), 404);
    assert_eq!(service.send("GET", &location).await.status(), 404);
    let location = begin(&service).await;
    let put = service.send("PUT", &location).await;
    assert_eq!(code(put).await, "DIGEST_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_can_be_cancelled_and_belongs_to_its_repository() {
    let service = Service::start().await;
    let location = begin(&service).await;
    let elsewhere = location.replace("/app/", "/other/");
    assert_eq!(service.send("GET", &elsewhere).await.status(), 404);
    patch(&service, &location, "", b"bytes").await;
    assert_eq!(service.send("DELETE", &location).await.status(), 204);
    assert!(service.memory.state().ingests.is_empty());
    let again = service.send("DELETE", &location).await;
    assert_eq!(code(again).await, "BLOB_UPLOAD_UNKNOWN");
    for id in ["+", "x", &"z".repeat(32)] {
        let path = format!("/v2/app/blobs/uploads/{id}");
        assert_eq!(service.send("PATCH", &path).await.status(), 404, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_mounted_with_and_without_from() {
    let service = Service::start().await;
    let digest = service.upload("base", b"layer").await;
    for (to, from) in [("one", "&from=base"), ("two", "")] {
        let path = format!("/v2/{to}/blobs/uploads/?mount={digest}{from}");
        let response = service.send("POST", &path).await;
        assert_eq!(response.status(), 201, "{from}");
        assert_eq!(header(&response, "docker-content-digest"), digest);
        let blob = service
            .send("GET", &format!("/v2/{to}/blobs/{digest}"))
            .await;
        assert_eq!(blob.text().await.unwrap(), "layer");
    }
    let path = format!("/v2/three/blobs/uploads/?mount={digest}&from=nobody");
    assert_eq!(service.send("POST", &path).await.status(), 202);
}
