//! Attach, exec, run, logs.

use orlop_proto::error::{Failure, Kind, reason};
use orlop_proto::runtime as wire;
use orlop_proto::runtime::create_request::Root;
use orlop_proto::runtime::exec_request::Message as ExecIn;
use orlop_proto::runtime::exec_response::Message as ExecOut;

use crate::service::{Output, Service, collect, eventually, sh};

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_start_loses_no_output() {
    let service = Service::start().await;
    let output = service
        .sh("echo out; echo err >&2; seq 1 2000 | tail -n 1; exit 7")
        .await;
    let expected = Output {
        stdout: "out\n2000\n".to_owned(),
        stderr: "err\n".to_owned(),
        code: Some(7),
    };
    assert_eq!(output, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_arrives_and_ends() {
    let service = Service::start().await;
    let mut request = sh("cat; echo done");
    request.open_stdin = true;
    let id = service.create(request).await.unwrap();
    let output = service.run_attached(&id, b"hello\n").await.unwrap();
    assert_eq!(output.stdout, "hello\ndone\n");
    assert_eq!(output.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_knows_who_and_where_it_is() {
    let service = Service::start().await;
    let mut request = sh("hostname; cat /etc/hostname; echo $A; pwd; cat /etc/hosts");
    request.hostname = "ship".to_owned();
    request.extra_hosts = vec!["db:10.0.0.5".to_owned()];
    request.process = Some(wire::Process {
        cwd: "/made/for/me".to_owned(),
        env: vec!["A=mine".to_owned()],
        ..wire::Process::default()
    });
    let id = service.create(request).await.unwrap();
    let output = service.run_attached(&id, b"").await.unwrap();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(
        lines.get(..4).unwrap(),
        ["ship", "ship", "mine", "/made/for/me"]
    );
    assert!(output.stdout.contains("10.0.0.5"), "{output:?}");
}

pub(crate) async fn exec(service: &Service, start: wire::ExecStart) -> Result<Output, Failure> {
    let first = wire::ExecRequest {
        message: Some(ExecIn::Start(start)),
    };
    let requests = futures_util::stream::iter([first]);
    let mut answers = service.containers().exec(requests).await?.into_inner();
    let mut output = Output::default();
    while let Some(answer) = answers.message().await? {
        match answer.message.unwrap() {
            ExecOut::Started(started) => assert!(started.pid > 0),
            ExecOut::Stdout(bytes) => output.stdout.push_str(&String::from_utf8_lossy(&bytes)),
            ExecOut::Stderr(bytes) => output.stderr.push_str(&String::from_utf8_lossy(&bytes)),
            ExecOut::Exited(exited) => output.code = Some(exited.code),
        }
    }
    Ok(output)
}

pub(crate) fn process(id: &str, args: &[&str]) -> wire::ExecStart {
    wire::ExecStart {
        id: id.to_owned(),
        process: Some(wire::Process {
            args: args.iter().map(|s| (*s).to_owned()).collect(),
            ..wire::Process::default()
        }),
        ..wire::ExecStart::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_runs_beside_the_command_with_its_variables() {
    let service = Service::start().await;
    let id = service.launch(sh("echo $$ > /tmp/pid; sleep 100")).await;
    let output = exec(&service, process(&id, &["sh", "-c", "echo $A; exit 6"]))
        .await
        .unwrap();
    assert_eq!((output.stdout.as_str(), output.code), ("image\n", Some(6)));
    let missing = exec(&service, process(&id, &["no-such"]))
        .await
        .unwrap_err();
    assert_eq!(missing.reason, reason::COMMAND_NOT_FOUND);
    let mut detached = process(&id, &["sh", "-c", "sleep 0.2; touch /tmp/late"]);
    detached.detach = true;
    assert_eq!(exec(&service, detached).await.unwrap().code, None);
    let late = service.store.upper(&id).join("tmp/late");
    eventually("it goes on by itself", async || late.exists()).await;
    service.stop(&id, 0).await;
    let stopped = exec(&service, process(&id, &["true"])).await.unwrap_err();
    assert_eq!(stopped.reason, reason::NOT_RUNNING);
}

fn one_shot(snapshot: &str, script: &str) -> wire::RunRequest {
    let mut create = sh("");
    create.command.clear();
    create.root = Some(Root::Snapshot(snapshot.to_owned()));
    create.process = Some(wire::Process {
        args: ["sh", "-c", script].map(str::to_owned).into(),
        ..wire::Process::default()
    });
    wire::RunRequest {
        create: Some(create),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_is_gone_when_its_call_ends_and_its_snapshot_stays() {
    let service = Service::start().await;
    service.store.prepare_snapshot("build-1");
    let answers = service
        .containers()
        .run(one_shot("build-1", "echo built > /result; echo ok"))
        .await;
    let output = collect(answers.unwrap().into_inner()).await.unwrap();
    assert_eq!((output.stdout.as_str(), output.code), ("ok\n", Some(0)));
    let result = service.store.upper("build-1").join("result");
    assert_eq!(std::fs::read_to_string(result).unwrap(), "built\n");
    assert!(service.list(true, &[]).await.is_empty());
    let left = std::fs::read_dir(service.path().join("runtime/containers")).unwrap();
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_dies_when_its_caller_goes_away() {
    let service = Service::start().await;
    service.store.prepare_snapshot("build-2");
    let answers = service
        .containers()
        .run(one_shot("build-2", "sleep 100"))
        .await;
    drop(answers.unwrap());
    let containers = service.path().join("runtime/containers");
    eventually("the container goes", async || {
        std::fs::read_dir(&containers).unwrap().count() == 0
    })
    .await;
}

async fn logs(service: &Service, request: wire::LogsRequest) -> Vec<(wire::StreamKind, String)> {
    let mut answers = service
        .containers()
        .logs(request)
        .await
        .unwrap()
        .into_inner();
    let mut lines = Vec::new();
    while let Some(line) = answers.message().await.unwrap() {
        assert!(line.time.is_some());
        lines.push((
            line.stream(),
            String::from_utf8_lossy(&line.data).into_owned(),
        ));
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_tell_what_was_written_and_follow_until_the_end() {
    let service = Service::start().await;
    let script = "echo one; echo two >&2; sleep 0.3; seq 1 500; echo end";
    let id = service.launch(sh(script)).await;
    let all = wire::LogsRequest {
        id: id.clone(),
        follow: true,
        stdout: true,
        stderr: true,
        ..wire::LogsRequest::default()
    };
    let lines = logs(&service, all.clone()).await;
    assert_eq!(lines.len(), 503);
    assert_eq!(lines.last().unwrap().1, "end\n");
    assert!(lines.contains(&(wire::StreamKind::Stderr, "two\n".to_owned())));
    let tail = wire::LogsRequest {
        tail: Some(2),
        follow: false,
        ..all.clone()
    };
    assert_eq!(logs(&service, tail).await.len(), 2);
    let errors = wire::LogsRequest {
        stdout: false,
        ..all
    };
    assert_eq!(logs(&service, errors).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_does_not_outlive_the_service() {
    for graceful in [true, false] {
        let mut service = Service::start().await;
        service.store.prepare_snapshot("build-3");
        let answers = service
            .containers()
            .run(one_shot("build-3", "sleep 100"))
            .await
            .unwrap();
        if graceful {
            service.terminate();
        } else {
            service.kill();
            service.begin().await;
        }
        let left = std::fs::read_dir(service.path().join("runtime/containers")).unwrap();
        assert_eq!(left.count(), 0, "graceful: {graceful}");
        drop(answers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_resized_and_an_unknown_container_is_not() {
    let service = Service::start().await;
    let mut request = sh("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.05; done; exit 9");
    request.process = Some(wire::Process {
        tty: true,
        ..wire::Process::default()
    });
    let id = service.launch(request).await;
    let resize = |id: &str| wire::ResizeRequest {
        id: id.to_owned(),
        size: Some(wire::WindowSize {
            rows: 40,
            columns: 100,
        }),
    };
    service.containers().resize(resize(&id)).await.unwrap();
    assert_eq!(service.wait(&id).await, 9);
    let unknown = service.containers().resize(resize("unknown")).await;
    let failure = Failure::from(unknown.unwrap_err());
    assert_eq!(failure.kind, Kind::NotFound);
}
