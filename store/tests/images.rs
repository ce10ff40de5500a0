//! `Images` and `Maintenance` through a socket.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "served/store.rs"]
mod served;

use orlop_proto::store as pb;
use orlop_proto::store::put_image_request::Expected;
use served::{MANIFEST, Served, config, digest, manifest, put, target};
use tonic::Code;

const NAME: &str = "docker.io/library/a:latest";

fn resolve(reference: &str) -> pb::ResolveImageRequest {
    pb::ResolveImageRequest {
        reference: reference.to_owned(),
        platform: None,
    }
}

#[tokio::test]
async fn a_name_is_put_found_listed_and_deleted_and_survives_a_kill() {
    let served = Served::start().await;
    let target = served.named(NAME, b"layer").await;
    served.named("docker.io/library/b:1", b"other").await;
    for served in [served.after_a_kill().await, served] {
        let get = pb::GetImageRequest { name: NAME.into() };
        let image = served.images().get(get.clone()).await.unwrap().into_inner();
        assert_eq!(image.target.unwrap().digest, target.digest);
        let list = pb::ListImagesRequest {
            page_size: 1,
            ..Default::default()
        };
        let page = served.images().list(list).await.unwrap().into_inner();
        assert_eq!(page.images[0].size, 5);
        assert_eq!(page.images[0].labels["a"], "b");
        let list = pb::ListImagesRequest {
            page_token: page.next_page_token,
            ..Default::default()
        };
        let page = served.images().list(list).await.unwrap().into_inner();
        assert_eq!(
            page.images[0].image.as_ref().unwrap().name,
            "docker.io/library/b:1"
        );
        assert!(page.next_page_token.is_empty());

        for text in [
            "a",
            "a:latest",
            NAME,
            &format!("a@{}", target.digest),
            &target.digest,
        ] {
            let found = served
                .images()
                .resolve(resolve(text))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(found.target.unwrap().digest, target.digest, "{text}");
            assert_eq!(found.names, [NAME]);
        }
        let id = page_id(&served).await;
        let found = served
            .images()
            .resolve(resolve(&id[7..19]))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(found.config.unwrap().digest, id);
        for unknown in ["zzz", "a:2", &digest(b"?")] {
            let error = served.images().resolve(resolve(unknown)).await.unwrap_err();
            assert_eq!(error.code(), Code::NotFound, "{unknown}");
        }
        let error = served.images().resolve(resolve("A/")).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);

        let delete = pb::DeleteImageRequest {
            name: NAME.into(),
            expected: String::new(),
        };
        served.images().delete(delete.clone()).await.unwrap();
        assert_eq!(
            served.images().delete(delete).await.unwrap_err().code(),
            Code::NotFound
        );
        assert_eq!(
            served.images().get(get).await.unwrap_err().code(),
            Code::NotFound
        );
    }
}

async fn page_id(served: &Served) -> String {
    let list = pb::ListImagesRequest {
        prefix: NAME.into(),
        ..Default::default()
    };
    served
        .images()
        .list(list)
        .await
        .unwrap()
        .into_inner()
        .images[0]
        .image_id
        .clone()
}

#[tokio::test]
async fn compare_and_swap_lets_one_win() {
    let served = Served::start().await;
    let target = served.image(b"layer").await;
    let mut request = put(NAME, &target);
    request.expected = Some(Expected::Absent(true));
    served.images().put(request.clone()).await.unwrap();
    assert_eq!(
        served
            .images()
            .put(request.clone())
            .await
            .unwrap_err()
            .code(),
        Code::Aborted
    );
    request.expected = Some(Expected::Digest(digest(b"?")));
    assert_eq!(
        served
            .images()
            .put(request.clone())
            .await
            .unwrap_err()
            .code(),
        Code::Aborted
    );
    request.expected = Some(Expected::Digest(target.digest));
    served.images().put(request).await.unwrap();
}

#[tokio::test]
async fn a_name_never_points_at_something_incomplete() {
    let served = Served::start().await;
    let config = config(&[&digest(b"gone")]);
    let config_digest = served.blob(config.as_bytes()).await;
    let json = manifest(&config_digest, config.len(), &[(&digest(b"gone"), 4)]);
    served.blob(json.as_bytes()).await;
    let request = put(NAME, &target(MANIFEST, json.as_bytes()));
    let error = served.images().put(request).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains(&digest(b"gone")));
}

#[tokio::test]
async fn e21_h1_h6_i1_bad_documents_get_no_name() {
    let served = Served::start().await;
    let layer = served.blob(b"layer").await;
    let good = config(&[&layer]);
    let good_digest = served.blob(good.as_bytes()).await;
    let mut bad = Vec::new();
    for broken in [
        good.replace("\"rootfs\"", "\"x\""),
        good.replacen('{', "{\"history\":[null],", 1),
        config(&[]),
        good.replacen('{', "{\"os\":\"linux\",", 1),
    ] {
        let config = served.blob(broken.as_bytes()).await;
        bad.push(manifest(&config, broken.len(), &[(&layer, 5)]));
    }
    bad.push(manifest(&good_digest, good.len() + 1, &[(&layer, 5)]));
    bad.push(manifest(&good_digest, good.len(), &[(&layer, 4)]));
    let whole = manifest(&good_digest, good.len(), &[(&layer, 5)]);
    bad.push(whole.replacen('{', "{\"manifests\":[],", 1));
    for json in bad {
        served.blob(json.as_bytes()).await;
        let request = put(NAME, &target(MANIFEST, json.as_bytes()));
        let error = served.images().put(request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{json}");
    }
    served.blob(whole.as_bytes()).await;
    served
        .images()
        .put(put(NAME, &target(MANIFEST, whole.as_bytes())))
        .await
        .unwrap();
}

/// The same document with spaces at its end, so that it has `size` bytes.
fn padded(json: &str, size: usize) -> String {
    let spaces = " ".repeat(size.saturating_sub(json.len()));
    format!("{json}{spaces}")
}

#[tokio::test]
async fn i1_a_manifest_or_configuration_above_4_mib_is_refused() {
    const MAX: usize = 4 << 20;
    let served = Served::start().await;
    let layer = served.blob(b"layer").await;
    let small = config(&[&layer]);
    let put_with = async |config_size: usize, manifest_size: usize| {
        let config = padded(&small, config_size);
        let config_digest = served.blob_in_pieces(config.as_bytes()).await;
        let json = manifest(&config_digest, config.len(), &[(&layer, 5)]);
        let json = padded(&json, manifest_size);
        served.blob_in_pieces(json.as_bytes()).await;
        let request = put(NAME, &target(MANIFEST, json.as_bytes()));
        served.images().put(request).await
    };
    for (config_size, manifest_size) in [(0, MAX + 1), (MAX + 1, 0)] {
        let error = put_with(config_size, manifest_size).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        let expected = format!("{MAX}");
        assert!(error.message().contains(&expected), "{error}");
    }
    put_with(MAX, MAX).await.unwrap();
}

#[tokio::test]
async fn a_collection_takes_what_nothing_needs() {
    let served = Served::start().await;
    let garbage = served.blob(b"garbage").await;
    let held = served.blob(b"held").await;
    let put = pb::PutLeaseRequest {
        id: "l".into(),
        ..Default::default()
    };
    served.leases().put(put).await.unwrap();
    let resource = pb::Resource {
        resource: Some(pb::resource::Resource::Blob(held.clone())),
    };
    let add = pb::AddResourcesRequest {
        lease: "l".into(),
        resources: vec![resource],
    };
    served.leases().add(add).await.unwrap();
    served.named(NAME, b"layer").await;

    let collect = |dry_run| pb::CollectRequest { dry_run };
    let dry = served
        .maintenance()
        .collect(collect(true))
        .await
        .unwrap()
        .into_inner();
    let real = served
        .maintenance()
        .collect(collect(false))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((dry.blobs, dry.bytes), (1, 7));
    assert_eq!(dry, real);
    let stat = |digest: &str| pb::StatRequest {
        digest: digest.to_owned(),
    };
    assert_eq!(
        served
            .content()
            .stat(stat(&garbage))
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    served.content().stat(stat(&held)).await.unwrap();

    let request = pb::DiskUsageRequest {};
    let usage = served
        .maintenance()
        .disk_usage(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((usage.blobs, usage.images), (4, 1));
    let delete = pb::DeleteImageRequest {
        name: NAME.into(),
        expected: String::new(),
    };
    served.images().delete(delete).await.unwrap();
    let real = served
        .maintenance()
        .collect(collect(false))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(real.blobs, 3);
}

#[tokio::test]
async fn the_size_of_an_unpacked_image_is_that_of_its_files() {
    let served = Served::start().await;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    tar.append_data(&mut header, "f", &b"abc"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let target = served.named(NAME, &tar).await;
    let size = async || {
        let list = pb::ListImagesRequest::default();
        let page = served.images().list(list).await.unwrap().into_inner();
        page.images[0].size
    };
    assert_eq!(size().await, i64::try_from(tar.len()).unwrap());
    let request = pb::UnpackRequest {
        digest: target.digest,
        ..Default::default()
    };
    let mut snapshots = pb::snapshots_client::SnapshotsClient::new(served.channel.clone());
    snapshots.unpack(request).await.unwrap();
    assert_eq!(size().await, 3);
}
