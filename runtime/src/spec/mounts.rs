//! The mounts of a container, in the order in which they are made.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};
use orlop_proto::runtime::CreateRequest;

use super::Surroundings;
use crate::containers::record::{self, Below, MountKind, Record};
use crate::error::Result;

/// Docker's size of `/dev/shm`.
const SHM_BYTES: i64 = 64 * 1024 * 1024;
const SHM: &str = "/dev/shm";
/// The word of mount(8) for a part of what is mounted.
const SUBPATH: &str = "X-mount.subdir";
/// With the owners as the container's user namespace maps them (OCI runtime specification 1.2).
const MAPPED: &str = "idmap";
/// More propagation than `rprivate` only when asked for.
const PROPAGATION: &str = "rprivate";

/// The kernel's file systems, our files in `/etc`, then what was asked for, parents before children.
pub(super) fn all(record: &Record, around: &Surroundings) -> Result<Vec<Mount>> {
    let shm = record.config.resources.as_ref().map_or(0, |r| r.shm_size);
    let mut mounts = kernel(if shm > 0 { shm } else { SHM_BYTES })?;
    adapt(&mut mounts, &record.config)?;
    let mapped = around.joined.user.is_some();
    for (source, target) in &around.files {
        let asked = record.mounts.iter().any(|mount| mount.target == *target);
        if !asked {
            let mut options = vec!["rbind", "rw", PROPAGATION];
            options.extend(mapped.then_some(MAPPED));
            mounts.push(bind(source.clone(), target, &options)?);
        }
    }
    let mut asked: Vec<&record::Mount> = record.mounts.iter().collect();
    asked.sort_by_key(|mount| mount.target.matches('/').count());
    for mount in asked {
        mounts.push(one(mount, mapped)?);
    }
    Ok(mounts)
}

/// What privileges and shared namespaces change of the kernel's file systems.
fn adapt(mounts: &mut Vec<Mount>, config: &CreateRequest) -> Result<()> {
    if config
        .security
        .as_ref()
        .is_some_and(|security| security.privileged)
    {
        for mount in mounts.iter_mut() {
            let mut options = mount.options().clone().unwrap_or_default();
            options.retain(|option| option != "ro");
            mount.set_options(Some(options));
        }
    }
    let shm = |mount: &Mount| mount.destination() == Path::new(SHM);
    match config.ipc_mode.as_str() {
        "none" => mounts.retain(|mount| !shm(mount)),
        "host" => {
            mounts.retain(|mount| !shm(mount));
            mounts.push(bind(SHM.into(), SHM, &["rbind", "rw", PROPAGATION])?);
        }
        _ => {}
    }
    Ok(())
}

fn kernel(shm_bytes: i64) -> Result<Vec<Mount>> {
    let shm_size = format!("size={shm_bytes}");
    let table: [(&str, &str, &[&str]); 7] = [
        ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        (
            "/dev",
            "tmpfs",
            &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"],
        ),
        (
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        (
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        (
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm_size],
        ),
    ];
    table
        .iter()
        .map(|(target, kind, options)| {
            let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            let source = if *target == SHM { "shm" } else { kind };
            filesystem(target, kind, source, options)
        })
        .collect()
}

fn filesystem(target: &str, kind: &str, source: &str, options: Vec<String>) -> Result<Mount> {
    Ok(MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(options)
        .build()?)
}

fn bind(source: PathBuf, target: &str, options: &[&str]) -> Result<Mount> {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    Ok(MountBuilder::default()
        .destination(target)
        .typ("bind")
        .source(source)
        .options(options)
        .build()?)
}

/// A volume belongs to containers, so that its files have their ids; those of a bind mount are the
/// host's.
fn one(mount: &record::Mount, mapped: bool) -> Result<Mount> {
    match mount.kind {
        MountKind::Tmpfs => filesystem(&mount.target, "tmpfs", "tmpfs", tmpfs_options(mount)),
        MountKind::Bind | MountKind::Volume { .. } => {
            let subpath = format!("{SUBPATH}={}", mount.subpath);
            let mut options = bind_options(mount).to_vec();
            if !mount.subpath.is_empty() {
                options.push(&subpath);
            }
            if mapped && matches!(mount.kind, MountKind::Volume { .. }) {
                options.push(MAPPED);
            }
            bind(mount.source.clone(), &mount.target, &options)
        }
    }
}

/// `rro` is `ro` for all that is mounted below, too.
fn bind_options(mount: &record::Mount) -> [&str; 3] {
    let bind = match mount.below {
        Below::LeftOut => "bind",
        Below::Alike | Below::Writable => "rbind",
    };
    let access = match (mount.read_only, mount.below) {
        (false, _) => "rw",
        (true, Below::Alike) => "rro",
        (true, Below::LeftOut | Below::Writable) => "ro",
    };
    let propagation = match mount.propagation.as_str() {
        "" => PROPAGATION,
        asked => asked,
    };
    [bind, access, propagation]
}

fn tmpfs_options(mount: &record::Mount) -> Vec<String> {
    let mode = if mount.mode == 0 { 0o1777 } else { mount.mode };
    let mut options = vec![
        "nosuid".to_owned(),
        "nodev".to_owned(),
        format!("mode={mode:o}"),
    ];
    if !mount.exec {
        options.push("noexec".to_owned());
    }
    if mount.size > 0 {
        options.push(format!("size={}", mount.size));
    }
    if mount.read_only {
        options.push("ro".to_owned());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use orlop_proto::runtime::Security;

    fn tmpfs(target: &str) -> record::Mount {
        record::Mount {
            kind: MountKind::Tmpfs,
            source: PathBuf::new(),
            target: target.to_owned(),
            read_only: false,
            propagation: String::new(),
            size: 1024,
            mode: 0,
            below: Below::Alike,
            subpath: String::new(),
            exec: false,
        }
    }

    #[test]
    fn a_tmpfs_never_carries_devices_or_setuid_programs() {
        let mut mount = tmpfs("/cache");
        let options = tmpfs_options(&mount);
        assert_eq!(
            options,
            ["nosuid", "nodev", "mode=1777", "noexec", "size=1024"]
        );
        mount.exec = true;
        let options = tmpfs_options(&mount);
        assert_eq!(options, ["nosuid", "nodev", "mode=1777", "size=1024"]);
    }

    #[test]
    fn privileges_and_shared_namespaces_change_the_kernels_file_systems() {
        let adapted = |privileged, ipc_mode: &str| {
            let config = CreateRequest {
                ipc_mode: ipc_mode.to_owned(),
                security: Some(Security {
                    privileged,
                    ..Security::default()
                }),
                ..CreateRequest::default()
            };
            let mut mounts = kernel(SHM_BYTES).unwrap();
            adapt(&mut mounts, &config).unwrap();
            mounts
        };
        let read_only = |mount: &Mount| mount.options().iter().flatten().any(|o| o == "ro");
        assert!(adapted(false, "").iter().any(read_only));
        assert!(!adapted(true, "").iter().any(read_only));
        let shm = |ipc_mode| {
            let mounts = adapted(false, ipc_mode);
            let found = mounts.iter().find(|m| m.destination() == Path::new(SHM));
            found.and_then(|mount| mount.typ().clone())
        };
        assert_eq!(shm("none"), None);
        assert_eq!(shm("host").as_deref(), Some("bind"));
        assert_eq!(shm("container:web").as_deref(), Some("tmpfs"));
    }

    #[test]
    fn a_bind_is_private_unless_asked_otherwise() {
        let mut mount = tmpfs("/data");
        mount.kind = MountKind::Bind;
        mount.source = "/srv".into();
        mount.read_only = true;
        let made = one(&mount, false).unwrap();
        let options = made.options().clone().unwrap();
        assert_eq!(options, ["rbind", "rro", "rprivate"]);
        mount.propagation = "rslave".to_owned();
        let options = one(&mount, false).unwrap().options().clone().unwrap();
        assert!(options.contains(&"rslave".to_owned()));
    }

    #[test]
    fn what_is_mounted_below_a_bind_is_read_only_with_it_unless_asked_otherwise() {
        let mut mount = tmpfs("/data");
        mount.read_only = true;
        let mut words = |below| {
            mount.below = below;
            bind_options(&mount).map(str::to_owned)
        };
        assert_eq!(words(Below::Alike), ["rbind", "rro", "rprivate"]);
        assert_eq!(words(Below::Writable), ["rbind", "ro", "rprivate"]);
        assert_eq!(words(Below::LeftOut), ["bind", "ro", "rprivate"]);
    }

    #[test]
    fn a_part_of_a_volume_is_a_word_of_its_mount() {
        let mut mount = tmpfs("/data");
        mount.kind = MountKind::Bind;
        mount.subpath = "a,b/c".to_owned();
        let options = one(&mount, false).unwrap().options().clone().unwrap();
        assert_eq!(options[3], "X-mount.subdir=a,b/c");
    }

    #[test]
    fn the_kernels_file_systems_are_mounted_as_the_floor_says() {
        let mounts = kernel(SHM_BYTES).unwrap();
        for target in ["/sys", "/sys/fs/cgroup"] {
            let mount = mounts
                .iter()
                .find(|m| m.destination() == std::path::Path::new(target))
                .unwrap();
            assert!(mount.options().clone().unwrap().contains(&"ro".to_owned()));
        }
        for mount in &mounts {
            let options = mount.options().clone().unwrap();
            assert!(options.contains(&"nosuid".to_owned()));
            assert!(options.contains(&"noexec".to_owned()));
        }
    }
}
