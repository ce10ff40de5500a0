//! Building images: what a Dockerfile promises, what is cached, what goes wrong and how it is said.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::Path;

use orlop_tests::{Instance, Outcome};

/// A build context in a directory of its own.
struct Context(tempfile::TempDir);

impl Context {
    fn new(dockerfile: &str) -> Self {
        let context = Self(tempfile::tempdir().unwrap());
        context.write("Dockerfile", dockerfile);
        context
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

fn build(orlop: &Instance, context: &Context, more: &[&str]) -> Outcome {
    let mut args = vec!["build", "--progress=plain", "-t", "app"];
    args.extend(more);
    args.push(context.path());
    orlop.run(&args)
}

fn cached_steps(outcome: &Outcome) -> usize {
    outcome.stderr().matches(" CACHED").count()
}

#[test]
fn a_second_build_is_all_cached_and_gives_the_same_image() {
    let orlop = Instance::with_busybox();
    let context = Context::new(
        "FROM busybox\nWORKDIR /app\nCOPY a.txt .\nRUN cat a.txt > b.txt\nCMD [\"cat\", \"b.txt\"]\n",
    );
    context.write("a.txt", "one\n");
    build(&orlop, &context, &[]).success();
    let first = orlop.inspect("app", "{{.Id}}");
    orlop
        .run(&["run", "--rm", "app"])
        .success()
        .stdout_is("one\n");

    let again = build(&orlop, &context, &[]).success();
    assert!(cached_steps(&again) >= 3, "{}", again.stderr());
    assert_eq!(orlop.inspect("app", "{{.Id}}"), first);

    context.write("a.txt", "two\n");
    build(&orlop, &context, &[]).success();
    orlop
        .run(&["run", "--rm", "app"])
        .success()
        .stdout_is("two\n");
    build(&orlop, &context, &["--no-cache"])
        .success()
        .stderr_has("RUN cat a.txt");
}

/// A changed modification time is not a change; a changed mode is.
#[test]
fn the_cache_goes_by_content_not_by_time() {
    let orlop = Instance::with_busybox();
    let context = Context::new("FROM busybox\nCOPY a.txt /\nRUN echo ran\n");
    context.write("a.txt", "one\n");
    build(&orlop, &context, &[]).success();
    context.write("a.txt", "one\n");
    let touched = build(&orlop, &context, &[]).success();
    assert_eq!(cached_steps(&touched), 3, "{}", touched.stderr());
}

#[test]
fn stages_are_built_when_needed_and_only_then() {
    let orlop = Instance::with_busybox();
    let context = Context::new(
        "FROM busybox AS one\nRUN echo one > /one\n\
         FROM busybox AS two\nRUN echo two > /two\n\
         FROM busybox AS unused\nRUN exit 1\n\
         FROM busybox AS last\nCOPY --from=one /one /\nCOPY --from=1 /two /\nCMD cat /one /two\n",
    );
    build(&orlop, &context, &[]).success();
    orlop
        .run(&["run", "--rm", "app"])
        .success()
        .stdout_is("one\ntwo\n");
    build(&orlop, &context, &["--target", "one"]).success();
    orlop
        .run(&["run", "--rm", "app", "cat", "/one"])
        .success()
        .stdout_is("one\n");
    build(&orlop, &context, &["--target", "nothing"])
        .exits(1)
        .stderr_has("nothing");
}

#[test]
fn arguments_environment_and_metadata_arrive() {
    let orlop = Instance::with_busybox();
    let context = Context::new(
        "ARG BASE=missing\nFROM ${BASE}\nARG GREETING=hello\nENV WHO=world SAID=\"$GREETING there\"\n\
         LABEL kind=test\nMAINTAINER me\nUSER user\nWORKDIR /tmp/here\nEXPOSE 80 53/udp\nVOLUME /data\n\
         STOPSIGNAL SIGINT\nHEALTHCHECK --interval=5s CMD true\nENTRYPOINT [\"sh\", \"-c\"]\n\
         CMD [\"echo $SAID, $WHO; id -un; pwd\"]\n",
    );
    let args = [
        "--build-arg",
        "BASE=busybox",
        "--build-arg",
        "GREETING=good day",
        "--label",
        "x=y",
    ];
    build(&orlop, &context, &args).success();
    orlop
        .run(&["run", "--rm", "app"])
        .success()
        .stdout_is("good day there, world\nuser\n/tmp/here\n");
    assert_eq!(
        orlop.inspect("app", "{{json .Config.Labels}}"),
        r#"{"kind":"test","x":"y"}"#
    );
    assert_eq!(orlop.inspect("app", "{{.Config.StopSignal}}"), "SIGINT");
    assert_eq!(
        orlop.inspect("app", "{{json .Config.ExposedPorts}}"),
        r#"{"53/udp":{},"80/tcp":{}}"#
    );
}

#[test]
fn heredocs_copy_options_add_and_ignore_files() {
    let orlop = Instance::with_busybox();
    let context = Context::new(
        "FROM busybox\nRUN <<EOF\necho from a heredoc > /one\nEOF\n\
         COPY <<EOF /two\ninline\nEOF\n\
         COPY --chown=user:wheel --chmod=640 src /src\nADD files.tar /unpacked/\n\
         COPY . /all\n\
         CMD cat /one /two; stat -c '%U:%G %a' /src/file; ls /unpacked /all\n",
    );
    context.write("src/file", "x");
    context.write("secret/key", "x");
    context.write("notes.md", "x");
    context.write("keep.md", "x");
    context.write(".dockerignore", "secret\n*.md\n!keep.md\n");
    let mut tar =
        tar::Builder::new(fs::File::create(Path::new(context.path()).join("files.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    tar.append_data(&mut header, "in-tar", &b"x\n"[..]).unwrap();
    tar.finish().unwrap();
    drop(tar);

    build(&orlop, &context, &[]).success();
    let out = orlop.run(&["run", "--rm", "app"]).success();
    let out = out
        .stdout_has("from a heredoc\ninline\nuser:wheel 640\n")
        .stdout_has("in-tar")
        .stdout_has("keep.md");
    let out = out.stdout_lacks("secret").stdout_lacks("notes.md");
    drop(out);
}

#[test]
fn onbuild_triggers_run_in_the_child() {
    let orlop = Instance::with_busybox();
    let base = Context::new("FROM busybox\nONBUILD RUN echo triggered > /trigger\n");
    orlop
        .run(&["build", "-q", "-t", "base", base.path()])
        .success();
    let child = Context::new("FROM base\nCMD cat /trigger\n");
    build(&orlop, &child, &[]).success();
    orlop
        .run(&["run", "--rm", "app"])
        .success()
        .stdout_is("triggered\n");
}

#[test]
fn scratch_and_shell_and_quiet_and_iidfile() {
    let orlop = Instance::with_busybox();
    let context = Context::new(
        "FROM busybox AS tools\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN false || true; echo ok > /ok\n\
         FROM scratch\nCOPY --from=tools /bin/busybox /bin/busybox\nCOPY --from=tools /ok /ok\n\
         ENTRYPOINT [\"/bin/busybox\", \"cat\"]\nCMD [\"/ok\"]\n",
    );
    let iidfile = Path::new(context.path()).join("iid");
    let args = [
        "build",
        "-q",
        "--iidfile",
        iidfile.to_str().unwrap(),
        "-t",
        "app",
        context.path(),
    ];
    let id = orlop.run(&args).success().line();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(fs::read_to_string(&iidfile).unwrap().trim(), id);
    orlop
        .run(&["run", "--rm", "app"])
        .success()
        .stdout_is("ok\n");
}

#[test]
fn rawjson_is_one_event_a_line_and_a_dockerfile_may_come_from_standard_input() {
    let orlop = Instance::with_busybox();
    let context = Context::new("FROM missing\n");
    let args = ["build", "--progress=rawjson", "-f", "-", context.path()];
    let outcome = orlop
        .run_with_input(&args, b"FROM busybox\nRUN echo hi\n")
        .success();
    let lines: Vec<_> = outcome.stderr().lines().map(str::to_owned).collect();
    assert!(!lines.is_empty());
    for line in lines {
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
    }
}

#[test]
fn mistakes_show_the_file_the_line_and_what_was_expected() {
    let orlop = Instance::with_busybox();
    for (dockerfile, line, word) in [
        ("FROM busybox\nCOPYY a b\n", "Dockerfile:2", "COPYY a b"),
        ("FROM busybox\nCOPY a\n", "Dockerfile:2", "COPY"),
        ("RUN true\n", "Dockerfile:1", "FROM"),
        (
            "FROM busybox\nRUN --mount=type=cache,target=/x true\n",
            "Dockerfile:2",
            "--mount",
        ),
        (
            "FROM busybox\nADD https://example.com/x /x\n",
            "Dockerfile:2",
            "https",
        ),
        (
            "FROM busybox\nCOPY nothing-there /\n",
            "nothing-there",
            "nothing-there",
        ),
        ("FROM busybox\nENV\n", "Dockerfile:2", "ENV"),
        ("FROM busybox AS UP/ER\n", "Dockerfile:1", "UP/ER"),
        ("", "Dockerfile", "FROM"),
    ] {
        let context = Context::new(dockerfile);
        build(&orlop, &context, &[])
            .exits(1)
            .stderr_has(line)
            .stderr_has(word);
    }
    let none = tempfile::tempdir().unwrap();
    orlop
        .run(&["build", none.path().to_str().unwrap()])
        .exits(1)
        .stderr_has("Dockerfile");
    assert_eq!(orlop.run(&["images", "-q", "app"]).success().line(), "");
}

#[test]
fn a_command_that_fails_says_its_exit_code_and_leaves_no_image() {
    let orlop = Instance::with_busybox();
    let context = Context::new("FROM busybox\nRUN echo before; exit 7\n");
    build(&orlop, &context, &[])
        .exits(1)
        .stderr_has("before")
        .stderr_has("exit code: 7");
    assert_eq!(orlop.run(&["images", "-q", "app"]).success().line(), "");
    assert_eq!(orlop.run(&["ps", "-aq"]).success().line(), "");
}

/// `SECURITY` row E11: credentials in a URL are never repeated.
#[test]
fn e11_credentials_of_a_url_appear_nowhere() {
    let orlop = Instance::with_busybox();
    let context = Context::new("FROM busybox\nADD https://me:hunter2@example.com/x /x\n");
    let outcome = build(&orlop, &context, &[]).exits(1);
    assert!(
        !outcome.stderr().contains("hunter2"),
        "{}",
        outcome.stderr()
    );
    let remote = orlop.run(&["build", "https://me:hunter2@example.com/repo.git"]);
    assert_ne!(remote.code(), 0);
    assert!(!remote.stderr().contains("hunter2"), "{}", remote.stderr());
    for log in fs::read_dir(orlop.root().join("logs")).unwrap() {
        let text = fs::read_to_string(log.unwrap().path()).unwrap();
        assert!(!text.contains("hunter2"));
    }
}
