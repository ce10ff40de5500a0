//! `--security-opt`, `--sysctl` and `--restart`.

use orlop_proto::runtime::{RestartPolicy, Security};

use super::invalid;
use crate::error::{CliError, file};

/// The largest seccomp profile: Docker's own is 13 kB.
const PROFILE_BYTES_MAX: u64 = 1024 * 1024;

/// Adds one `--security-opt` to what was asked before it.
pub(crate) fn apply(security: &mut Security, text: &str) -> Result<(), CliError> {
    let (key, value) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .unwrap_or((text, ""));
    match (key, value) {
        ("apparmor", name) if !name.is_empty() => name.clone_into(&mut security.apparmor),
        ("label", label) if !label.is_empty() => security.labels.push(label.to_owned()),
        ("systempaths", "unconfined") => security.system_paths = true,
        ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
        ("no-new-privileges", "false") => security.no_new_privileges = false,
        ("seccomp", "unconfined") => "unconfined".clone_into(&mut security.seccomp),
        ("seccomp", "builtin") => security.seccomp.clear(),
        ("seccomp", path) if !path.is_empty() => security.seccomp = profile(path)?,
        _ => {
            return Err(invalid(
                "--security-opt",
                text,
                "there are no-new-privileges[=true|false], seccomp=unconfined, seccomp=builtin, \
                 seccomp=PROFILE.json, apparmor=PROFILE, label=disable and systempaths=unconfined",
            ));
        }
    }
    Ok(())
}

fn profile(path: &str) -> Result<String, CliError> {
    use std::io::Read as _;
    let opened = std::fs::File::open(path).map_err(file("open the seccomp profile", path))?;
    let mut text = String::new();
    let read = opened.take(PROFILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(file("read the seccomp profile", path))?;
    serde_json::from_str::<serde_json::Value>(&text)
        .map_err(|error| invalid("--security-opt", path, format!("it is not JSON: {error}")))?;
    Ok(text)
}

/// `--sysctl NAME=VALUE`.
pub(crate) fn sysctl(text: &str) -> Result<(String, String), CliError> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| invalid("--sysctl", text, "expected NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `no`, `always`, `unless-stopped`, `on-failure[:times]`.
pub(crate) fn restart(text: &str) -> Result<RestartPolicy, CliError> {
    let fail = |reason: &str| invalid("--restart", text, reason);
    let (name, times) = text
        .split_once(':')
        .map_or((text, None), |(n, t)| (n, Some(t)));
    if !matches!(name, "no" | "always" | "unless-stopped" | "on-failure") {
        return Err(fail(
            "there are no, on-failure[:TIMES], always and unless-stopped",
        ));
    }
    let maximum_retries = match times {
        None => 0,
        Some(times) if name == "on-failure" => times
            .parse()
            .map_err(|_| fail("the number of retries is not a number"))?,
        Some(_) => return Err(fail("only on-failure takes a number of retries")),
    };
    Ok(RestartPolicy {
        name: name.to_owned(),
        maximum_retries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_dockers() {
        assert_eq!(restart("on-failure:3").unwrap().maximum_retries, 3);
        assert_eq!(restart("always").unwrap().name, "always");
        for bad in ["", "sometimes", "always:3", "on-failure:x"] {
            assert!(restart(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn security_options_are_known_or_refused() {
        let mut security = Security::default();
        apply(&mut security, "no-new-privileges").unwrap();
        apply(&mut security, "seccomp=unconfined").unwrap();
        apply(&mut security, "apparmor=unconfined").unwrap();
        apply(&mut security, "label:disable").unwrap();
        assert_eq!(security.apparmor, "unconfined");
        assert_eq!(security.labels, ["disable"]);
        apply(&mut security, "systempaths=unconfined").unwrap();
        assert!(security.system_paths);
        assert!(security.no_new_privileges);
        apply(&mut security, "no-new-privileges:false").unwrap();
        assert!(!security.no_new_privileges);
        assert_eq!(security.seccomp, "unconfined");
        for bad in [
            "apparmor",
            "label=",
            "systempaths=open",
            "seccomp=",
            "no-new-privileges=maybe",
        ] {
            assert!(apply(&mut security, bad).is_err(), "{bad}");
        }
    }
}
