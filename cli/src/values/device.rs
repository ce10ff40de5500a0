//! `--device` and `--ulimit`.

use orlop_proto::runtime::{Device, Ulimit};

use super::invalid;
use crate::error::CliError;

/// `HOST[:CONTAINER][:PERMISSIONS]`.
pub(crate) fn device(text: &str) -> Result<Device, CliError> {
    let fail = || invalid("--device", text, "expected HOST[:CONTAINER][:rwm]");
    let is_access = |part: &str| !part.is_empty() && part.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    let (path, target, permissions) = match parts[..] {
        [path] => (path, "", ""),
        [path, access] if is_access(access) => (path, "", access),
        [path, target] if !target.is_empty() => (path, target, ""),
        [path, target, access] if is_access(access) => (path, target, access),
        _ => return Err(fail()),
    };
    let absolute = |path: &str| path.starts_with('/');
    if !absolute(path) || !(target.is_empty() || absolute(target)) {
        return Err(fail());
    }
    Ok(Device {
        path: path.to_owned(),
        target: target.to_owned(),
        permissions: permissions.to_owned(),
    })
}

/// `NAME=SOFT[:HARD]`; -1 for no limit.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, CliError> {
    let fail = |reason: &str| invalid("--ulimit", text, reason);
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| fail("expected NAME=SOFT[:HARD]"))?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| fail("a limit is not a number"))
    };
    Ok(Ulimit {
        name: name.to_owned(),
        soft: number(soft)?,
        hard: number(hard)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_docker_reads_them() {
        let parts = |text: &str| {
            let made = device(text).unwrap();
            (made.path, made.target, made.permissions)
        };
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(parts("/dev/fuse"), owned("/dev/fuse", "", ""));
        assert_eq!(parts("/dev/fuse:rw"), owned("/dev/fuse", "", "rw"));
        assert_eq!(parts("/dev/a:/dev/b"), owned("/dev/a", "/dev/b", ""));
        assert_eq!(parts("/dev/a:/dev/b:r"), owned("/dev/a", "/dev/b", "r"));
        for bad in [
            "",
            "fuse",
            "/dev/a:b",
            "/dev/a:/dev/b:x",
            "/dev/a:/dev/b:r:w",
            "/dev/a:",
        ] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_number_is_both_limits() {
        let made = ulimit("nofile=1024").unwrap();
        assert_eq!((made.soft, made.hard), (1024, 1024));
        let made = ulimit("core=0:-1").unwrap();
        assert_eq!((made.soft, made.hard), (0, -1));
        for bad in ["nofile", "nofile=", "nofile=1:", "nofile=a", "nofile=1:2:3"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}
