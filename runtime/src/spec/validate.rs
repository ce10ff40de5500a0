//! Judges every part of a request and of an image's configuration before anything is made. Both are
//! hostile: what passes here ends up in files and mounts that root makes.

use std::net::IpAddr;
use std::path::{Component, Path};

use orlop_proto::runtime::{BelowBind, CreateRequest, Mount, MountKind, RestartPolicy, Security};

use super::{devices, from_image, namespaces, sysctls, ulimits, userns};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::network::{Lookup, Membership, NetworkMode, PortRequest};

/// One component of a DNS name, and what `sethostname` takes.
const HOSTNAME_MAX: usize = 64;
/// The kernel's limit of a path, with its final NUL.
const PATH_MAX: usize = 4096;
/// The kernel's limit of one argument or variable (`MAX_ARG_STRLEN`).
const STRING_MAX: usize = 128 * 1024;
/// What all arguments and variables together may take; the kernel allows a quarter of the stack limit.
const STRINGS_MAX: usize = 2 * 1024 * 1024;
const LABELS_MAX: usize = 1024;
const MOUNTS_MAX: usize = 256;
const NETWORKS_MAX: usize = 64;
const PORTS_MAX: usize = 4096;
const GROUPS_MAX: usize = 1024;
/// The kernel reads the name of a profile at once.
const PROFILE_BYTES_MAX: usize = 4000;
/// Files of `/proc` that a user may cover (lxcfs does): they only inform (runc's list).
const PROC_ALLOWED: [&str; 8] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];
const PROPAGATIONS: [&str; 7] = [
    "", "rprivate", "private", "rslave", "slave", "rshared", "shared",
];

/// All of a request that can be judged without the image.
pub fn request(request: &CreateRequest) -> Result<()> {
    hostname("hostname", &request.hostname)?;
    hostname("domain name", &request.domainname)?;
    for line in &request.extra_hosts {
        extra_host(line)?;
    }
    Lookup::try_from(request)?;
    expose(&request.expose)?;
    count("mount", request.mounts.len(), MOUNTS_MAX)?;
    count("label", request.labels.len(), LABELS_MAX)?;
    count("label of the log", request.log_labels.len(), LABELS_MAX)?;
    count("variable of the log", request.log_env.len(), LABELS_MAX)?;
    crate::logs::size::check(request)?;
    count("port", request.ports.len(), PORTS_MAX)?;
    for mount in &request.mounts {
        self::mount(mount)?;
    }
    count("volumes from", request.volumes_from.len(), MOUNTS_MAX)?;
    for text in &request.volumes_from {
        volumes_from(text)?;
    }
    distinct_targets(request.mounts.iter().map(|mount| mount.target.as_str()))?;
    for (key, value) in &request.labels {
        label(key, value)?;
    }
    count("annotation", request.annotations.len(), LABELS_MAX)?;
    for (key, value) in &request.annotations {
        annotation(key, value)?;
    }
    for port in &request.ports {
        PortRequest::try_from(port)?;
    }
    if !request.runtime.is_empty() {
        other_runtime(request)?;
    }
    super::resources::check(&request.resources.clone().unwrap_or_default())?;
    security(&request.security.clone().unwrap_or_default(), Host::this())?;
    namespaces::check(request)?;
    userns::check(request)?;
    sysctls::check(request)?;
    ulimits::check(&request.ulimits)?;
    devices::check(request)?;
    cgroup_parent(&request.cgroup_parent)?;
    count("group", request.groups.len(), GROUPS_MAX)?;
    oom_score(request.oom_score_adj)?;
    restart(
        &request.restart.clone().unwrap_or_default(),
        request.auto_remove,
    )?;
    network(request)
}

/// What only our own code can do.
fn other_runtime(request: &CreateRequest) -> Result<()> {
    let spreads = |mount: &Mount| mount.propagation.ends_with("shared");
    let unable = match request {
        _ if request.init => "--init",
        _ if request.mounts.iter().any(spreads) => "a mount with shared propagation",
        _ => return Ok(()),
    };
    let problem = format!("{}: {unable} needs orlop's own", request.runtime);
    Err(Error::invalid("runtime", problem))
}

/// Names of networks are judged where networks are known.
fn network(request: &CreateRequest) -> Result<()> {
    count("network", request.memberships.len(), NETWORKS_MAX)?;
    for membership in &request.memberships {
        Membership::try_from(membership)?;
    }
    let own_namespace = |what: &'static str, given: bool| match given {
        true => Err(Error::invalid(what, "the network's container has its own")),
        false => Ok(()),
    };
    if let NetworkMode::Container(_) = NetworkMode::from(request.network.as_str()) {
        own_namespace("hostname", !request.hostname.is_empty())?;
        own_namespace("domain name", !request.domainname.is_empty())?;
        let lookup = Lookup::try_from(request)?;
        own_namespace("dns", lookup != Lookup::default())?;
        own_namespace("extra host", !request.extra_hosts.is_empty())?;
        own_namespace("port", !request.ports.is_empty() || request.publish_all)?;
        own_namespace("exposed port", !request.expose.is_empty())?;
    }
    Ok(())
}

fn count(what: &'static str, number: usize, most: usize) -> Result<()> {
    if number > most {
        return Err(Error::invalid(
            what,
            format!("{number} of them: at most {most}"),
        ));
    }
    Ok(())
}

/// A name for the container itself: letters, digits, `-` and `.`, no control characters (row C9).
pub fn hostname(what: &'static str, name: &str) -> Result<()> {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let ends_well = !name.starts_with(['-', '.']) && !name.ends_with(['-', '.']);
    if name.len() <= HOSTNAME_MAX && name.chars().all(valid) && ends_well {
        return Ok(());
    }
    let shown: String = name.chars().take(HOSTNAME_MAX + 1).collect();
    Err(Error::invalid(
        what,
        format!("{shown:?}: expected at most 64 letters, digits, '-' and '.'"),
    ))
}

fn expose(ports: &[String]) -> Result<()> {
    count("exposed port", ports.len(), PORTS_MAX)?;
    for port in ports {
        from_image::exposed_port(port).ok_or_else(|| {
            let shown: String = port.chars().take(64).collect();
            let problem = format!("{shown:?}: expected a number, or one and /tcp or /udp");
            Error::invalid("exposed port", problem)
        })?;
    }
    Ok(())
}

/// `name:address`.
fn extra_host(line: &str) -> Result<()> {
    let bad = || {
        let shown: String = line.chars().take(128).collect();
        Error::invalid(
            "extra host",
            format!("{shown:?}: expected name:address, such as db:10.0.0.5"),
        )
    };
    let (name, address) = line.split_once(':').ok_or_else(bad)?;
    if name.is_empty() || name.len() > 253 {
        return Err(bad());
    }
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !name.chars().all(valid) {
        return Err(bad());
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if address == "host-gateway" || bare.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(bad())
}

fn label(key: &str, value: &str) -> Result<()> {
    if key.is_empty() || key.len() > 1024 || value.len() > STRING_MAX || key.contains('\0') {
        let shown: String = key.chars().take(64).collect();
        return Err(Error::invalid(
            "label",
            format!("{shown:?}: empty or too long"),
        ));
    }
    Ok(())
}

/// Ours say how the shim confines a container: a request has other fields for that.
fn annotation(key: &str, value: &str) -> Result<()> {
    label(key, value)?;
    match key.starts_with(from_image::RESERVED_LABELS) {
        true => Err(Error::invalid(
            "annotation",
            format!("{key}: it is reserved"),
        )),
        false => Ok(()),
    }
}

fn mount(mount: &Mount) -> Result<()> {
    target(&mount.target)?;
    if !PROPAGATIONS.contains(&mount.propagation.as_str()) {
        let problem = format!("propagation {:?}", mount.propagation);
        return Err(Error::invalid("mount", problem));
    }
    if mount.mode > 0o7777 || mount.size < 0 {
        return Err(Error::invalid(
            "mount",
            format!("size or mode of {}", mount.target),
        ));
    }
    let plain = mount.labels.is_empty() && mount.options.is_empty();
    let of_volume = !mount.subpath.is_empty() || !plain;
    if of_volume && mount.kind() != MountKind::Volume {
        return Err(Error::invalid(
            "mount",
            "a subpath, labels or options of no volume",
        ));
    }
    subpath(&mount.subpath)?;
    count("label", mount.labels.len(), LABELS_MAX)?;
    for (key, value) in &mount.labels {
        label(key, value)?;
    }
    if BelowBind::try_from(mount.below).is_err() {
        return Err(Error::invalid("mount", "what is mounted below"));
    }
    match mount.kind() {
        MountKind::Unspecified => Err(Error::invalid("mount", "it has no kind")),
        MountKind::Bind => absolute("bind mount source", &mount.source),
        MountKind::Volume if mount.source.is_empty() => Ok(()),
        MountKind::Volume => crate::containers::names::check("volume name", &mount.source, 1),
        MountKind::Tmpfs if mount.source.is_empty() => Ok(()),
        MountKind::Tmpfs => Err(Error::invalid("mount", "a tmpfs has no source")),
    }
}

/// Of a volume: relative, no `..` (row B31).
fn subpath(path: &str) -> Result<()> {
    let down = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let inside = Path::new(path).components().all(down);
    if inside && !path.contains('\0') && path.len() < PATH_MAX {
        return Ok(());
    }
    let shown: String = path.chars().take(256).collect();
    let problem = format!("{shown:?}: expected a path in the volume without `..`");
    Err(Error::invalid("volume subpath", problem))
}

/// `CONTAINER[:ro|:rw]`; whether read-only.
pub fn volumes_from(text: &str) -> Result<(&str, bool)> {
    match text.split_once(':') {
        None => Ok((text, false)),
        Some((container, "rw")) => Ok((container, false)),
        Some((container, "ro")) => Ok((container, true)),
        Some(_) => {
            let shown: String = text.chars().take(128).collect();
            let problem = format!("{shown:?}: expected CONTAINER[:ro] or CONTAINER[:rw]");
            Err(Error::invalid("volumes from", problem))
        }
    }
}

/// Absolute, no `..`, no NUL, not too long.
pub(crate) fn absolute(what: &'static str, path: &str) -> Result<()> {
    let up = Path::new(path)
        .components()
        .any(|part| part == Component::ParentDir);
    if path.starts_with('/') && !up && !path.contains('\0') && path.len() < PATH_MAX {
        return Ok(());
    }
    let shown: String = path.chars().take(256).collect();
    Err(Error::invalid(
        what,
        format!("{shown:?}: expected an absolute path without `..`"),
    ))
}

/// Where something may be mounted: not over the root, `/proc`, `/sys` or `/dev` as a whole, and nowhere
/// below the first two (row B4).
pub fn target(path: &str) -> Result<()> {
    absolute("mount target", path)?;
    let normal = normalize(path);
    let below = |top: &str| {
        normal
            .strip_prefix(top)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    let special = matches!(normal.as_str(), "/" | "/proc" | "/sys" | "/dev")
        || below("/sys")
        || (below("/proc") && !PROC_ALLOWED.contains(&normal.as_str()));
    if special {
        let problem = format!("{path}: nothing can be mounted over the system's own paths");
        return Err(Error::invalid("mount target", problem));
    }
    Ok(())
}

/// Without repeated slashes, `.` and a final slash.
pub fn normalize(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    format!("/{}", parts.join("/"))
}

/// No two mounts at one place.
fn distinct_targets<'a>(targets: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for path in targets {
        if !seen.insert(normalize(path)) {
            return Err(Error::invalid("mount", format!("two at {path}")));
        }
    }
    Ok(())
}

fn security(security: &Security, host: &Host) -> Result<()> {
    super::own_profile(security, host)?;
    if !matches!(security.apparmor.as_str(), "" | "unconfined") {
        apparmor(&security.apparmor, host)?;
    }
    if security.labels.iter().any(|label| label != "disable") {
        return Err(Error::NotBuilt(
            "a SELinux label (other than label=disable)",
        ));
    }
    super::defaults::capabilities(security, &host.capabilities).map(drop)
}

/// A profile that cannot be had is never left out (rows B12, C19). Whether it is loaded is known at the
/// start.
fn apparmor(profile: &str, host: &Host) -> Result<()> {
    let shown: String = profile.chars().take(64).collect();
    let problem = if profile.len() > PROFILE_BYTES_MAX || profile.chars().any(char::is_control) {
        "not the name of a profile"
    } else if !host.apparmor {
        "the kernel of this host has no AppArmor"
    } else {
        return Ok(());
    };
    let problem = format!("apparmor={shown:?}: {problem}");
    Err(Error::invalid("security option", problem))
}

/// Below each mount; those of the service's own groups are its alone.
fn cgroup_parent(parent: &str) -> Result<()> {
    if parent.is_empty() {
        return Ok(());
    }
    let path = format!("/{}", parent.trim_start_matches('/'));
    absolute("cgroup parent", &path)?;
    let normal = normalize(&path);
    let own = normal == "/orlop" || normal.starts_with("/orlop/");
    if own || normal == "/" || path.chars().any(char::is_control) {
        let shown: String = parent.chars().take(128).collect();
        let problem = format!("{shown:?}: expected a path such as /teams/a, not below /orlop");
        return Err(Error::invalid("cgroup parent", problem));
    }
    Ok(())
}

fn oom_score(score: Option<i32>) -> Result<()> {
    match score {
        Some(score) if !(-1000..=1000).contains(&score) => {
            let problem = format!("{score}: expected -1000 to 1000");
            Err(Error::invalid("OOM score", problem))
        }
        _ => Ok(()),
    }
}

pub(crate) fn restart(policy: &RestartPolicy, auto_remove: bool) -> Result<()> {
    let known = ["", "no", "on-failure", "always", "unless-stopped"];
    if !known.contains(&policy.name.as_str()) {
        let problem = format!(
            "{:?}: expected no, on-failure, always or unless-stopped",
            policy.name
        );
        return Err(Error::invalid("restart policy", problem));
    }
    if policy.maximum_retries > 0 && policy.name != "on-failure" {
        return Err(Error::invalid(
            "restart policy",
            "a maximum of retries goes with on-failure only",
        ));
    }
    if auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(Error::invalid(
            "restart policy",
            "a container that is removed at its exit cannot be restarted",
        ));
    }
    Ok(())
}

/// The command, variables, directory and user that a process is to have.
pub fn process(process: &crate::containers::record::Process) -> Result<()> {
    if process.args.is_empty() || process.args.first().is_some_and(String::is_empty) {
        return Err(Error::invalid(
            "command",
            "there is none: give one, or use an image that has one",
        ));
    }
    let strings = || process.args.iter().chain(&process.env);
    if strings().any(|text| text.len() >= STRING_MAX) {
        return Err(Error::invalid(
            "process",
            "an argument or variable longer than 128 KiB",
        ));
    }
    if strings().map(|text| text.len() + 9).sum::<usize>() > STRINGS_MAX {
        return Err(Error::invalid(
            "process",
            "more than 2 MiB of arguments and variables",
        ));
    }
    if strings().any(|text| text.contains('\0')) {
        return Err(Error::invalid(
            "process",
            "a NUL in an argument or variable",
        ));
    }
    let home = process.env.iter().find_map(|v| v.strip_prefix("HOME="));
    if home.is_some_and(|home| home.contains(['\n', '\r', ':'])) {
        return Err(Error::invalid("HOME", "a line break or colon in it"));
    }
    if process.user.len() > 256 || process.user.contains(['\n', '\r', '\0']) {
        return Err(Error::invalid("user", "too long, or a line break in it"));
    }
    absolute("working directory", &process.cwd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::record::Process;

    fn bare() -> Process {
        Process {
            args: vec!["true".to_owned()],
            cwd: "/".to_owned(),
            ..Process::default()
        }
    }

    #[test]
    fn b4_nothing_is_mounted_over_the_systems_own_paths() {
        for bad in [
            "/",
            "//",
            "/.",
            "/proc",
            "/proc/",
            "/proc/x",
            "/proc/sys/kernel",
            "//proc//1",
            "/sys",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/",
            "/a/../proc",
            "proc",
            "",
            "/./proc/./kcore",
            "/a\0b",
        ] {
            assert!(target(bad).is_err(), "{bad:?}");
        }
        for good in [
            "/data",
            "/proc/meminfo",
            "/dev/shm",
            "/devices",
            "/procx",
            "/srv/proc",
            "/systems",
        ] {
            target(good).unwrap();
        }
    }

    #[test]
    fn b31_a_part_of_a_volume_does_not_lead_out_by_name() {
        for bad in ["..", "a/../b", "/etc", "a\0b"] {
            assert!(subpath(bad).is_err(), "{bad:?}");
        }
        for good in ["", "a", "./a/b", "a..b"] {
            subpath(good).unwrap();
        }
    }

    #[test]
    fn volumes_come_from_a_container_writable_or_not() {
        assert_eq!(volumes_from("web").unwrap(), ("web", false));
        assert_eq!(volumes_from("web:rw").unwrap(), ("web", false));
        assert_eq!(volumes_from("web:ro").unwrap(), ("web", true));
        assert!(volumes_from("web:z").is_err());
    }

    #[test]
    fn c9_lines_cannot_be_smuggled_into_generated_files() {
        for bad in ["a\nb", "a\rb", "a\0b", "-a", "a b", "a:b", &"a".repeat(65)] {
            assert!(hostname("hostname", bad).is_err(), "{bad:?}");
        }
        for bad in [
            "db",
            "db:",
            ":10.0.0.1",
            "db:10.0.0.1\nroot:1.1.1.1",
            "d b:10.0.0.1",
            "db:x",
        ] {
            assert!(extra_host(bad).is_err(), "{bad:?}");
        }
        for bad in [
            "/",
            "/orlop",
            "orlop/x",
            "//orlop/./x",
            "../a",
            "a/../b",
            "a\nb",
        ] {
            assert!(cgroup_parent(bad).is_err(), "{bad:?}");
        }
        for good in ["", "a", "/a/b", "orlop-team/x"] {
            cgroup_parent(good).unwrap();
        }
        assert!(annotation("org.orlop.seccomp", "unconfined").is_err());
        annotation("run.oci.handler", "wasm").unwrap();
        for bad in ["0", "65536", "80/sctp", "80-90", ""] {
            assert!(expose(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
        let mut home = bare();
        home.env = vec!["HOME=/x\nroot2:x:0:0::/:/bin/sh".to_owned()];
        assert!(process(&home).is_err());
        hostname("hostname", "web-1.example").unwrap();
        extra_host("db:10.0.0.1").unwrap();
        extra_host("db:::1").unwrap();
    }

    #[test]
    fn a_process_needs_a_command_and_an_absolute_directory() {
        process(&bare()).unwrap();
        for cwd in ["", "tmp", "/a/../../etc", "/a\0"] {
            let bad = Process {
                cwd: cwd.to_owned(),
                ..bare()
            };
            assert!(process(&bad).is_err(), "{cwd:?}");
        }
        assert!(
            process(&Process {
                args: vec![],
                ..bare()
            })
            .is_err()
        );
        let nul = Process {
            args: vec!["a\0".to_owned()],
            ..bare()
        };
        assert!(process(&nul).is_err());
    }

    #[test]
    fn policies_that_contradict_each_other_are_refused() {
        let policy = |name: &str, maximum_retries| RestartPolicy {
            name: name.to_owned(),
            maximum_retries,
        };
        restart(&policy("on-failure", 3), false).unwrap();
        assert!(restart(&policy("always", 3), false).is_err());
        assert!(restart(&policy("always", 0), true).is_err());
        assert!(restart(&policy("sometimes", 0), false).is_err());
    }

    #[test]
    fn b12_what_this_host_cannot_do_is_refused_by_name() {
        let host = Host::this();
        let asked = |apparmor: &str, label: &str| Security {
            apparmor: apparmor.to_owned(),
            labels: vec![label.to_owned()],
            ..Security::default()
        };
        security(&asked("unconfined", "disable"), host).unwrap();
        let refused = security(&asked("docker-default", "disable"), host).unwrap_err();
        assert!(refused.to_string().contains("AppArmor"), "{refused}");
        let with = Host {
            apparmor: true,
            ..host.clone()
        };
        security(&asked("docker-default", "disable"), &with).unwrap();
        assert!(security(&asked("two\nlines", "disable"), &with).is_err());
        let refused = security(&asked("", "type:svirt_t"), host).unwrap_err();
        assert!(refused.to_string().contains("SELinux"), "{refused}");
    }

    #[test]
    fn c17_a_profile_that_is_none_is_refused() {
        for profile in ["{}", " ", "/etc/profile.json", "Unconfined"] {
            let own = Security {
                seccomp: profile.to_owned(),
                ..Security::default()
            };
            assert!(security(&own, Host::this()).is_err(), "{profile:?}");
        }
    }
}
