//! Conformance of `orlop.builder.v1` through a Unix socket, over small fakes of the other services.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code"
)]

mod fakes;
mod session;

use orlop_proto::builder::{
    CacheUsageRequest, ExplainCacheRequest, ListCacheRequest, PruneCacheRequest,
};
use orlop_proto::error::{Kind, reason};
use session::{Session, dir, file, link};

const TWO_STAGES: &str = "FROM base AS build\nWORKDIR /src\nCOPY a.txt .\nRUN make\n\
    FROM base AS unused\nRUN never\nFROM base\nARG TOKEN\nCOPY --from=build /src/out /out\n\
    ENV A=1\nCMD [\"/out\"]\n";

#[tokio::test]
async fn a_second_build_is_all_cached_and_gives_the_same_image() {
    let session = Session::start().await;
    let context = [file("a.txt", "hello"), file("big", &"x".repeat(3_000_000))];
    let first = session.build(TWO_STAGES, &context).await.unwrap();
    assert_eq!(first.result.steps, 5, "both stages begin with one step");
    assert!(first.result.cached_steps < first.result.steps);
    assert_eq!(session.store.commands(), ["/bin/sh -c make"]);
    assert_eq!(first.sent, ["a.txt"]);
    let second = session.build(TWO_STAGES, &context).await.unwrap();
    assert_eq!(second.result.image_id, first.result.image_id);
    assert_eq!(second.result.cached_steps, second.result.steps);
    assert!(second.sent.is_empty() && second.hashed.is_empty());
    assert_eq!(session.store.commands().len(), 1);
}

#[tokio::test]
async fn a_changed_file_makes_again_what_depends_on_it() {
    let session = Session::start().await;
    let text = "FROM base\nCOPY a .\nRUN one\nCOPY b .\n";
    let first = session
        .build(text, &[file("a", "1"), file("b", "1")])
        .await
        .unwrap();
    let second = session
        .build(text, &[file("a", "1"), file("b", "2")])
        .await
        .unwrap();
    assert_eq!(second.sent, ["b"]);
    assert_eq!(second.result.cached_steps, 3);
    assert_eq!(session.store.commands().len(), 1);
    assert_ne!(first.result.image_id, second.result.image_id);
    session
        .build(text, &[file("a", "3"), file("b", "2")])
        .await
        .unwrap();
    assert_eq!(session.store.commands().len(), 2);
}

#[tokio::test]
async fn a_large_file_travels_in_pieces() {
    let session = Session::start().await;
    let text = "FROM base\nCOPY big /\n";
    let big = "y".repeat(3_000_000);
    session.build(text, &[file("big", &big)]).await.unwrap();
    assert!(session.store.has_blob(big.as_bytes()));
}

#[tokio::test]
async fn the_configuration_is_what_the_dockerfile_says() {
    let session = Session::start().await;
    let text = "FROM base\nENV A=1 B=\"two words\"\nLABEL l=\"$B\"\nEXPOSE 80 53/udp\nUSER app\n\
        WORKDIR /w\nWORKDIR sub\nVOLUME /data\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"e\"]\nCMD run it\n\
        HEALTHCHECK --interval=30s CMD check\nONBUILD RUN later\nMAINTAINER me\n";
    let built = session.build(text, &[]).await.unwrap();
    let document = session.store.json(&built.result.image_id);
    let config = &document["config"];
    assert_eq!(
        config["Env"],
        serde_json::json!(["PATH=/bin", "A=1", "B=two words"])
    );
    assert_eq!(config["Labels"]["l"], "two words");
    assert!(config["ExposedPorts"]["53/udp"].is_object());
    assert_eq!(config["WorkingDir"], "/w/sub");
    assert_eq!(
        config["Cmd"],
        serde_json::json!(["/bin/sh", "-c", "run it"])
    );
    assert_eq!(config["Healthcheck"]["Interval"], 30_000_000_000_u64);
    assert_eq!(config["OnBuild"], serde_json::json!(["RUN later"]));
    assert_eq!(document["author"], "me");
    let history = document["history"].as_array().unwrap();
    let layers = history
        .iter()
        .filter(|entry| entry["empty_layer"] != true)
        .count();
    assert_eq!(
        layers,
        document["rootfs"]["diff_ids"].as_array().unwrap().len()
    );
}

#[tokio::test]
async fn a_failed_command_says_its_code_and_leaves_nothing() {
    let session = Session::start().await;
    let failure = session
        .build("FROM base\nRUN fail 3\n", &[])
        .await
        .unwrap_err();
    assert_eq!(failure.kind, Kind::FailedPrecondition);
    assert_eq!(failure.reason, reason::COMMAND_FAILED);
    assert_eq!(failure.metadata["exit_code"], "3");
    assert!(
        failure
            .message
            .contains("did not complete successfully: exit code: 3")
    );
    session.store.eventually_no_active_snapshot().await;
}

#[tokio::test]
async fn a_mistake_shows_its_line() {
    let session = Session::start().await;
    let failure = session
        .build("FROM base\n\nCOPYY a b\n", &[])
        .await
        .unwrap_err();
    assert_eq!(failure.reason, reason::DOCKERFILE_ERROR);
    assert_eq!(
        failure.message,
        "Dockerfile:3\n  3 | COPYY a b\n    | ^^^^^ unknown instruction; did you mean COPY?"
    );
    let failure = session
        .build("FROM base\nCOPY x /\n", &[])
        .await
        .unwrap_err();
    assert!(failure.message.contains("Dockerfile:2"));
    assert!(
        failure
            .message
            .contains("\"x\" not found in the build context")
    );
}

#[tokio::test]
async fn a_base_image_that_nobody_has_is_not_found() {
    let session = Session::start().await;
    let failure = session.build("FROM nobody\n", &[]).await.unwrap_err();
    assert_eq!(failure.kind, Kind::NotFound);
    assert!(failure.message.contains("nobody"), "{}", failure.message);
}

#[tokio::test]
async fn equal_steps_of_two_builds_are_done_once() {
    let session = Session::start().await;
    let text = "FROM base\nRUN slow\n";
    let (a, b) = tokio::join!(session.build(text, &[]), session.build(text, &[]));
    assert_eq!(a.unwrap().result.image_id, b.unwrap().result.image_id);
    assert_eq!(session.store.commands().len(), 1);
}

#[tokio::test]
async fn cancelling_a_build_kills_its_command() {
    let session = Session::start().await;
    session.cancelled("FROM base\nRUN forever\n").await;
    session.store.eventually_no_active_snapshot().await;
    assert_eq!(session.store.running(), 0);
}

#[tokio::test]
async fn the_cache_is_listed_counted_and_pruned() {
    let session = Session::start().await;
    session
        .build("FROM base\nRUN one\nRUN two\n", &[])
        .await
        .unwrap();
    let mut cache = session.cache();
    let usage = cache
        .usage(CacheUsageRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(usage.records, 2);
    let mut list = cache.list(ListCacheRequest {}).await.unwrap().into_inner();
    let record = list.message().await.unwrap().unwrap();
    assert!(record.description.contains("RUN"));
    let pruned = cache
        .prune(PruneCacheRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(pruned.records, 2);
    let again = session
        .build("FROM base\nRUN one\nRUN two\n", &[])
        .await
        .unwrap();
    assert_eq!(again.result.cached_steps, 1);
    let status = cache
        .explain(ExplainCacheRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn e9_a_context_that_leaves_its_root_is_refused() {
    let session = Session::start().await;
    for context in [
        vec![file("../x", "")],
        vec![file("/etc/passwd", "")],
        vec![link("d", "/etc"), file("d/passwd", "")],
        vec![dir("d"), file("d", "")],
        vec![file("orphan/x", "")],
    ] {
        let failure = session
            .build("FROM base\nCOPY . /\n", &context)
            .await
            .unwrap_err();
        assert_eq!(failure.kind, Kind::InvalidArgument, "{}", failure.message);
    }
}

#[tokio::test]
async fn e11_secrets_in_urls_and_unused_arguments_are_kept_nowhere() {
    let session = Session::start().await;
    let text = "FROM base\nARG TOKEN\nRUN fetch https://user:hunter2@host/x\nRUN other\n";
    let built = session
        .build_with(text, &[], &[("TOKEN", "s3cr3t")])
        .await
        .unwrap();
    let document = session.store.json(&built.result.image_id).to_string();
    let mut texts = vec![document, built.events];
    let mut list = session
        .cache()
        .list(ListCacheRequest {})
        .await
        .unwrap()
        .into_inner();
    while let Some(record) = list.message().await.unwrap() {
        texts.push(format!("{record:?}"));
    }
    texts.push(session.state_on_disk());
    let refused = "FROM base\nADD https://user:hunter2@host/x /\n";
    texts.push(session.build(refused, &[]).await.unwrap_err().message);
    for text in texts {
        assert!(
            !text.contains("hunter2") && !text.contains("s3cr3t"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn e21_a_base_image_that_contradicts_itself_is_an_error() {
    let session = Session::start().await;
    for (name, change) in [
        ("nil", r#"{"history":[null]}"#),
        ("more", r#"{"history":[{},{},{}]}"#),
        ("fewer", r#"{"history":[{"empty_layer":true}]}"#),
        ("rootfs", r#"{"rootfs":null}"#),
        ("ids", r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#),
    ] {
        session.store.add_broken_image(name, change);
        let failure = session
            .build(&format!("FROM {name}\nRUN x\n"), &[])
            .await
            .unwrap_err();
        assert_eq!(
            failure.kind,
            Kind::InvalidArgument,
            "{name}: {}",
            failure.message
        );
    }
}
