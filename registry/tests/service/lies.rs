//! Transfers with registries that lie, stall, redirect, or are none.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use orlop_proto::error::{Kind, reason};
use orlop_proto::types::Credential;
use orlop_registry::manifest::{OCI_INDEX, OCI_MANIFEST, digest_like};

use crate::liar::{Asked, Liar, Reply};
use crate::support::{Image, Service};

/// Serves an image well; `lie` answers first where it wants to.
async fn registry(
    image: Image,
    lie: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
) -> Liar {
    Liar::start(move |asked| lie(asked).unwrap_or_else(|| honest(&image, asked))).await
}

fn honest(image: &Image, asked: &Asked) -> Reply {
    if asked.path == "/v2/" {
        return Reply::new(200, "{}");
    }
    if asked.path.contains("/manifests/") {
        return Reply::new(200, image.manifest()).header("content-type", OCI_MANIFEST);
    }
    let blobs = image.layers.iter().chain([&image.config]);
    let wanted = asked.path.rsplit('/').next().unwrap_or_default();
    let Some(blob) = blobs
        .into_iter()
        .find(|b| digest_like("sha256", b) == wanted)
    else {
        return Reply::new(404, "{}");
    };
    let range = asked.header("range").and_then(|r| r.strip_prefix("bytes="));
    let first: Option<usize> = range.map(|r| r.trim_end_matches('-').parse().unwrap());
    match first {
        None => Reply::new(200, blob.clone()),
        Some(first) => Reply::new(206, &blob[first..]).header(
            "content-range",
            &format!("bytes {first}-{}/{}", blob.len() - 1, blob.len()),
        ),
    }
}

fn nothing_named(service: &Service) {
    let state = service.memory.state();
    assert!(state.images.is_empty(), "{:?}", state.images);
    assert!(state.unpacked.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_other_bytes_than_the_pinned_digest_are_refused() {
    let service = Service::start().await;
    let liar = registry(Image::new("evil"), |_| None).await;
    let pinned = digest_like("sha256", &Image::new("good").manifest());
    let name = format!("{}/app@{pinned}", liar.address);
    let failure = service.pull(&name).await.err().unwrap();
    assert_eq!(failure.kind, Kind::DataLoss);
    assert_eq!(failure.reason, reason::DIGEST_MISMATCH);
    assert!(failure.message.contains(&pinned), "{failure}");
    nothing_named(&service);
}

#[tokio::test(flavor = "multi_thread")]
async fn h4_the_pinned_digest_wins_over_the_tag() {
    let service = Service::start().await;
    let image = Image::new("a");
    let pinned = digest_like("sha256", &image.manifest());
    let liar = registry(image, |_| None).await;
    let name = format!("{}/app:v1@{pinned}", liar.address);
    let done = service.pull(&name).await.unwrap();
    assert_eq!(done.result.target.unwrap().digest, pinned);
    assert_eq!(liar.count("/manifests/v1"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_a_blob_with_other_bytes_is_refused() {
    let service = Service::start().await;
    let image = Image::new("a");
    let victim = digest_like("sha256", &image.layers[0]);
    let size = image.layers[0].len();
    let wanted = victim.clone();
    let liar = registry(image, move |asked| {
        let hit = asked.path.ends_with(&wanted);
        hit.then(|| Reply::new(200, vec![b'x'; size]))
    })
    .await;
    let name = format!("{}/app", liar.address);
    let failure = service.pull(&name).await.err().unwrap();
    assert_eq!(failure.kind, Kind::DataLoss);
    assert!(failure.message.contains(&victim), "{failure}");
    assert!(failure.message.contains(&liar.address), "{failure}");
    nothing_named(&service);
    assert!(!service.memory.state().blobs.contains_key(&victim));
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_a_blob_of_another_size_is_refused_at_its_first_byte_too_many() {
    for (sized, change) in [(true, 1_isize), (true, -1), (false, 1), (false, -1)] {
        let service = Service::start().await;
        let image = Image::new("a");
        let wanted = digest_like("sha256", &image.layers[0]);
        let mut bytes = image.layers[0].clone();
        bytes.resize(bytes.len().checked_add_signed(change).unwrap(), b'x');
        let liar = registry(image, move |asked| {
            let reply = if sized {
                Reply::new(200, bytes.clone())
            } else {
                // No length is told before the bytes.
                let hex = format!("{:x}\r\n", bytes.len()).into_bytes();
                let body = [&hex, &bytes[..], b"\r\n0\r\n\r\n"].concat();
                Reply::new(200, body).header("transfer-encoding", "chunked")
            };
            asked.path.ends_with(&wanted).then_some(reply)
        })
        .await;
        let name = format!("{}/app", liar.address);
        let failure = service.pull(&name).await.err().unwrap();
        assert_eq!(failure.kind, Kind::DataLoss, "{change} {failure}");
        nothing_named(&service);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h6_a_manifest_of_another_size_than_the_index_says_is_refused() {
    let service = Service::start().await;
    let image = Image::new("a");
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{
        "mediaType": OCI_MANIFEST, "digest": digest_like("sha256", &image.manifest()),
        "size": image.manifest().len() + 1,
        "platform": {"os": "linux", "architecture": "amd64"}}, {
        "mediaType": OCI_MANIFEST, "digest": digest_like("sha256", &image.manifest()),
        "size": image.manifest().len() + 1,
        "platform": {"os": "linux", "architecture": "arm64"}}]});
    let liar = registry(image, move |asked| {
        let top = asked.path.ends_with("/manifests/latest");
        let reply = Reply::new(200, index.to_string()).header("content-type", OCI_INDEX);
        top.then_some(reply)
    })
    .await;
    let failure = service.pull(&format!("{}/app", liar.address)).await;
    let failure = failure.err().unwrap();
    assert_eq!(failure.kind, Kind::DataLoss, "{failure}");
    nothing_named(&service);
}

#[tokio::test(flavor = "multi_thread")]
async fn h1_a_manifest_of_two_kinds_is_refused_on_pull() {
    let service = Service::start().await;
    let image = Image::new("a");
    let text = String::from_utf8(image.manifest()).unwrap();
    let both = text.replacen('{', r#"{"manifests":[],"#, 1);
    let liar = registry(image, move |asked| {
        let manifest = asked.path.contains("/manifests/");
        manifest.then(|| Reply::new(200, both.clone()).header("content-type", OCI_MANIFEST))
    })
    .await;
    let failure = service.pull(&format!("{}/app", liar.address)).await;
    assert_eq!(failure.err().unwrap().kind, Kind::InvalidArgument);
    nothing_named(&service);
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_manifest_without_end_is_read_no_further_than_four_mebibytes() {
    let service = Service::start().await;
    let liar = registry(Image::new("a"), |asked| {
        let manifest = asked.path.contains("/manifests/");
        manifest.then(|| Reply::new(200, vec![b' '; 5 * 1024 * 1024]))
    })
    .await;
    let failure = service.pull(&format!("{}/app", liar.address)).await;
    let failure = failure.err().unwrap();
    assert_eq!(failure.kind, Kind::ResourceExhausted, "{failure}");
    nothing_named(&service);
}

#[tokio::test(flavor = "multi_thread")]
async fn html_is_not_a_registry() {
    let service = Service::start().await;
    let html = || Reply::new(200, "<html>Welcome</html>").header("content-type", "text/html");
    let everywhere = Liar::start(move |_| html()).await;
    let manifests = registry(Image::new("a"), move |asked| {
        asked.path.contains("/manifests/").then(html)
    })
    .await;
    for liar in [everywhere, manifests] {
        let failure = service.pull(&format!("{}/app", liar.address)).await;
        let failure = failure.err().unwrap();
        assert_eq!(failure.reason, reason::NOT_A_REGISTRY, "{failure}");
        assert!(failure.message.contains(&liar.address), "{failure}");
    }
    nothing_named(&service);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_not_there_is_unavailable() {
    let service = Service::start().await;
    let liar = registry(Image::new("a"), |_| None).await;
    let name = format!("{}/app", liar.address);
    drop(liar);
    let failure = service.pull(&name).await.err().unwrap();
    assert_eq!(failure.kind, Kind::Unavailable, "{failure}");
    assert!(failure.message.contains("127.0.0.1:"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_breaks_off_goes_on_where_it_stopped() {
    let service = Service::start().await;
    let image = Image::new("a");
    let layer = image.layers[0].clone();
    let wanted = digest_like("sha256", &layer);
    let left = Arc::new(AtomicU32::new(1));
    let ends_with = wanted.clone();
    let liar = registry(image, move |asked| {
        let first = asked.path.ends_with(&ends_with) && asked.header("range").is_none();
        let cut = first && left.swap(0, Ordering::SeqCst) == 1;
        cut.then(|| Reply::new(200, layer.clone()).cut(60_000))
    })
    .await;
    let done = service
        .pull(&format!("{}/app", liar.address))
        .await
        .unwrap();
    assert_eq!(done.result.transferred, 3);
    let asked = liar.asked();
    let resumed = asked.iter().filter(|a| a.path.ends_with(&wanted));
    let ranges: Vec<_> = resumed.filter_map(|a| a.header("range")).collect();
    assert_eq!(ranges.len(), 1, "{ranges:?}");
    assert_ne!(ranges[0], "bytes=0-");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_pull_left_is_not_fetched_again() {
    let service = Service::start().await;
    let image = Image::new("a");
    let layer = image.layers[0].clone();
    let wanted = digest_like("sha256", &layer);
    let ingest = format!("pull-{}", wanted.replace(':', "-"));
    let begun = layer[..99_000].to_vec();
    service.memory.state().ingests.insert(ingest, begun);
    let liar = registry(image, |_| None).await;
    service
        .pull(&format!("{}/app", liar.address))
        .await
        .unwrap();
    let asked = liar.asked();
    let range = asked.iter().find(|a| a.path.ends_with(&wanted)).unwrap();
    assert_eq!(range.header("range"), Some("bytes=99000-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_beginning_is_dropped_and_fetched_once_more() {
    let service = Service::start().await;
    let image = Image::new("a");
    let wanted = digest_like("sha256", &image.layers[0]);
    let ingest = format!("pull-{}", wanted.replace(':', "-"));
    service.memory.state().ingests.insert(ingest, vec![0; 50]);
    let liar = registry(image, |_| None).await;
    service
        .pull(&format!("{}/app", liar.address))
        .await
        .unwrap();
    assert!(service.memory.state().blobs.contains_key(&wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_waited_for() {
    let service = Service::start().await;
    let refusals = AtomicU32::new(2);
    let liar = registry(Image::new("a"), move |asked| {
        let manifest = asked.path.contains("/manifests/");
        let refuse = manifest
            && refusals
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        refuse.then(|| Reply::new(429, "{}").header("retry-after", "0"))
    })
    .await;
    service
        .pull(&format!("{}/app", liar.address))
        .await
        .unwrap();
    assert_eq!(liar.count("/manifests/"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_for_ever_ends() {
    let service = Service::start().await;
    let liar = Liar::start(|asked| {
        if asked.path.starts_with("/token") {
            return Reply::new(200, r#"{"token":"t"}"#);
        }
        let host = asked.header("host").unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
        Reply::new(401, "{}").header("www-authenticate", &challenge)
    })
    .await;
    let failure = service.pull(&format!("{}/app", liar.address)).await;
    let failure = failure.err().unwrap();
    assert_eq!(failure.kind, Kind::Unauthenticated, "{failure}");
    assert!(liar.asked().len() < 10, "{:?}", liar.asked());
}

fn credential(registry: &str) -> Option<Credential> {
    Some(Credential {
        registry: registry.to_owned(),
        username: "user".to_owned(),
        password: "secret".to_owned(),
        identity_token: String::new(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_the_credential_is_not_sent_to_a_realm_elsewhere() {
    let service = Service::start().await;
    for realm in [
        "https://evil.example.org/token",
        "http://10.0.0.1/token",
        "file:///x",
    ] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
        let liar =
            Liar::start(move |_| Reply::new(401, "{}").header("www-authenticate", &challenge))
                .await;
        let name = format!("{}/app", liar.address);
        let failure = service.pull_as(&name, credential(&liar.address)).await;
        let failure = failure.err().unwrap();
        assert_eq!(failure.kind, Kind::FailedPrecondition, "{failure}");
        assert!(failure.message.contains(realm), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_a_redirect_to_another_host_does_not_bring_the_credential() {
    let service = Service::start().await;
    let image = Image::new("a");
    let layer = image.layers[0].clone();
    let wanted = digest_like("sha256", &layer);
    let elsewhere = Liar::start(move |_| Reply::new(200, layer.clone())).await;
    let target = format!("http://{}/blob", elsewhere.address);
    let ends_with = wanted.clone();
    let liar = registry(image, move |asked| {
        if asked.header("authorization").is_none() {
            let basic = Reply::new(401, "{}").header("www-authenticate", "Basic realm=\"r\"");
            return Some(basic);
        }
        let hit = asked.path.ends_with(&ends_with);
        hit.then(|| Reply::new(307, "").header("location", &target))
    })
    .await;
    let name = format!("{}/app", liar.address);
    service
        .pull_as(&name, credential(&liar.address))
        .await
        .unwrap();
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].header("authorization"), None);
    assert_eq!(asked[0].header("cookie"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_redirects_end_after_ten() {
    let service = Service::start().await;
    let liar = registry(Image::new("a"), |asked| {
        let manifest = asked.path.contains("/manifests/");
        manifest.then(|| Reply::new(302, "").header("location", &asked.path))
    })
    .await;
    let failure = service.pull(&format!("{}/app", liar.address)).await;
    assert_eq!(failure.err().unwrap().kind, Kind::FailedPrecondition);
    assert_eq!(liar.count("/manifests/"), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_a_credential_of_another_registry_is_not_shown() {
    let service = Service::start().await;
    let liar = registry(Image::new("a"), |_| None).await;
    let name = format!("{}/app", liar.address);
    let failure = service
        .pull_as(&name, credential("other.example.com"))
        .await;
    assert_eq!(failure.err().unwrap().kind, Kind::InvalidArgument);
    assert!(liar.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn g8_a_digest_that_is_a_path_is_asked_of_nobody() {
    let service = Service::start().await;
    let image = Image::new("a");
    let text = String::from_utf8(image.manifest()).unwrap();
    let hex = digest_like("sha256", &image.layers[0]);
    let hostile = text.replace(&hex, "sha256:../../../admin");
    let liar = registry(image, move |asked| {
        let manifest = asked.path.contains("/manifests/");
        manifest.then(|| Reply::new(200, hostile.clone()).header("content-type", OCI_MANIFEST))
    })
    .await;
    let failure = service.pull(&format!("{}/app", liar.address)).await;
    assert_eq!(failure.err().unwrap().kind, Kind::InvalidArgument);
    assert_eq!(liar.count("admin"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn h5_an_image_that_does_not_unpack_gets_no_name() {
    let service = Service::start().await;
    service.memory.state().unpack_fails = true;
    let liar = registry(Image::new("a"), |_| None).await;
    let failure = service.pull(&format!("{}/app", liar.address)).await;
    assert_eq!(failure.err().unwrap().kind, Kind::InvalidArgument);
    nothing_named(&service);
}

#[tokio::test(flavor = "multi_thread")]
async fn g9_each_credential_gets_its_own_token() {
    let service = Service::start().await;
    let image = Image::new("a");
    let users = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&users);
    let liar = registry(image, move |asked| {
        if asked.path.starts_with("/token") {
            let proof = asked.header("authorization").unwrap_or_default();
            seen.lock().unwrap().push(proof.to_owned());
            return Some(Reply::new(200, r#"{"token":"t","expires_in":300}"#));
        }
        let host = asked.header("host").unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
        let known = asked.header("authorization") == Some("Bearer t");
        (!known).then(|| Reply::new(401, "{}").header("www-authenticate", &challenge))
    })
    .await;
    let name = format!("{}/app", liar.address);
    for user in ["one", "two", "one"] {
        let mut credential = credential(&liar.address).unwrap();
        credential.username = user.to_owned();
        service.pull_as(&name, Some(credential)).await.unwrap();
    }
    let users = users.lock().unwrap().clone();
    assert_eq!(users.len(), 2, "{users:?}");
    assert_ne!(users[0], users[1]);
}
