//! `--device`, the limits of single devices, and `--ulimit`.

use orlop_proto::runtime::{Device, DeviceLimit, Ulimit};

use super::{invalid, quantity};
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

/// `DEVICE:NUMBER`.
pub(crate) fn limit(option: &'static str, text: &str) -> Result<DeviceLimit, CliError> {
    let fail = || invalid(option, text, "expected DEVICE:NUMBER such as /dev/sda:500");
    let (path, number) = path_and(text).ok_or_else(fail)?;
    Ok(DeviceLimit {
        path: path.to_owned(),
        limit: number.parse().map_err(|_| fail())?,
    })
}

/// `DEVICE:SIZE`.
pub(crate) fn rate(option: &'static str, text: &str) -> Result<DeviceLimit, CliError> {
    let fail = || invalid(option, text, "expected DEVICE:SIZE such as /dev/sda:10mb");
    let (path, size) = path_and(text).ok_or_else(fail)?;
    Ok(DeviceLimit {
        path: path.to_owned(),
        limit: quantity::bytes(option, size)?.unsigned_abs(),
    })
}

fn path_and(text: &str) -> Option<(&str, &str)> {
    text.split_once(':')
        .filter(|(path, _)| path.starts_with('/'))
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
    fn a_limit_of_a_device_is_a_number_or_a_size() {
        let made = limit("--device-read-iops", "/dev/sda:500").unwrap();
        assert_eq!((made.path.as_str(), made.limit), ("/dev/sda", 500));
        let made = rate("--device-read-bps", "/dev/sda:1mb").unwrap();
        assert_eq!((made.path.as_str(), made.limit), ("/dev/sda", 1 << 20));
        for bad in [
            "",
            "/dev/sda",
            "/dev/sda:",
            "sda:1",
            "/dev/sda:-1",
            "/dev/sda:x",
        ] {
            assert!(limit("--device-read-iops", bad).is_err(), "{bad}");
            assert!(rate("--device-read-bps", bad).is_err(), "{bad}");
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
