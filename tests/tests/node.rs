//! A Dockerfile of the shape that every Node.js project has, on a real Debian with a real interpreter:
//! dependencies are installed again only when `package.json` changes.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::Path;

use orlop_tests::{Instance, Outcome, eventually, fixtures, http};

#[test]
fn editing_a_source_file_runs_only_the_last_copy() {
    let orlop = Instance::start();
    orlop
        .run_with_input(
            &["import", "-", "debian-node"],
            &fixtures::debian_node_rootfs(),
        )
        .success();
    let project = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/node");
    for file in ["Dockerfile", "package.json", "server.js"] {
        fs::copy(example.join(file), project.path().join(file)).unwrap();
    }
    let build = || {
        let args = [
            "build",
            "--progress=plain",
            "-t",
            "node-app",
            project.path().to_str().unwrap(),
        ];
        orlop.run(&args).success()
    };
    assert_eq!(
        ran(&build()),
        [
            "WORKDIR /app",
            "COPY package.json .",
            "RUN node",
            "COPY . ."
        ]
    );
    assert!(ran(&build()).is_empty(), "the second build is all cached");

    let server = project.path().join("server.js");
    let source = fs::read_to_string(&server).unwrap();
    fs::write(&server, source.replace("hello from node", "edited")).unwrap();
    assert_eq!(ran(&build()), ["COPY . ."]);

    let package = fs::read_to_string(project.path().join("package.json")).unwrap();
    fs::write(
        project.path().join("package.json"),
        package.replace("1.0.0", "1.0.1"),
    )
    .unwrap();
    assert_eq!(
        ran(&build()),
        ["COPY package.json .", "RUN node", "COPY . ."]
    );

    orlop
        .run(&[
            "run",
            "-d",
            "--name",
            "node",
            "-p",
            "127.0.0.1:0:3000",
            "node-app",
        ])
        .success();
    let address = orlop.published("node", "3000");
    eventually("node answers", || {
        http::get(address.as_str(), "/").is_some_and(|r| r.text().contains("edited"))
    });
    orlop.run(&["stop", "node"]).success();
    assert_eq!(orlop.inspect("node", "{{.State.ExitCode}}"), "0");
}

/// The steps of a build that were not cached, by the beginning of their instruction.
fn ran(outcome: &Outcome) -> Vec<&'static str> {
    const STEPS: [&str; 4] = [
        "WORKDIR /app",
        "COPY package.json .",
        "RUN node",
        "COPY . .",
    ];
    let text = outcome.stderr();
    let cached: Vec<&str> = text
        .lines()
        .filter(|line| line.ends_with(" CACHED"))
        .collect();
    let is_cached = |step: &&&str| {
        let line = text
            .lines()
            .find(|line| line.contains(&format!("] {step}")))
            .unwrap();
        let number = line.split_whitespace().next().unwrap();
        cached
            .iter()
            .any(|line| line.starts_with(&format!("{number} ")))
    };
    STEPS
        .iter()
        .filter(|step| !is_cached(step))
        .copied()
        .collect()
}
