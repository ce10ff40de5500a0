//! Kernel parameters of a bundle: those of namespaces that the container does not share with its caller, and
//! no other (rows B32, B33). The rules are runc's.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType};
use orlop_shim::sysctls::namespace_of;

use crate::error::{Error, Result};

/// Judges all of them.
pub(crate) fn check(linux: &Linux) -> Result<()> {
    let own = |kind| is_own(linux, kind);
    for name in linux.sysctl().iter().flat_map(|all| all.keys()) {
        let problem = problem(name, own);
        if let Some(problem) = problem {
            let name = name.clone();
            return Err(Error::Sysctl { name, problem });
        }
    }
    Ok(())
}

/// Why this one cannot be set in a container that has `own` namespaces.
fn problem(name: &str, own: impl Fn(LinuxNamespaceType) -> bool) -> Option<&'static str> {
    let kind = match namespace_of(&name.replace('/', ".")) {
        Ok(kind) => kind,
        Err(problem) => return Some(problem),
    };
    (!own(kind)).then_some(match kind {
        LinuxNamespaceType::Network => "it needs a network namespace of the container's own",
        LinuxNamespaceType::Ipc => "it needs an IPC namespace of the container's own",
        _ => "it needs a UTS namespace of the container's own",
    })
}

/// Whether the container is in another namespace of this kind than its caller.
fn is_own(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    let mut all = linux.namespaces().iter().flatten();
    match all.find(|namespace| namespace.typ() == kind) {
        None => false,
        Some(namespace) => namespace
            .path()
            .as_deref()
            .is_none_or(|path| !is_callers(path, kind)),
    }
}

/// One that cannot be looked at is taken for the caller's.
fn is_callers(path: &Path, kind: LinuxNamespaceType) -> bool {
    let name = match kind {
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Ipc => "ipc",
        _ => "uts",
    };
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let callers = identity(&Path::new("/proc/self/ns").join(name));
    match (callers, identity(path)) {
        (Ok(callers), Ok(other)) => callers == other,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(sysctl: &str, namespaces: &str) -> bool {
        let linux = format!(r#"{{"sysctl": {{"{sysctl}": "1"}}, "namespaces": [{namespaces}]}}"#);
        check(&serde_json::from_str(&linux).unwrap()).is_ok()
    }

    const ALL: &str = r#"{"type": "network"}, {"type": "ipc"}, {"type": "uts"}"#;

    #[test]
    fn b32_nothing_but_a_parameter_of_a_namespace_is_set() {
        for good in [
            "net.ipv4.ip_forward",
            "net/ipv4/ip_forward",
            "kernel.shmmax",
            "fs.mqueue.msg_max",
            "kernel.domainname",
        ] {
            assert!(judged(good, ALL), "{good}");
        }
        for bad in [
            "kernel.core_pattern",
            "kernel.hostname",
            "vm.swappiness",
            "kernel/core_pattern",
            "net/../kernel/core_pattern",
            "net.ipv4+kernel.core_pattern",
            "net",
            "",
        ] {
            assert!(!judged(bad, ALL), "{bad}");
        }
    }

    #[test]
    fn b33_a_namespace_of_the_callers_is_not_the_containers() {
        assert!(!judged("net.ipv4.ip_forward", ""));
        assert!(!judged("kernel.shmmax", r#"{"type": "network"}"#));
        let callers = r#"{"type": "network", "path": "/proc/self/ns/net"}"#;
        assert!(!judged("net.ipv4.ip_forward", callers));
        let absent = r#"{"type": "network", "path": "/proc/self/ns/absent"}"#;
        assert!(!judged("net.ipv4.ip_forward", absent));
        let other = r#"{"type": "network", "path": "/proc/self/ns/mnt"}"#;
        assert!(judged("net.ipv4.ip_forward", other));
    }
}
