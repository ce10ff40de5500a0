//! What we would otherwise argue about in review, as tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SERVICES: [&str; 4] = [
    "orlop-store",
    "orlop-builder",
    "orlop-runtime",
    "orlop-registry",
];

/// Law: services meet only on the wire.
#[test]
fn no_service_depends_on_a_service_and_the_cli_on_none() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        if !SERVICES.contains(&name) && name != "orlop-cli" {
            continue;
        }
        for dependency in dependencies(&package) {
            assert!(
                !SERVICES.contains(&dependency.as_str()),
                "{name} depends on {dependency}"
            );
            assert!(dependency != "orlop-tests", "{name} depends on the tests");
        }
    }
}

/// The process inside which containers start stays small.
#[test]
fn the_shim_has_no_async_runtime_and_no_grpc() {
    let shim = packages()
        .into_iter()
        .find(|p| p["name"] == "orlop-shim")
        .unwrap();
    let found: BTreeSet<_> = dependencies(&shim).into_iter().collect();
    for banned in [
        "tokio",
        "tonic",
        "prost",
        "tracing",
        "clap",
        "orlop-wire",
        "orlop-proto",
    ] {
        assert!(!found.contains(banned), "orlop-shim depends on {banned}");
    }
}

/// The gRPC layer translates; what is below it can be tested without tonic.
#[test]
fn tonic_is_named_only_where_the_wire_is() {
    let allowed = |path: &str| {
        path.starts_with("proto/")
            || path.starts_with("tests/")
            || path.starts_with("benches/")
            || path.contains("/tests/")
            || path.starts_with("cli/src/")
            || ["/grpc", "/clients", "/server.rs", "/main.rs"]
                .iter()
                .any(|part| path.contains(part))
    };
    let offenders = files_naming("tonic::", |path| !allowed(path));
    assert!(offenders.is_empty(), "tonic in {offenders:?}");
}

/// sled is an index that can be thrown away, so that one file per service knows it.
#[test]
fn sled_is_named_in_one_file_per_service() {
    let offenders = files_naming("sled::", |path| {
        !path.ends_with("/src/index.rs") && !path.starts_with("tests/")
    });
    assert!(offenders.is_empty(), "sled in {offenders:?}");
}

#[test]
fn unsafe_code_is_in_one_crate() {
    let offenders = files_naming("allow(unsafe_code", |path| {
        !path.starts_with("runtime/sys/") && !path.starts_with("tests/")
    });
    assert!(offenders.is_empty(), "unsafe allowed in {offenders:?}");
}

#[test]
fn no_file_is_named_for_nothing() {
    let banned = [
        "utils", "util", "common", "helper", "helpers", "misc", "manager", "impl",
    ];
    let offenders: Vec<_> = sources()
        .into_iter()
        .filter(|path| banned.contains(&path.file_stem().unwrap().to_str().unwrap()))
        .collect();
    assert!(offenders.is_empty(), "{offenders:?}");
}

#[test]
fn every_file_says_what_it_is() {
    for path in sources()
        .into_iter()
        .filter(|path| !path.components().any(|c| c.as_os_str() == "gen"))
    {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//!"),
            "{} has no `//!` header",
            path.display()
        );
    }
}

/// Comments give reasons, not plans: a plan is an issue.
#[test]
fn no_comment_is_a_plan() {
    for word in [
        "TODO",
        "FIXME",
        "XXX",
        "todo!(",
        "unimplemented!(",
        "#[ignore",
    ] {
        let offenders = files_naming(word, |path| !path.ends_with("tests/tidy.rs"));
        assert!(offenders.is_empty(), "{word} in {offenders:?}");
    }
}

/// A file longer than this holds a second noun. The ratchet only goes down.
#[test]
fn files_stay_short() {
    const LINES_MAX: usize = 700;
    for path in sources()
        .into_iter()
        .filter(|path| !path.components().any(|c| c.as_os_str() == "gen"))
    {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

/// No privileged path walk by string, no helper program: services start one program, the shim. Hooks of a
/// bundle are programs of whoever made it; systemd is asked through its own.
#[test]
fn services_start_no_helper_programs() {
    let allowed = |path: &str| {
        ["cli/", "tests/", "benches/", "proto/generate/"]
            .iter()
            .any(|root| path.starts_with(root))
            || path.contains("/tests/")
            || path.contains("/shim.rs")
            || ["runtime/oci/src/hooks.rs", "runtime/oci/src/scope.rs"].contains(&path)
    };
    let offenders = files_naming("Command::new(", |path| !allowed(path));
    assert!(
        offenders.is_empty(),
        "a program is started in {offenders:?}"
    );
}

#[test]
fn the_changelog_has_an_unreleased_section_on_top() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let first = text.lines().find(|line| line.starts_with("## ")).unwrap();
    assert_eq!(first, "## Unreleased");
}

/// The list of rpcs that are in the contracts and not built is the one in `ARCHITECTURE.md`.
#[test]
fn what_is_not_built_is_listed() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut found = 0;
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("unimplemented(\"").skip(1) {
            let rpc = part.split('"').next().unwrap();
            if rpc.contains('.') && rpc.chars().all(|c| c.is_ascii_alphanumeric() || c == '.') {
                assert!(
                    architecture.contains(&format!("`{rpc}`")),
                    "{rpc} is not listed"
                );
                found += 1;
            }
        }
    }
    assert!(
        found > 0,
        "the search for unimplemented rpcs finds none: has its form changed?"
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every Rust file of the workspace, without what a build made.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let tops = [
        "proto", "store", "builder", "runtime", "registry", "cli", "tests", "benches",
    ];
    let mut directories: Vec<_> = tops.iter().map(|top| root().join(top)).collect();
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Paths, relative to the workspace, of files that hold the text outside of comments and are not
/// excused.
fn files_naming(text: &str, judged: impl Fn(&str) -> bool) -> Vec<String> {
    let root = root();
    let names = |path: &Path| {
        let content = fs::read_to_string(path).unwrap();
        content.lines().any(|line| {
            line.contains(text) && (text.len() < 6 || !line.trim_start().starts_with("//"))
        })
    };
    let relative = |path: PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
    let candidates = sources()
        .into_iter()
        .filter(|path| judged(&relative(path.clone())));
    candidates
        .filter(|path| names(path))
        .map(relative)
        .collect()
}

fn packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Names of what a package needs to be built, without what only its tests need.
fn dependencies(package: &serde_json::Value) -> Vec<String> {
    let all = package["dependencies"].as_array().unwrap().iter();
    all.filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}
