//! Named and anonymous volumes, bind mounts.

use orlop_proto::error::{Failure, Kind, reason};
use orlop_proto::runtime as wire;

use crate::service::{Service, of_image, sh};

fn mount(kind: wire::MountKind, source: &str, target: &str) -> wire::Mount {
    wire::Mount {
        kind: kind.into(),
        source: source.to_owned(),
        target: target.to_owned(),
        ..wire::Mount::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_volume_outlives_its_containers() {
    let service = Service::start().await;
    let mut write = sh("echo kept > /data/f");
    write.mounts = vec![mount(wire::MountKind::Volume, "data", "/data")];
    let writer = service.create(write).await.unwrap();
    assert_eq!(
        service.run_attached(&writer, b"").await.unwrap().code,
        Some(0)
    );
    let remove = |force| wire::RemoveVolumeRequest {
        name: "data".to_owned(),
        force,
    };
    let used = service.volumes().remove(remove(false)).await.unwrap_err();
    assert_eq!(Failure::from(used).reason, reason::IN_USE);
    service.remove(&writer, false).await.unwrap();
    let mut read = sh("cat /data/f; touch /data/g");
    let mut read_only = mount(wire::MountKind::Volume, "data", "/data");
    read_only.read_only = true;
    read.mounts = vec![read_only];
    let reader = service.create(read).await.unwrap();
    let output = service.run_attached(&reader, b"").await.unwrap();
    assert_eq!(output.stdout, "kept\n");
    assert_ne!(output.code, Some(0));
    service.remove(&reader, false).await.unwrap();
    service.volumes().remove(remove(false)).await.unwrap();
    let gone = service.volumes().remove(remove(false)).await.unwrap_err();
    assert_eq!(Failure::from(gone).kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_images_volume_is_filled_from_the_image_and_goes_with_its_container() {
    let service = Service::start().await;
    let id = service
        .create(of_image("volumes", &["sh", "-c", "cat /seeded/from-image"]))
        .await
        .unwrap();
    assert_eq!(service.run_attached(&id, b"").await.unwrap().stdout, "seed");
    let inspected = service.inspect(&id).await.unwrap();
    assert_eq!(inspected.exposed, ["80/tcp"]);
    assert_eq!(inspected.mounts.len(), 1);
    let list = || async {
        let listed = service
            .volumes()
            .list(wire::ListVolumesRequest::default())
            .await;
        listed.unwrap().into_inner().volumes
    };
    assert!(list().await.first().unwrap().anonymous);
    service.remove(&id, false).await.unwrap();
    assert!(list().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bind_mounts_source_is_made_only_when_asked() {
    let service = Service::start().await;
    let source = service.path().join("host/dir");
    let mut request = sh("touch /mnt/from-container");
    request.mounts = vec![mount(
        wire::MountKind::Bind,
        source.to_str().unwrap(),
        "/mnt",
    )];
    let mut with_volume = request.clone();
    let volume = mount(wire::MountKind::Volume, "", "/first");
    with_volume.mounts.insert(0, volume);
    let refused = service.create(with_volume).await.unwrap_err();
    assert_eq!(refused.kind, Kind::InvalidArgument);
    let listed = service
        .volumes()
        .list(wire::ListVolumesRequest::default())
        .await;
    assert!(listed.unwrap().into_inner().volumes.is_empty());
    request.mounts.first_mut().unwrap().create_source = true;
    let id = service.create(request).await.unwrap();
    assert_eq!(service.run_attached(&id, b"").await.unwrap().code, Some(0));
    assert!(source.join("from-container").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_removes_what_nobody_uses() {
    let service = Service::start().await;
    for name in ["", "named"] {
        let request = wire::CreateVolumeRequest {
            name: name.to_owned(),
            ..wire::CreateVolumeRequest::default()
        };
        service.volumes().create(request).await.unwrap();
    }
    let prune = |all| wire::PruneVolumesRequest {
        all,
        ..wire::PruneVolumesRequest::default()
    };
    let pruned = service.volumes().prune(prune(false)).await.unwrap();
    assert_eq!(pruned.into_inner().names.len(), 1);
    let pruned = service.volumes().prune(prune(true)).await.unwrap();
    assert_eq!(pruned.into_inner().names, ["named"]);
}
