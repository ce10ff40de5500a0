//! Pull, push and login with registries that behave: our own.

use orlop_proto::error::{Failure, Kind, reason};
use orlop_proto::registry as pb;
use orlop_proto::types::Credential;
use orlop_registry::manifest::digest_like;

use crate::liar::{Liar, Reply};
use crate::support::{Image, Service};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_travels_out_and_back() {
    let (here, there) = (Service::start().await, Service::start().await);
    let name = format!("{}/team/app:v1", there.address);
    let image = Image::new("a");
    let digest = here.name_image(&name, &image);
    let pushed = here.push(&name).await.unwrap();
    assert_eq!(pushed.result.name, name);
    assert_eq!(pushed.result.transferred, 3);
    let bytes = image.config.len() + 2 * 100_000;
    assert_eq!(pushed.result.bytes, bytes as u64);
    assert_eq!(pushed.result.target.unwrap().digest, digest);

    let reader = Service::start().await;
    let pulled = reader.pull(&name).await.unwrap();
    assert_eq!(pulled.result.target.clone().unwrap().digest, digest);
    assert_eq!((pulled.result.transferred, pulled.result.existed), (3, 0));
    assert_eq!(pulled.result.bytes, bytes as u64);
    assert!(!pulled.result.up_to_date);
    let last = pulled.progress.last().unwrap();
    assert_eq!(last.status, "unpacking");
    {
        let state = reader.memory.state();
        assert_eq!(state.images[&name].digest, digest);
        assert_eq!(state.unpacked, [digest]);
        assert_eq!(
            state.blobs[&digest_like("sha256", &image.layers[0])],
            image.layers[0]
        );
        assert!(state.ingests.is_empty());
    }
    let again = reader.pull(&name).await.unwrap();
    assert!(again.result.up_to_date);
    assert_eq!((again.result.existed, again.result.bytes), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_learns_the_diff_ids_before_the_layers() {
    let (here, there) = (Service::start().await, Service::start().await);
    let name = format!("{}/app", there.address);
    let image = Image::new("a");
    here.name_image(&name, &image);
    here.push(&name).await.unwrap();
    let odd = Image {
        config: br#"{"rootfs":{"diff_ids":["sha256:0"]}}"#.to_vec(),
        ..Image::new("odd")
    };
    let odd_name = format!("{}/odd", there.address);
    here.name_image(&odd_name, &odd);
    here.push(&odd_name).await.unwrap();

    let reader = Service::start().await;
    reader.pull(&name).await.unwrap();
    reader.pull(&odd_name).await.unwrap();
    let state = reader.memory.state();
    let told = |bytes: &[u8]| state.diff_ids[&digest_like("sha256", bytes)].as_str();
    for layer in &image.layers {
        assert_eq!(told(layer), digest_like("sha256", layer));
    }
    assert_eq!(told(&image.config), "");
    // A configuration that does not fit its manifest says nothing of the layers.
    assert_eq!(odd.layers.iter().map(|l| told(l)).collect::<String>(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_push_sends_nothing() {
    let (here, there) = (Service::start().await, Service::start().await);
    let name = format!("{}/app", there.address);
    here.name_image(&name, &Image::new("a"));
    here.push(&name).await.unwrap();
    let again = here.push(&name).await.unwrap();
    assert_eq!((again.result.existed, again.result.bytes), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_repository_has_is_mounted_and_says_so() {
    let (here, there) = (Service::start().await, Service::start().await);
    let base = Image::new("base");
    let first = format!("{}/base/first", there.address);
    here.name_image(&first, &base);
    here.push(&first).await.unwrap();
    let mut image = Image::new("new");
    image.layers = vec![
        base.layers[0].clone(),
        base.layers[1].clone(),
        b"new".to_vec(),
    ];
    let second = format!("{}/other/second", there.address);
    here.name_image(&second, &image);
    let pushed = here.push(&second).await.unwrap();
    assert_eq!((pushed.result.mounted, pushed.result.transferred), (2, 2));
    assert_eq!(pushed.result.bytes, (image.config.len() + 3) as u64);
    let mounts = pushed.progress.iter().filter(|p| p.status == "mounted");
    let details: Vec<_> = mounts.map(|p| p.detail.as_str()).collect();
    assert_eq!(details, ["base/first"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_registry_mounts_what_the_client_did_not_know_of() {
    let (one, two, there) = (
        Service::start().await,
        Service::start().await,
        Service::start().await,
    );
    let first = format!("{}/first", there.address);
    one.name_image(&first, &Image::new("a"));
    one.push(&first).await.unwrap();
    let second = format!("{}/second", there.address);
    two.name_image(&second, &Image::new("a"));
    let pushed = two.push(&second).await.unwrap();
    assert_eq!((pushed.result.mounted, pushed.result.bytes), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_goes_in_chunks() {
    let (here, there) = (Service::start().await, Service::start().await);
    let mut image = Image::new("a");
    image.layers = vec![(0..=255).cycle().take(5_000_000).collect()];
    let name = format!("{}/app", there.address);
    here.name_image(&name, &image);
    let pushed = here.push(&name).await.unwrap();
    assert_eq!(pushed.result.transferred, 2);
    let digest = digest_like("sha256", &image.layers[0]);
    let state = there.memory.state();
    assert_eq!(state.blobs[&digest], image.layers[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_of_one_image_share_its_blobs() {
    let (reader, there) = (Service::start().await, Service::start().await);
    let image = Image::new("a");
    there.upload_image("app", "v1", &image).await;
    let name = format!("{}/app:v1", there.address);
    let (one, two) = tokio::join!(reader.pull(&name), reader.pull(&name));
    let (one, two) = (one.unwrap().result, two.unwrap().result);
    assert_eq!(one.transferred + two.transferred, 3);
    assert_eq!(one.existed + two.existed, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_nowhere_are_named() {
    let (here, there) = (Service::start().await, Service::start().await);
    let name = format!("{}/none:v1", there.address);
    let failure = here.push(&name).await.err().unwrap();
    assert_eq!(failure.kind, Kind::NotFound);
    assert_eq!(failure.reason, reason::IMAGE_NOT_FOUND);
    assert!(failure.message.contains(&name), "{failure}");
    let failure = here.pull(&name).await.err().unwrap();
    assert_eq!(failure.kind, Kind::NotFound);
    assert!(failure.message.contains("none:v1"), "{failure}");
    let failure = here.pull("UPPER").await.err().unwrap();
    assert_eq!(failure.kind, Kind::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_goes_on_where_the_registry_says() {
    let here = Service::start().await;
    let mut image = Image::new("a");
    image.layers = vec![vec![7; 3_000_000]];
    let broken = std::sync::atomic::AtomicBool::new(false);
    let there = Liar::start(move |asked| match asked.method.as_str() {
        "GET" if asked.path == "/v2/" => Reply::new(200, "{}"),
        "HEAD" => Reply::new(404, ""),
        "POST" => Reply::new(202, "").header("location", "/upload"),
        "PATCH" if !broken.swap(true, std::sync::atomic::Ordering::SeqCst) => Reply::new(502, ""),
        "PATCH" => Reply::new(202, "").header("location", "/upload"),
        "GET" => Reply::new(204, "")
            .header("location", "/upload")
            .header("range", "0-999999"),
        _ => Reply::new(201, ""),
    })
    .await;
    let name = format!("{}/app", there.address);
    here.name_image(&name, &image);
    here.push(&name).await.unwrap();
    let asked = there.asked();
    let patches: Vec<_> = asked.iter().filter(|a| a.method == "PATCH").collect();
    assert_eq!(patches.len(), 2);
    assert_eq!(patches[1].header("content-range"), Some("1000000-2999999"));
    assert_eq!(asked.last().unwrap().path, "/v2/app/manifests/latest");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_tries_the_credential() {
    let here = Service::start().await;
    let there = Liar::start(|asked| {
        let good = asked.header("authorization") == Some("Basic dXNlcjpzZWNyZXQ=");
        if asked.path.starts_with("/token") {
            return match good {
                true => Reply::new(200, r#"{"token":"t","refresh_token":"keep"}"#),
                false => Reply::new(401, "{}"),
            };
        }
        let host = asked.header("host").unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
        match asked.header("authorization") {
            Some("Bearer t") => Reply::new(200, "{}"),
            _ => Reply::new(401, "{}").header("www-authenticate", &challenge),
        }
    })
    .await;
    let login = |password: &str| pb::LoginRequest {
        credential: Some(Credential {
            registry: there.address.clone(),
            username: "user".to_owned(),
            password: password.to_owned(),
            identity_token: String::new(),
        }),
        insecure: false,
    };
    let answer = here.transfer().login(login("secret")).await.unwrap();
    assert_eq!(answer.into_inner().identity_token, "keep");
    let status = here.transfer().login(login("wrong")).await.unwrap_err();
    assert_eq!(Failure::from(status).kind, Kind::Unauthenticated);
    let status = here.transfer().login(pb::LoginRequest::default()).await;
    let failure = Failure::from(status.unwrap_err());
    assert_eq!(failure.kind, Kind::InvalidArgument);
}
