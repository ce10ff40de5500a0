//! What a container may do with devices, beside those that every container has.

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};
use orlop_proto::runtime::{CreateRequest, Device};

use super::{resources, validate};
use crate::devices::HostDevice;
use crate::error::{Error, Result};

const DEVICES_MAX: usize = 256;

/// Judges what was asked for, without looking at the host.
pub(super) fn check(config: &CreateRequest) -> Result<()> {
    if config.devices.len() > DEVICES_MAX || config.device_cgroup_rules.len() > DEVICES_MAX {
        return Err(Error::invalid("device", "too many of them"));
    }
    config.devices.iter().try_for_each(device)?;
    config
        .device_cgroup_rules
        .iter()
        .try_for_each(|text| rule(text).map(drop))
}

fn device(device: &Device) -> Result<()> {
    validate::absolute("device", &device.path)?;
    let target = target(device);
    validate::absolute("device", &target)?;
    if !target.starts_with("/dev/") {
        let problem = format!("{target}: a container has devices below /dev only");
        return Err(Error::invalid("device", problem));
    }
    access(&device.permissions).map(drop)
}

/// Where it is in the container.
pub fn target(device: &Device) -> String {
    let asked = match device.target.as_str() {
        "" => &device.path,
        target => target,
    };
    validate::normalize(asked)
}

/// Some of `r`, `w` and `m`, each once; all of them where none is said.
pub fn access(text: &str) -> Result<String> {
    if text.is_empty() {
        return Ok("rwm".to_owned());
    }
    let once = |c: char| text.matches(c).count() <= 1;
    if text.chars().all(|c| "rwm".contains(c) && once(c)) {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(16).collect();
    let problem = format!("the permissions {shown:?}: expected some of r, w and m");
    Err(Error::invalid("device", problem))
}

/// `c 10:200 rwm`, `b 8:* r` or `a *:* rwm`.
fn rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let bad = || {
        let shown: String = text.chars().take(64).collect();
        let problem = format!("{shown:?}: expected a rule such as \"c 10:200 rwm\"");
        Error::invalid("device cgroup rule", problem)
    };
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = parts[..] else {
        return Err(bad());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let (major, minor) = (
        number(major).ok_or_else(bad)?,
        number(minor).ok_or_else(bad)?,
    );
    let kind = match kind {
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        // The kernel takes "a" for everything, whatever comes behind it.
        "a" if (major, minor, access) == (None, None, "rwm") => LinuxDeviceType::A,
        _ => return Err(bad()),
    };
    if access.is_empty() {
        return Err(bad());
    }
    allow(
        kind,
        major,
        minor,
        &self::access(access).map_err(|_| bad())?,
    )
}

/// A number, or `None` for any.
fn number(text: &str) -> Option<Option<i64>> {
    if text == "*" {
        return Some(None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = text.parse().ok().filter(|_| digits)?;
    Some(Some(i64::from(number)))
}

fn allow(
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup> {
    let mut rule = LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(kind)
        .access(access)
        .build()?;
    rule.set_major(major).set_minor(minor);
    Ok(rule)
}

/// All rules of a container: deny, then allow what every container has and what was asked for.
pub(super) fn rules(
    config: &CreateRequest,
    found: &[HostDevice],
) -> Result<Vec<LinuxDeviceCgroup>> {
    let security = config.security.as_ref();
    if security.is_some_and(|security| security.privileged) {
        return Ok(vec![allow(LinuxDeviceType::A, None, None, "rwm")?]);
    }
    let mut rules = resources::devices()?;
    for device in found {
        let (major, minor) = (Some(device.major.into()), Some(device.minor.into()));
        rules.push(allow(device.kind, major, minor, &device.access)?);
    }
    for text in &config.device_cgroup_rules {
        rules.push(rule(text)?);
    }
    Ok(rules)
}

/// The devices that the shim makes.
pub(super) fn list(found: &[HostDevice]) -> Result<Vec<LinuxDevice>> {
    let one = |device: &HostDevice| {
        Ok(LinuxDeviceBuilder::default()
            .path(&device.target)
            .typ(device.kind)
            .major(device.major)
            .minor(device.minor)
            .file_mode(device.mode)
            .uid(device.uid)
            .gid(device.gid)
            .build()?)
    };
    found.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_docker_reads_them() {
        let made = rule("c 10:* rw").unwrap();
        assert_eq!((made.major(), made.minor()), (Some(10), None));
        assert_eq!(made.access().as_deref(), Some("rw"));
        rule("a *:* rwm").unwrap();
        for bad in [
            "",
            "c",
            "c 1:3",
            "c 1:3 x",
            "c 1:3 rr",
            "c 1 rwm",
            "c -1:3 r",
            "c +1:3 r",
            "d 1:3 r",
            "a 1:3 r",
            "c 1:3  r",
            "c 1:3 r w",
            "c 1:99999999999 r",
            "c 1:3 r\nb *:* rwm",
        ] {
            assert!(rule(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn b24_only_what_was_asked_for_is_allowed_behind_the_denial() {
        let device = HostDevice {
            kind: LinuxDeviceType::B,
            major: 7,
            minor: 0,
            mode: 0o660,
            uid: 0,
            gid: 6,
            target: "/dev/loop0".to_owned(),
            access: "r".to_owned(),
        };
        let config = CreateRequest {
            device_cgroup_rules: vec!["c 10:200 rwm".to_owned()],
            ..CreateRequest::default()
        };
        let base = rules(&CreateRequest::default(), &[]).unwrap();
        let rules = rules(&config, &[device]).unwrap();
        assert!(!rules[0].allow());
        assert_eq!(rules.len(), base.len() + 2);
        assert_eq!(rules[base.len()].access().as_deref(), Some("r"));
    }

    #[test]
    fn a_device_is_asked_for_by_paths_below_dev() {
        let asked = |path: &str, target: &str, permissions: &str| Device {
            path: path.to_owned(),
            target: target.to_owned(),
            permissions: permissions.to_owned(),
        };
        device(&asked("/dev/fuse", "", "")).unwrap();
        device(&asked("/srv/disk", "/dev/disk", "rw")).unwrap();
        for bad in [
            asked("dev/fuse", "", ""),
            asked("/dev/fuse", "/fuse", ""),
            asked("/dev/fuse", "/dev/../etc/x", ""),
            asked("/dev/fuse", "/dev", ""),
            asked("/dev/fuse", "", "rx"),
            asked("/dev/fuse", "", "rr"),
        ] {
            assert!(device(&bad).is_err(), "{bad:?}");
        }
    }
}
