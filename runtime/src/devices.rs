//! Devices of the host, as a container is to have them. `/dev` is root's, so it is walked by name.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use oci_spec::runtime::LinuxDeviceType;
use orlop_proto::runtime::{Device, Resources};

use crate::error::{Error, Result};
use crate::spec::devices::{access, target};
use crate::spec::resources::device_limits;

/// Devices that one directory may mean.
const DEVICES_MAX: usize = 4096;
/// Directories below one another.
const DEPTH_MAX: usize = 8;
/// What each container has of its own (the list of Docker and runc).
const OWN: [&str; 9] = [
    "console",
    "fd",
    "mqueue",
    "ptmx",
    "pts",
    "shm",
    ".lxc",
    ".lxd-mounts",
    ".udev",
];

/// One device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Block or character.
    pub kind: LinuxDeviceType,
    /// Its driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Path in the container.
    pub target: String,
    /// Some of `r`, `w` and `m`.
    pub access: String,
}

/// Every device of the host, for a privileged container.
pub fn all() -> Result<Vec<HostDevice>> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), "/dev", "rwm", DEPTH_MAX, &mut found)?;
    Ok(found)
}

/// What one `--device` means: a device, or those below a directory.
pub fn requested(device: &Device) -> Result<Vec<HostDevice>> {
    let path = Path::new(&device.path);
    let (target, access) = (target(device), access(&device.permissions)?);
    let metadata = fs::metadata(path).map_err(Error::file("use the device", path))?;
    let mut found = Vec::new();
    if metadata.is_dir() {
        collect(path, &target, &access, DEPTH_MAX, &mut found)?;
    }
    found.extend(of(&metadata, target, &access));
    if found.is_empty() {
        let problem = format!(
            "{}: it is no device, nor a directory of devices",
            device.path
        );
        return Err(Error::invalid("device", problem));
    }
    Ok(found)
}

/// Disks by their paths: major and minor number.
pub type Disks = HashMap<String, (u32, u32)>;

/// The disks that limits are asked for.
pub fn disks(limits: &Resources) -> Result<Disks> {
    let one = |path: &str| {
        let metadata = fs::metadata(path).map_err(Error::file("use the device", path))?;
        if !metadata.file_type().is_block_device() {
            let problem = format!("{path}: only block devices have limits");
            return Err(Error::invalid("device", problem));
        }
        let numbers = metadata.rdev();
        let numbers = (rustix::fs::major(numbers), rustix::fs::minor(numbers));
        Ok((path.to_owned(), numbers))
    };
    device_limits(limits)
        .map(|limit| one(&limit.path))
        .collect()
}

fn collect(
    directory: &Path,
    target: &str,
    access: &str,
    depth: usize,
    found: &mut Vec<HostDevice>,
) -> Result<()> {
    let entries = fs::read_dir(directory).map_err(Error::file("list", directory))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        // Links stay behind: what they lead to is listed at its own place, if it is here.
        let (Some(name), Ok(metadata)) = (name.to_str(), entry.metadata()) else {
            continue;
        };
        if OWN.contains(&name) || found.len() >= DEVICES_MAX {
            continue;
        }
        let target = format!("{target}/{name}");
        if metadata.is_dir() && depth > 1 {
            collect(&entry.path(), &target, access, depth - 1, found)?;
        }
        found.extend(of(&metadata, target, access));
    }
    Ok(())
}

fn of(metadata: &Metadata, target: String, access: &str) -> Option<HostDevice> {
    let kind = match metadata.file_type() {
        kind if kind.is_block_device() => LinuxDeviceType::B,
        kind if kind.is_char_device() => LinuxDeviceType::C,
        _ => return None,
    };
    let device = metadata.rdev();
    Some(HostDevice {
        kind,
        major: rustix::fs::major(device),
        minor: rustix::fs::minor(device),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        target,
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use orlop_proto::runtime::DeviceLimit;

    use super::*;

    fn asked(path: &str, target: &str) -> Device {
        Device {
            path: path.to_owned(),
            target: target.to_owned(),
            permissions: String::new(),
        }
    }

    #[test]
    fn a_device_is_found_by_its_path() {
        let found = requested(&asked("/dev/null", "/dev/nothing")).unwrap();
        let [null] = &found[..] else { unreachable!() };
        assert_eq!(
            (null.kind, null.major, null.minor),
            (LinuxDeviceType::C, 1, 3)
        );
        assert_eq!(null.target, "/dev/nothing");
        assert!(requested(&asked("/dev/no-such-device", "")).is_err());
        assert!(requested(&asked("/etc/passwd", "/dev/passwd")).is_err());
    }

    #[test]
    fn only_disks_have_limits() {
        let asked = |path: &str| Resources {
            device_read_bps: vec![DeviceLimit {
                path: path.to_owned(),
                limit: 1,
            }],
            ..Resources::default()
        };
        for path in ["/dev/null", "/dev/no-such-device"] {
            let error = disks(&asked(path)).unwrap_err();
            assert!(error.to_string().contains(path), "{error}");
        }
        assert_eq!(disks(&Resources::default()).unwrap(), Disks::new());
    }

    #[test]
    fn all_devices_are_found_but_what_each_container_has_of_its_own() {
        let all = all().unwrap();
        assert!(all.iter().any(|device| device.target == "/dev/null"));
        assert!(
            !all.iter()
                .any(|device| device.target.starts_with("/dev/pts"))
        );
    }
}
