//! Credential helpers: programs `docker-credential-<name>` with Docker's protocol on their standard
//! streams. Only absolute directories of `PATH` are searched, never the working directory (J12).

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::DockerConfigError;

/// The most that a helper's answer may hold.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// What helpers say of a host that they do not know (docker-credential-helpers, `credentials/error.go`).
const NOT_FOUND: &str = "credentials not found in native keychain";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The user name and the secret for a host.
pub(super) fn get(
    search: &[PathBuf],
    name: &str,
    key: &str,
) -> Result<Option<(String, String)>, DockerConfigError> {
    let (ok, output) = call(search, name, "get", key)?;
    if !ok {
        if output.trim() == NOT_FOUND {
            return Ok(None);
        }
        return Err(failed(name, output.trim()));
    }
    let answer: Answer =
        serde_json::from_str(&output).map_err(|_| failed(name, "its answer is not understood"))?;
    Ok(Some((answer.username, answer.secret)))
}

/// Keeps a secret.
pub(super) fn store(
    search: &[PathBuf],
    name: &str,
    key: &str,
    user: &str,
    secret: &str,
) -> Result<(), DockerConfigError> {
    let input = serde_json::json!({ "ServerURL": key, "Username": user, "Secret": secret });
    expect(name, call(search, name, "store", &input.to_string())?)
}

/// Forgets a host.
pub(super) fn erase(search: &[PathBuf], name: &str, key: &str) -> Result<(), DockerConfigError> {
    expect(name, call(search, name, "erase", key)?)
}

fn expect(name: &str, (ok, output): (bool, String)) -> Result<(), DockerConfigError> {
    if ok {
        Ok(())
    } else {
        Err(failed(name, output.trim()))
    }
}

fn failed(name: &str, reason: &str) -> DockerConfigError {
    DockerConfigError::HelperFailed {
        name: name.to_owned(),
        reason: reason.chars().take(200).collect(),
    }
}

/// Whether the helper succeeded, and its standard output.
fn call(
    search: &[PathBuf],
    name: &str,
    action: &str,
    input: &str,
) -> Result<(bool, String), DockerConfigError> {
    let program = find(search, name)?;
    let run = || -> std::io::Result<(bool, String)> {
        let mut child = Command::new(program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(input.as_bytes())
                .or_else(ignore_broken_pipe)?;
        }
        let mut output = String::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(ANSWER_BYTES_MAX).read_to_string(&mut output)?;
        }
        Ok((child.wait()?.success(), output))
    };
    run().map_err(|error| failed(name, &error.to_string()))
}

/// A helper may answer before it has read all.
fn ignore_broken_pipe(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}

fn find(search: &[PathBuf], name: &str) -> Result<PathBuf, DockerConfigError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(DockerConfigError::HelperName {
            name: name.to_owned(),
        });
    }
    let file = format!("docker-credential-{name}");
    let executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    search
        .iter()
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(&file))
        .find(|path| executable(path))
        .ok_or_else(|| DockerConfigError::HelperMissing {
            name: name.to_owned(),
        })
}
