//! `/v2/`: manifests, blobs, tags, the catalogue, and the rows of the registry server.

use orlop_registry::manifest::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, digest_like};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Image, Service, code, header, json};

/// What a raw request, written as it stands, is answered with.
async fn raw(service: &Service, request: &str) -> String {
    let mut stream = TcpStream::connect(&service.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_base_says_which_api_it_is() {
    let service = Service::start().await;
    for method in ["GET", "HEAD"] {
        let response = service.send(method, "/v2/").await;
        assert_eq!(response.status(), 200);
        let version = header(&response, "docker-distribution-api-version");
        assert_eq!(version, "registry/2.0");
    }
    assert_eq!(service.send("POST", "/v2/").await.status(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_comes_back_by_tag_and_by_digest() {
    let service = Service::start().await;
    let image = Image::new("a");
    let digest = service.upload_image("team/app", "v1", &image).await;
    assert_eq!(digest, digest_like("sha256", &image.manifest()));
    for target in ["v1", &digest] {
        let path = format!("/v2/team/app/manifests/{target}");
        let head = service.send("HEAD", &path).await;
        assert_eq!(head.status(), 200);
        assert_eq!(
            header(&head, "content-length"),
            image.manifest().len().to_string()
        );
        let response = service.send("GET", &path).await;
        assert_eq!(header(&response, "docker-content-digest"), digest);
        assert_eq!(header(&response, "content-type"), OCI_MANIFEST);
        assert_eq!(response.bytes().await.unwrap(), image.manifest());
    }
    let missing = service.send("GET", "/v2/team/app/manifests/v2").await;
    assert_eq!(missing.status(), 404);
    assert_eq!(code(missing).await, "MANIFEST_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_manifests_and_indexes_are_kept_as_they_are() {
    let service = Service::start().await;
    let image = Image::new("a");
    let child = service.upload_image("app", "child", &image).await;
    let docker = String::from_utf8(image.manifest()).unwrap();
    let docker = docker.replace(OCI_MANIFEST, DOCKER_MANIFEST);
    let response = service
        .put_manifest("app", "docker", DOCKER_MANIFEST, docker)
        .await;
    assert_eq!(response.status(), 201);
    let response = service.send("GET", "/v2/app/manifests/docker").await;
    assert_eq!(header(&response, "content-type"), DOCKER_MANIFEST);

    let index = |digest: &str| {
        serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            {"mediaType": OCI_MANIFEST, "digest": digest, "size": image.manifest().len()}]})
        .to_string()
    };
    let response = service
        .put_manifest("app", "all", OCI_INDEX, index(&child))
        .await;
    assert_eq!(response.status(), 201);
    let absent = format!("sha256:{}", "0".repeat(64));
    let response = service
        .put_manifest("app", "bad", OCI_INDEX, index(&absent))
        .await;
    assert_eq!(response.status(), 404);
    assert_eq!(code(response).await, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_refused_until_its_blobs_are_there() {
    let service = Service::start().await;
    let image = Image::new("a");
    service.upload("app", &image.config).await;
    let put = || service.put_manifest("app", "v1", OCI_MANIFEST, image.manifest());
    assert_eq!(code(put().await).await, "MANIFEST_BLOB_UNKNOWN");
    for layer in &image.layers {
        service.upload("app", layer).await;
    }
    assert_eq!(put().await.status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_served_whole_and_in_ranges() {
    let service = Service::start().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let digest = service.upload("app", &bytes).await;
    let path = format!("/v2/app/blobs/{digest}");
    let head = service.send("HEAD", &path).await;
    assert_eq!(header(&head, "content-length"), "300000");
    let whole = service.send("GET", &path).await;
    assert_eq!(header(&whole, "docker-content-digest"), digest);
    assert_eq!(whole.bytes().await.unwrap(), bytes);
    let part = service
        .request("GET", &path)
        .header("range", "bytes=100-299999");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(header(&part, "content-range"), "bytes 100-299999/300000");
    assert_eq!(part.bytes().await.unwrap(), bytes[100..]);
    let beyond = service
        .request("GET", &path)
        .header("range", "bytes=300000-");
    assert_eq!(beyond.send().await.unwrap().status(), 416);
    assert_eq!(service.send("DELETE", &path).await.status(), 202);
    assert_eq!(service.send("GET", &path).await.status(), 404);
    assert_eq!(service.send("DELETE", &path).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_names_come_in_pages() {
    let service = Service::start().await;
    let image = Image::new("a");
    for tag in ["c", "a", "b"] {
        service.upload_image("a/math", tag, &image).await;
    }
    service.upload_image("a/math-voila", "x", &image).await;
    service.upload_image("b", "x", &image).await;
    let page = service.send("GET", "/v2/a/math/tags/list?n=2").await;
    let next = header(&page, "link");
    assert_eq!(next, "</v2/a/math/tags/list?n=2&last=b>; rel=\"next\"");
    assert_eq!(
        page.text().await.unwrap(),
        r#"{"name":"a/math","tags":["a","b"]}"#
    );
    let page = service.send("GET", "/v2/a/math/tags/list?n=2&last=b").await;
    assert_eq!(header(&page, "link"), "");
    assert_eq!(
        page.text().await.unwrap(),
        r#"{"name":"a/math","tags":["c"]}"#
    );
    let mut names = Vec::new();
    let mut path = "/v2/_catalog?n=1".to_owned();
    while !path.is_empty() {
        let page = service.send("GET", &path).await;
        path = header(&page, "link")
            .split(['<', '>'])
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        let body: serde_json::Value = json(page).await;
        names.extend(body["repositories"].as_array().unwrap().clone());
    }
    assert_eq!(names, ["a/math", "a/math-voila", "b"]);
    let missing = service.send("GET", "/v2/none/tags/list").await;
    assert_eq!(code(missing).await, "NAME_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_goes_alone_and_a_manifest_with_its_tags() {
    let service = Service::start().await;
    let image = Image::new("a");
    let digest = service.upload_image("app", "v1", &image).await;
    service.upload_image("app", "v2", &image).await;
    let tag = service.send("DELETE", "/v2/app/manifests/v1").await;
    assert_eq!(tag.status(), 202);
    let by_digest = format!("/v2/app/manifests/{digest}");
    assert_eq!(service.send("GET", &by_digest).await.status(), 200);
    assert_eq!(service.send("DELETE", &by_digest).await.status(), 202);
    assert_eq!(service.send("GET", &by_digest).await.status(), 404);
    let gone = service.send("GET", "/v2/app/manifests/v2").await;
    assert_eq!(gone.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_told_by_subject_and_kind() {
    let service = Service::start().await;
    let image = Image::new("a");
    let subject = service.upload_image("app", "v1", &image).await;
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest()).unwrap();
    manifest["artifactType"] = "application/vnd.example.sbom".into();
    manifest["subject"] = serde_json::json!({
        "mediaType": OCI_MANIFEST, "digest": subject, "size": image.manifest().len()});
    let text = manifest.to_string();
    let digest = digest_like("sha256", text.as_bytes());
    let put = service
        .put_manifest("app", &digest, OCI_MANIFEST, text)
        .await;
    assert_eq!(header(&put, "oci-subject"), subject);
    let service = service.restart(|_| {}).await;
    for (query, count) in [
        ("", 1),
        ("?artifactType=application/vnd.example.sbom", 1),
        ("?artifactType=x", 0),
    ] {
        let path = format!("/v2/app/referrers/{subject}{query}");
        let list = service.send("GET", &path).await;
        assert_eq!(header(&list, "content-type"), OCI_INDEX);
        let list: serde_json::Value = json(list).await;
        assert_eq!(
            list["manifests"].as_array().unwrap().len(),
            count,
            "{query}"
        );
    }
    let path = format!("/v2/app/manifests/{digest}");
    service.send("DELETE", &path).await;
    let list = service
        .send("GET", &format!("/v2/app/referrers/{subject}"))
        .await;
    assert!(list.text().await.unwrap().contains("\"manifests\":[]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_manifest_larger_than_four_mebibytes_is_refused() {
    let service = Service::start().await;
    let large = vec![b' '; 4 * 1024 * 1024 + 1];
    let response = service
        .put_manifest("app", "v1", OCI_MANIFEST, large.clone())
        .await;
    assert_eq!(response.status(), 413);
    let chunks = large
        .chunks(65_536)
        .map(|c| Ok::<_, std::io::Error>(c.to_vec()));
    let chunks: Vec<_> = chunks.collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let request = service.request("PUT", "/v2/app/manifests/v1");
    let request = request.header("content-encoding", "gzip");
    let response = request.body(body).send().await.unwrap();
    assert_eq!(response.status(), 413);
    assert!(service.memory.state().blobs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_n_is_bounded_or_refused() {
    let service = Service::start().await;
    service.upload_image("app", "v1", &Image::new("a")).await;
    for list in ["/v2/_catalog", "/v2/app/tags/list"] {
        for n in ["-1", "abc", ""] {
            let response = service.send("GET", &format!("{list}?n={n}")).await;
            assert_eq!(response.status(), 400, "{list} {n}");
            assert_eq!(code(response).await, "PAGINATION_NUMBER_INVALID");
        }
        for n in ["0", "9223372036854775808", "1152921504606846976"] {
            let response = service.send("GET", &format!("{list}?n={n}")).await;
            assert_eq!(response.status(), 200, "{list} {n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f4_a_blob_deleted_here_stays_deleted_though_another_repository_has_it() {
    let service = Service::start().await;
    let digest = service.upload("a", b"shared").await;
    service.upload("b", b"shared").await;
    let (a, b) = (
        format!("/v2/a/blobs/{digest}"),
        format!("/v2/b/blobs/{digest}"),
    );
    assert_eq!(service.send("DELETE", &a).await.status(), 202);
    assert_eq!(service.send("GET", &b).await.status(), 200);
    assert_eq!(service.send("GET", &a).await.status(), 404);
    assert_eq!(service.send("HEAD", &a).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn f5_a_blob_of_the_store_is_in_no_repository_until_it_was_put_there() {
    let service = Service::start().await;
    let digest = service.memory.put(b"only in the store");
    let path = format!("/v2/mine/blobs/{digest}");
    assert_eq!(service.send("HEAD", &path).await.status(), 404);
    for from in ["", "&from=other"] {
        let path = format!("/v2/mine/blobs/uploads/?mount={digest}{from}");
        assert_eq!(service.send("POST", &path).await.status(), 202, "{from}");
    }
    let manifest = service.memory.put(&Image::new("a").manifest());
    let path = format!("/v2/mine/manifests/{manifest}");
    assert_eq!(service.send("GET", &path).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_other_spellings_of_a_path_lead_nowhere() {
    let service = Service::start().await;
    service.upload_image("app", "v1", &Image::new("a")).await;
    for path in [
        "/v2//_catalog",
        "/v2/_catalog/",
        "/V2/_catalog",
        "/v2/%5fcatalog",
        "/v2/_catalog;x",
        "/v2/./_catalog",
        "/v2/x/../_catalog",
        "//v2/_catalog",
        "/v2/app%2fmanifests/v1",
        "/v2/app/manifests/%76%31",
        "/v2/app/tags/list/",
        "/v2/app/manifests/../../_catalog",
    ] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let answer = raw(&service, &request).await;
            let status = answer.split(' ').nth(1).unwrap();
            assert!(matches!(status, "400" | "404"), "{method} {path}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn j10_another_host_name_is_misdirected() {
    let service = Service::start().await;
    let request =
        "GET /v2/_catalog HTTP/1.1\r\nHost: evil.example.org\r\nConnection: close\r\n\r\n";
    let answer = raw(&service, request).await;
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_a_document_of_two_kinds_is_refused() {
    let service = Service::start().await;
    let image = Image::new("a");
    service.upload_image("app", "v1", &image).await;
    let good = String::from_utf8(image.manifest()).unwrap();
    let both = good.replacen('{', r#"{"manifests":[],"#, 1);
    let twice = good.replacen('{', r#"{"layers":[],"#, 1);
    for (text, media_type) in [
        (&both, OCI_MANIFEST),
        (&twice, OCI_MANIFEST),
        (&good, OCI_INDEX),
    ] {
        let response = service
            .put_manifest("app", "v2", media_type, text.clone())
            .await;
        assert_eq!(response.status(), 400);
        assert_eq!(code(response).await, "MANIFEST_INVALID");
    }
    let missing = service.send("GET", "/v2/app/manifests/v2").await;
    assert_eq!(missing.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_a_manifest_put_under_another_digest_is_refused() {
    let service = Service::start().await;
    let image = Image::new("a");
    service.upload_image("app", "v1", &image).await;
    let other = format!("sha256:{}", "0".repeat(64));
    let response = service
        .put_manifest("app", &other, OCI_MANIFEST, image.manifest())
        .await;
    assert_eq!(code(response).await, "DIGEST_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_a_digest_that_is_a_path_is_refused() {
    let service = Service::start().await;
    let upper = format!("sha256:{}", "A".repeat(64));
    for digest in ["sha256:..%2f..%2fx", "sha256:abc", "md5:abc", &upper] {
        let path = format!("/v2/app/blobs/uploads/?mount={digest}&from=a");
        let response = service.send("POST", &path).await;
        assert_eq!(code(response).await, "DIGEST_INVALID", "{digest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_made_again_from_the_files() {
    let service = Service::start().await;
    let image = Image::new("a");
    let digest = service.upload_image("team/app", "v1", &image).await;
    service.upload_image("team/app", "v2", &image).await;
    service.memory.state().leases.clear();
    let service = service
        .restart(|root| std::fs::remove_dir_all(root.join("index")).unwrap())
        .await;
    service.memory.eventually_leased(&digest).await;
    let response = service.send("GET", "/v2/team/app/manifests/v1").await;
    assert_eq!(header(&response, "docker-content-digest"), digest);
    let tags = service.send("GET", "/v2/team/app/tags/list").await;
    assert!(tags.text().await.unwrap().contains(r#"["v1","v2"]"#));
    let layer = digest_like("sha256", &image.layers[0]);
    let blob = service
        .send("HEAD", &format!("/v2/team/app/blobs/{layer}"))
        .await;
    assert_eq!(blob.status(), 200);
}
