//! The service goes away and comes back: containers run on, and nothing is lost.

use orlop_proto::runtime as wire;

use crate::service::{Service, eventually, sh};
use crate::streams::{exec, process};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_is_found_again_with_its_pid_and_output() {
    let mut service = Service::start().await;
    let id = service
        .launch(sh(
            "seq 6; until [ -e /go ]; do sleep 0.05; done; seq 6; exit 8",
        ))
        .await;
    let before = service.state(&id).await;
    service.kill();
    service.begin().await;
    let after = service.state(&id).await;
    assert_eq!(after.status(), wire::ContainerStatus::Running);
    assert_eq!((after.pid, after.started), (before.pid, before.started));
    let go = exec(&service, process(&id, &["touch", "/go"])).await;
    assert_eq!(go.unwrap().code, Some(0));
    assert_eq!(service.wait(&id).await, 8);
    let request = wire::LogsRequest {
        id: id.clone(),
        stdout: true,
        ..wire::LogsRequest::default()
    };
    let mut logs = service
        .containers()
        .logs(request)
        .await
        .unwrap()
        .into_inner();
    let mut lines = 0;
    while logs.message().await.unwrap().is_some() {
        lines += 1;
    }
    assert_eq!(lines, 12);
    service.remove(&id, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_that_nobody_saw_is_known_afterwards() {
    let mut service = Service::start().await;
    let id = service.launch(sh("sleep 0.3; exit 11")).await;
    service.kill();
    let directory = service.path().join("runtime/containers").join(&id);
    eventually("it ends", async || directory.join("exit.json").exists()).await;
    service.begin().await;
    let state = service.state(&id).await;
    assert_eq!(state.status(), wire::ContainerStatus::Exited);
    assert_eq!(state.exit_code, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_and_half_made_containers_do_no_harm() {
    let mut service = Service::start().await;
    let id = service.create(sh("true")).await.unwrap();
    service.kill();
    let runtime = service.path().join("runtime");
    std::fs::remove_dir_all(runtime.join("index")).unwrap();
    let half = "f".repeat(64);
    std::fs::create_dir(runtime.join("containers").join(&half)).unwrap();
    service.store.prepare_snapshot(&half);
    service.begin().await;
    assert_eq!(service.list(true, &[]).await.len(), 1);
    assert!(!runtime.join("containers").join(&half).exists());
    assert_eq!(service.store.snapshots(), std::slice::from_ref(&id));
    assert_eq!(service.run_attached(&id, b"").await.unwrap().code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_container_comes_back_with_the_service_only_if_it_is_always_to_run() {
    let mut service = Service::start().await;
    let mut ids = Vec::new();
    for policy in ["always", "unless-stopped", "no"] {
        let mut request = sh("sleep 100");
        request.restart = Some(wire::RestartPolicy {
            name: policy.to_owned(),
            maximum_retries: 0,
        });
        let id = service.launch(request).await;
        service.stop(&id, 0).await;
        ids.push(id);
    }
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert!(service.list(false, &[]).await.is_empty());
    service.kill();
    service.begin().await;
    eventually("one runs", async || {
        !service.list(false, &[]).await.is_empty()
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let running = service.list(false, &[]).await;
    let running: Vec<&String> = running.iter().map(|container| &container.id).collect();
    assert_eq!(running, [ids.first().unwrap()]);
}
