//! `--volume`, `--mount` and `--tmpfs`.

use std::path::Path;

use orlop_proto::runtime::{BelowBind, Mount, MountKind};

use super::{invalid, pair, quantity};
use crate::error::CliError;

const PROPAGATIONS: [&str; 6] = [
    "rprivate", "private", "rslave", "slave", "rshared", "shared",
];

/// `[SOURCE:]TARGET[:OPTIONS]`; a source with a slash or beginning with a dot is a path of the host,
/// another one is the name of a volume.
pub(crate) fn volume(text: &str) -> Result<Mount, CliError> {
    let fail = |reason: &str| invalid("--volume", text, reason);
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(fail("expected [SOURCE:]TARGET[:OPTIONS]")),
    };
    if !target.starts_with('/') {
        return Err(fail("the target must be an absolute path"));
    }
    if parts.len() > 1 && source.is_empty() {
        return Err(fail("the source is empty"));
    }
    let bind = source.starts_with(['/', '.', '~']) || source.contains('/');
    let mut mount = Mount {
        kind: if bind {
            MountKind::Bind
        } else {
            MountKind::Volume
        }
        .into(),
        source: if bind {
            absolute(source)?
        } else {
            source.to_owned()
        },
        target: target.to_owned(),
        create_source: bind,
        ..Mount::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => mount.read_only = true,
            // Hints for Docker Desktop change nothing on Linux, there as here.
            "rw" | "cached" | "delegated" | "consistent" => {}
            "z" | "Z" if has_selinux() => return Err(fail("SELinux labels are not built")),
            // As with Docker on a host without SELinux.
            "z" | "Z" => {}
            "nocopy" if !bind => mount.no_copy = true,
            _ if bind && PROPAGATIONS.contains(&option) => {
                option.clone_into(&mut mount.propagation)
            }
            _ => return Err(fail(&format!("unknown option {option:?}"))),
        }
    }
    Ok(mount)
}

/// `type=bind|volume|tmpfs,source=…,target=…,readonly,…`.
pub(crate) fn mount(text: &str) -> Result<Mount, CliError> {
    let fail = |reason: &str| invalid("--mount", text, reason);
    let mut mount = Mount {
        kind: MountKind::Volume.into(),
        ..Mount::default()
    };
    let fields: Vec<(&str, Option<&str>)> = text.split(',').map(field).collect();
    for (key, value) in &fields {
        set(&mut mount, key, *value).map_err(|reason| fail(&reason))?;
    }
    // The order of the keys means nothing, so that the kind is known only now.
    for (key, _) in &fields {
        of_kind(key, mount.kind()).map_err(|reason| fail(&reason))?;
    }
    below(&mount, &fields).map_err(|reason| fail(&reason))?;
    if !mount.target.starts_with('/') {
        return Err(fail("it needs a target, an absolute path in the container"));
    }
    match mount.kind() {
        MountKind::Bind if !mount.source.starts_with('/') => Err(fail(
            "a bind mount needs a source, an absolute path of the host",
        )),
        MountKind::Tmpfs if !mount.source.is_empty() => Err(fail("a tmpfs has no source")),
        MountKind::Volume if mount.source.contains('/') => Err(fail(
            "the source of a volume is its name; for a path use type=bind",
        )),
        _ => Ok(mount),
    }
}

fn field(text: &str) -> (&str, Option<&str>) {
    match text.split_once('=') {
        Some((key, value)) => (key.trim(), Some(value)),
        None => (text.trim(), None),
    }
}

/// A key of another kind of mount would change nothing.
fn of_kind(key: &str, kind: MountKind) -> Result<(), String> {
    let (word, own) = match key.split_once('-') {
        Some(("bind", _)) => ("bind", MountKind::Bind),
        Some(("volume", _)) => ("volume", MountKind::Volume),
        Some(("tmpfs", _)) => ("tmpfs", MountKind::Tmpfs),
        _ => return Ok(()),
    };
    match own == kind {
        true => Ok(()),
        false => Err(format!("{key} goes with type={word} only")),
    }
}

/// Docker's conditions of `bind-recursive`.
fn below(mount: &Mount, fields: &[(&str, Option<&str>)]) -> Result<(), String> {
    let asked = fields.iter().find(|(key, _)| *key == "bind-recursive");
    let value = asked.and_then(|(_, value)| *value).unwrap_or_default();
    let private = mount.propagation == "rprivate";
    match value {
        "writable" | "readonly" if !mount.read_only => {
            Err(format!("bind-recursive={value} goes with readonly"))
        }
        "readonly" if !private => {
            Err("bind-recursive=readonly goes with bind-propagation=rprivate".to_owned())
        }
        _ => Ok(()),
    }
}

fn recursive(value: &str) -> Result<BelowBind, String> {
    match value {
        "enabled" | "readonly" => Ok(BelowBind::Unspecified),
        "disabled" => Ok(BelowBind::LeftOut),
        "writable" => Ok(BelowBind::Writable),
        other => Err(format!(
            "bind-recursive is enabled, disabled, writable or readonly, not {other:?}"
        )),
    }
}

fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn set(mount: &mut Mount, key: &str, value: Option<&str>) -> Result<(), String> {
    let needed = || {
        value
            .filter(|v| !v.is_empty())
            .ok_or(format!("{key} needs a value"))
    };
    match key {
        "type" => {
            mount.kind = match needed()? {
                "bind" => MountKind::Bind,
                "volume" => MountKind::Volume,
                "tmpfs" => MountKind::Tmpfs,
                other => {
                    return Err(format!(
                        "type {other:?} is not built; there are bind, volume and tmpfs"
                    ));
                }
            }
            .into();
        }
        "source" | "src" => needed()?.clone_into(&mut mount.source),
        "target" | "dst" | "destination" => needed()?.clone_into(&mut mount.target),
        "readonly" | "ro" => mount.read_only = flag(key, value)?,
        "volume-nocopy" => mount.no_copy = flag(key, value)?,
        "volume-subpath" => needed()?.clone_into(&mut mount.subpath),
        "volume-label" => {
            let (key, value) = pair(needed()?);
            mount.labels.insert(key, value);
        }
        "volume-opt" => {
            let (key, value) = pair(needed()?);
            mount.options.insert(key, value);
        }
        "volume-driver" if needed()? == "local" => {}
        "volume-driver" => return Err("there is the volume driver local only".to_owned()),
        "bind-nonrecursive" if flag(key, value)? => mount.set_below(BelowBind::LeftOut),
        "bind-nonrecursive" => {}
        "bind-recursive" => mount.set_below(recursive(needed()?)?),
        "bind-propagation" => {
            let value = needed()?;
            if !PROPAGATIONS.contains(&value) {
                return Err(format!("unknown propagation {value:?}"));
            }
            value.clone_into(&mut mount.propagation);
        }
        "tmpfs-size" => {
            mount.size =
                quantity::bytes("--mount", needed()?).map_err(|error| error.to_string())?;
        }
        "tmpfs-mode" => mount.mode = octal(needed()?)?,
        "consistency" => {}
        _ => return Err(format!("unknown key {key:?}")),
    }
    Ok(())
}

fn flag(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("{key} is true or false, not {other:?}")),
    }
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or(format!("mode {text:?} is not octal"))
}

/// `TARGET[:size=…,mode=…,ro]`.
pub(crate) fn tmpfs(text: &str) -> Result<Mount, CliError> {
    let fail = |reason: &str| invalid("--tmpfs", text, reason);
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        return Err(fail("the target must be an absolute path"));
    }
    let mut mount = Mount {
        kind: MountKind::Tmpfs.into(),
        target: target.to_owned(),
        ..Mount::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            None if option == "ro" => mount.read_only = true,
            None if option == "exec" => mount.exec = true,
            // What a tmpfs of a container has unless asked otherwise.
            None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {}
            Some(("size", size)) => mount.size = quantity::bytes("--tmpfs", size)?,
            Some(("mode", mode)) => mount.mode = octal(mode).map_err(|reason| fail(&reason))?,
            _ => return Err(fail(&format!("option {option:?} is not built"))),
        }
    }
    Ok(mount)
}

fn absolute(source: &str) -> Result<String, CliError> {
    let path =
        std::path::absolute(Path::new(source)).map_err(crate::error::file("resolve", source))?;
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn volumes_are_paths_or_names() {
        let bind = volume("/a:/b:ro,z,rslave").unwrap();
        assert_eq!(bind.kind(), MountKind::Bind);
        assert!(bind.read_only && bind.create_source);
        assert_eq!(bind.propagation, "rslave");
        let named = volume("data:/b").unwrap();
        assert_eq!(
            (named.kind(), named.source.as_str()),
            (MountKind::Volume, "data")
        );
        assert_eq!(volume("/b").unwrap().source, "");
        assert!(volume("./x:/b").unwrap().source.starts_with('/'));
    }

    #[test]
    fn mounts_have_keys() {
        let bind = mount("type=bind,source=/a,target=/b,readonly").unwrap();
        assert!(bind.read_only && !bind.create_source);
        let tmpfs = mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700").unwrap();
        assert_eq!((tmpfs.size, tmpfs.mode), (1 << 20, 0o700));
        assert_eq!(mount("src=v,dst=/b").unwrap().kind(), MountKind::Volume);
        let part =
            mount("src=v,dst=/b,volume-subpath=a/b,volume-label=k=v,volume-driver=local").unwrap();
        assert_eq!(part.subpath, "a/b");
        assert_eq!(part.labels["k"], "v");
        let elsewhere = mount("src=v,dst=/b,volume-opt=o=bind,volume-opt=device=/srv").unwrap();
        assert_eq!(elsewhere.options["o"], "bind");
        assert_eq!(elsewhere.options["device"], "/srv");
    }

    #[test]
    fn what_is_mounted_below_a_bind_has_a_key() {
        let below =
            |keys: &str| mount(&format!("type=bind,src=/a,dst=/b{keys}")).map(|m| m.below());
        assert_eq!(below("").unwrap(), BelowBind::Unspecified);
        assert_eq!(
            below(",bind-recursive=enabled").unwrap(),
            BelowBind::Unspecified
        );
        for keys in [",bind-nonrecursive", ",bind-recursive=disabled"] {
            assert_eq!(below(keys).unwrap(), BelowBind::LeftOut, "{keys}");
        }
        assert_eq!(
            below(",ro,bind-recursive=writable").unwrap(),
            BelowBind::Writable
        );
        let strict = ",ro,bind-propagation=rprivate,bind-recursive=readonly";
        assert_eq!(below(strict).unwrap(), BelowBind::Unspecified);
        for bad in [
            ",bind-recursive=writable",
            ",ro,bind-recursive=readonly",
            ",bind-recursive=some",
            ",bind-nonrecursive=x",
        ] {
            assert!(below(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tmpfs_takes_size_and_mode() {
        let made = tmpfs("/run:size=64k,mode=755,noexec").unwrap();
        assert_eq!((made.size, made.mode), (64 << 10, 0o755));
        assert!(!made.exec && tmpfs("/run:exec").unwrap().exec);
    }

    #[test]
    fn mistakes_are_told() {
        for bad in ["", "a:b", ":/b", "/a:/b:x", "a:/b:c:d", "v:/b:rshared"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
        for bad in [
            "",
            "type=image,src=x,dst=/x",
            "type=bind,dst=/x",
            "type=bind,src=a,dst=/x",
            "dst=x",
            "type=tmpfs,src=a,dst=/x",
            "src=/a,dst=/b",
            "dst=/x,foo=1",
            "dst=/x,ro=maybe",
            "dst=/x,tmpfs-size=1m",
            "dst=/x,bind-propagation=rslave",
            "type=tmpfs,dst=/x,volume-nocopy",
            "type=bind,src=/a,dst=/x,volume-subpath=b",
            "dst=/x,volume-driver=nfs",
        ] {
            assert!(mount(bad).is_err(), "{bad}");
        }
        for bad in ["x", "/x:suid", "/x:size=z", "/x:mode=9"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}") {
            drop(volume(&text));
            drop(mount(&text));
            drop(tmpfs(&text));
        }
    }
}
