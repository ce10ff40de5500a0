//! Logins in files and with helpers, in directories of their own.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use orlop_proto::types::Credential;

use super::{DockerConfig, DockerConfigError};

fn config(directory: &Path, text: &str) -> DockerConfig {
    std::fs::write(directory.join("config.json"), text).unwrap();
    DockerConfig::load(Some(directory), &[directory.join("bin")]).unwrap()
}

fn login(registry: &str) -> Credential {
    Credential {
        registry: registry.to_owned(),
        username: "u".to_owned(),
        password: "p:w".to_owned(),
        identity_token: String::new(),
    }
}

fn helper(directory: &Path, name: &str, script: &str) {
    let bin = directory.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let path: PathBuf = bin.join(format!("docker-credential-{name}"));
    // By a process of its own: what another test's thread starts just then would have a file of ours open for
    // writing, and it could not be executed.
    let written = std::process::Command::new("sh")
        .args([
            "-c",
            r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#,
        ])
        .arg(&path)
        .arg(script)
        .status();
    assert!(written.unwrap().success());
}

#[test]
fn g11_a_login_is_kept_for_its_owner_alone_and_unknown_fields_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = config(
        directory.path(),
        r#"{"psFormat":"x","auths":{"other":{"auth":"YTpi"}}}"#,
    );
    kept.store(&login("r:5000")).unwrap();
    let again = DockerConfig::load(Some(directory.path()), &[]).unwrap();
    assert_eq!(again.credential("r:5000").unwrap(), Some(login("r:5000")));
    assert_eq!(again.root["psFormat"], "x");
    assert_eq!(again.credential("other").unwrap().unwrap().password, "b");
    let mode = std::fs::metadata(directory.path().join("config.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_login_is_forgotten_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept = config(directory.path(), "");
    kept.store(&login("docker.io")).unwrap();
    assert!(
        kept.root["auths"]
            .get("https://index.docker.io/v1/")
            .is_some()
    );
    assert!(kept.erase("docker.io").unwrap());
    assert!(!kept.erase("docker.io").unwrap());
}

#[test]
fn g4_only_exactly_the_host_matches() {
    let directory = tempfile::tempdir().unwrap();
    let kept = config(
        directory.path(),
        r#"{"auths":{"registry.example.com":{"auth":"YTpi"}}}"#,
    );
    for other in [
        "registry.example.com.attacker.net",
        "evilregistry.example.com",
        "example.com",
        "registry.example.com:5000",
        "registry.example.com.",
        "a@registry.example.com",
        "REGISTRY.example.com",
    ] {
        assert_eq!(kept.credential(other).unwrap(), None, "{other}");
    }
    assert!(kept.credential("registry.example.com").unwrap().is_some());
}

#[test]
fn a_helper_gives_and_keeps_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let stored = directory.path().join("stored");
    helper(
        directory.path(),
        "fake",
        &format!(
            "case $1 in get) read host; echo \"{{\\\"Username\\\":\\\"u\\\",\\\"Secret\\\":\\\"for-$host\\\"}}\";; \
             store) cat > {};; esac",
            stored.display()
        ),
    );
    let mut kept = config(directory.path(), r#"{"credHelpers":{"r:5000":"fake"}}"#);
    assert_eq!(
        kept.credential("r:5000").unwrap().unwrap().password,
        "for-r:5000"
    );
    assert_eq!(kept.credential("elsewhere").unwrap(), None);
    kept.store(&login("r:5000")).unwrap();
    assert!(std::fs::read_to_string(stored).unwrap().contains("p:w"));
    let text = std::fs::read_to_string(directory.path().join("config.json")).unwrap();
    assert!(
        !text.contains("auth\""),
        "the secret is not in the file: {text}"
    );
}

#[test]
fn g5_a_helper_that_fails_or_is_missing_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    helper(directory.path(), "bad", "echo broken keychain; exit 1");
    let kept = config(
        directory.path(),
        r#"{"credsStore":"bad","auths":{"r":{"auth":"YTpi"}}}"#,
    );
    let error = kept.credential("r").unwrap_err();
    assert!(error.to_string().contains("broken keychain"), "{error}");
    let kept = config(
        directory.path(),
        r#"{"credsStore":"absent","auths":{"r":{"auth":"YTpi"}}}"#,
    );
    let error = kept.credential("r").unwrap_err();
    assert!(
        matches!(error, DockerConfigError::HelperMissing { .. }),
        "{error}"
    );
}

#[test]
fn a_helper_that_knows_no_login_is_none() {
    let directory = tempfile::tempdir().unwrap();
    helper(
        directory.path(),
        "empty",
        "echo credentials not found in native keychain; exit 1",
    );
    let kept = config(directory.path(), r#"{"credsStore":"empty"}"#);
    assert_eq!(kept.credential("r").unwrap(), None);
}

#[test]
fn j12_helpers_come_from_absolute_directories_only() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("config.json"),
        r#"{"credsStore":"x"}"#,
    )
    .unwrap();
    for search in [".", "", "bin"] {
        let kept = DockerConfig::load(Some(directory.path()), &[search.into()]).unwrap();
        assert!(matches!(
            kept.credential("r"),
            Err(DockerConfigError::HelperMissing { .. })
        ));
    }
    std::fs::write(
        directory.path().join("config.json"),
        r#"{"credsStore":"../x"}"#,
    )
    .unwrap();
    let kept = DockerConfig::load(Some(directory.path()), &["/".into()]).unwrap();
    assert!(matches!(
        kept.credential("r"),
        Err(DockerConfigError::HelperName { .. })
    ));
}

#[test]
fn a_file_that_is_not_dockers_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), "[]").unwrap();
    let error = DockerConfig::load(Some(directory.path()), &[]).unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
}
