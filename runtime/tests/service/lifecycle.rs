//! Create, start, stop, kill, restart, wait, list, inspect, remove, prune.

use orlop_proto::error::{Kind, reason};
use orlop_proto::runtime as wire;

use crate::service::{Service, eventually, of_image, sh};

fn status(state: &wire::ContainerState) -> wire::ContainerStatus {
    state.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_goes_through_its_life() {
    let service = Service::start().await;
    let id = service.create(sh("sleep 100")).await.unwrap();
    assert_eq!(id.len(), 64);
    assert_eq!(
        status(&service.state(&id).await),
        wire::ContainerStatus::Created
    );
    assert!(service.list(false, &[]).await.is_empty());

    service.start_container(&id).await.unwrap();
    service.start_container(&id).await.unwrap();
    let running = service.state(&id).await;
    assert_eq!(status(&running), wire::ContainerStatus::Running);
    assert!(std::path::Path::new(&format!("/proc/{}", running.pid)).exists());
    assert_eq!(service.list(false, &[]).await.len(), 1);
    let strict = wire::StartRequest {
        id: id.clone(),
        strict: true,
    };
    let refused = service.containers().start(strict).await.unwrap_err();
    let refused = orlop_proto::error::Failure::from(refused);
    assert_eq!(refused.reason, reason::ALREADY_RUNNING);

    let in_use = service.remove(&id, false).await.unwrap_err();
    assert_eq!(in_use.reason, reason::IN_USE);
    service.stop(&id, 0).await;
    let exited = service.state(&id).await;
    assert_eq!(status(&exited), wire::ContainerStatus::Exited);
    assert_eq!((exited.exit_code, exited.pid), (137, 0));
    assert!(exited.finished.is_some());

    service.start_container(&id).await.unwrap();
    let request = wire::RestartRequest {
        id: id.clone(),
        timeout: Some(0),
        signal: String::new(),
    };
    service.containers().restart(request).await.unwrap();
    assert_eq!(
        status(&service.state(&id).await),
        wire::ContainerStatus::Running
    );

    service.remove(&id, true).await.unwrap();
    assert_eq!(service.inspect(&id).await.unwrap_err().kind, Kind::NotFound);
    assert!(service.store.snapshots().is_empty());
    let left = std::fs::read_dir(service.path().join("runtime/containers")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_dockers() {
    let service = Service::start().await;
    assert_eq!(service.sh("exit 3").await.code, Some(3));
    assert_eq!(
        service.sh("kill -TERM $$; sleep 1; exit 4").await.code,
        Some(4)
    );
    let id = service
        .launch(sh(
            "trap 'exit 9' TERM; touch /ready; while :; do sleep 0.05; done",
        ))
        .await;
    let ready = service.store.upper(&id).join("ready");
    eventually("the trap is set", async || ready.exists()).await;
    let request = wire::KillRequest {
        id: id.clone(),
        signal: "TERM".to_owned(),
    };
    service.containers().kill(request.clone()).await.unwrap();
    assert_eq!(service.wait(&id).await, 9);
    let late = service.containers().kill(request).await.unwrap_err();
    assert_eq!(
        orlop_proto::error::Failure::from(late).reason,
        reason::NOT_RUNNING
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_run_leaves_the_container_as_it_was() {
    let service = Service::start().await;
    for (command, reason, code) in [
        ("no-such-command", reason::COMMAND_NOT_FOUND, 127),
        ("/etc/not-a-program", reason::COMMAND_NOT_EXECUTABLE, 126),
    ] {
        let id = service
            .create(of_image("busybox", &[command]))
            .await
            .unwrap();
        let error = service.start_container(&id).await.unwrap_err();
        assert_eq!(error.reason, reason, "{error}");
        assert_eq!(error.metadata.get("exit_code"), Some(&code.to_string()));
        let state = service.state(&id).await;
        assert_eq!(status(&state), wire::ContainerStatus::Created);
        assert_eq!(state.exit_code, code);
        assert!(state.error.contains(command), "{}", state.error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_prefixes_and_filters_find_containers() {
    let service = Service::start().await;
    let mut request = sh("true");
    request.name = "web".to_owned();
    request.labels = [("app".to_owned(), "shop".to_owned())].into();
    let id = service.create(request.clone()).await.unwrap();
    let taken = service.create(request).await.unwrap_err();
    assert_eq!(taken.kind, Kind::AlreadyExists);
    assert_eq!(service.inspect("web").await.unwrap().id, id);
    assert_eq!(service.inspect(&id[..6]).await.unwrap().id, id);
    let mut ids = vec![id.clone()];
    for _ in 0..17 {
        ids.push(service.create(sh("true")).await.unwrap());
    }
    let twice = ids
        .iter()
        .find(|a| ids.iter().any(|b| a != &b && a[..1] == b[..1]))
        .unwrap();
    let ambiguous = service.inspect(&twice[..1]).await.unwrap_err();
    assert_eq!(ambiguous.reason, reason::AMBIGUOUS_PREFIX);
    assert_eq!(service.list(true, &[]).await.len(), 18);
    assert_eq!(service.list(true, &[("label", "app=shop")]).await.len(), 1);
    assert_eq!(
        service.list(true, &[("label", "tier=base")]).await.len(),
        18
    );
    let newest = service.list(true, &[]).await;
    assert_eq!(newest.first().unwrap().id, *ids.last().unwrap());
    let pruned = service
        .containers()
        .prune(wire::PruneContainersRequest::default())
        .await;
    let pruned = pruned.unwrap().into_inner();
    assert_eq!((pruned.ids.len(), pruned.bytes), (18, 180));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_before_anything_is_made() {
    let service = Service::start().await;
    let missing = service.create(of_image("absent", &[])).await.unwrap_err();
    assert_eq!(missing.reason, reason::IMAGE_NOT_FOUND);
    let mut labelled = sh("true");
    labelled.security = Some(wire::Security {
        labels: vec!["type:svirt_t".to_owned()],
        ..wire::Security::default()
    });
    assert_eq!(
        service.create(labelled).await.unwrap_err().kind,
        Kind::Unimplemented
    );
    let mut network = sh("true");
    network.network = "../../bin".to_owned();
    assert!(service.create(network).await.is_err());
    assert_eq!(
        service
            .create(of_image("empty", &[]))
            .await
            .unwrap_err()
            .kind,
        Kind::InvalidArgument
    );
    assert!(service.store.snapshots().is_empty());
    let left = std::fs::read_dir(service.path().join("runtime/containers")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_an_image_or_a_mount_over_proc_is_refused() {
    let service = Service::start().await;
    let image = service.create(of_image("hostile", &[])).await.unwrap_err();
    assert_eq!(image.kind, Kind::InvalidArgument);
    for target in ["/", "/proc", "/proc/sys", "/sys", "/dev"] {
        let mut request = sh("true");
        request.mounts = vec![wire::Mount {
            kind: wire::MountKind::Tmpfs.into(),
            target: target.to_owned(),
            ..wire::Mount::default()
        }];
        let refused = service.create(request).await.unwrap_err();
        assert_eq!(refused.kind, Kind::InvalidArgument, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_newlines_in_generated_files_are_refused() {
    let service = Service::start().await;
    let mut hostname = sh("true");
    hostname.hostname = "a\nroot2:x:0:0::/:/bin/sh".to_owned();
    let mut hosts = sh("true");
    hosts.extra_hosts = vec!["db:10.0.0.1\n6.6.6.6 bank".to_owned()];
    let mut home = sh("true");
    home.process = Some(wire::Process {
        env: vec!["HOME=/x\nroot2:x:0:0::/:/bin/sh".to_owned()],
        ..wire::Process::default()
    });
    for request in [hostname, hosts, home] {
        let refused = service.create(request).await.unwrap_err();
        assert_eq!(refused.kind, Kind::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_removed_at_its_exit_leaves_nothing() {
    let service = Service::start().await;
    let mut request = sh("exit 5");
    request.auto_remove = true;
    let id = service.create(request).await.unwrap();
    assert_eq!(service.run_attached(&id, b"").await.unwrap().code, Some(5));
    assert_eq!(service.inspect(&id).await.unwrap_err().kind, Kind::NotFound);
    eventually("its snapshot goes too", async || {
        service.store.snapshots().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_container_is_started_again_as_often_as_its_policy_says() {
    let service = Service::start().await;
    let mut request = sh("echo x >> /count; exit 1");
    request.restart = Some(wire::RestartPolicy {
        name: "on-failure".to_owned(),
        maximum_retries: 2,
    });
    let id = service.launch(request).await;
    eventually("it was restarted twice", async || {
        let state = service.state(&id).await;
        state.restart_count == 2 && status(&state) == wire::ContainerStatus::Exited
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let count = std::fs::read_to_string(service.store.upper(&id).join("count")).unwrap();
    assert_eq!(count.lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_containers_at_once_all_run_and_all_go() {
    let service = std::sync::Arc::new(Service::start().await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let service = std::sync::Arc::clone(&service);
        tasks.spawn(async move {
            let mut request = sh(&format!("echo {n}; exit {n}"));
            request.network = String::new();
            let id = service.create(request).await.unwrap();
            let output = service.run_attached(&id, b"").await.unwrap();
            assert_eq!((output.stdout, output.code), (format!("{n}\n"), Some(n)));
            service.remove(&id, false).await.unwrap();
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined.unwrap();
    }
    assert!(service.list(true, &[]).await.is_empty());
    assert!(service.store.snapshots().is_empty());
}
