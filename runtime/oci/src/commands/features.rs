//! `features`.

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use super::say;
use crate::error::Result;

/// Tells what this runtime can do.
pub(super) fn features() -> Result<()> {
    say(&format!("{:#}", document()))
}

/// In the form of the runtime specification's features.md: what this runtime knows, on whatever host.
fn document() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
        ],
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": false},
            "seccomp": seccomp(),
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}},
        },
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

/// The words that are no data of a file system.
const MOUNT_OPTIONS: [&str; 28] = [
    "bind",
    "defaults",
    "dev",
    "exec",
    "idmap",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nosuid",
    "nosymfollow",
    "private",
    "rbind",
    "relatime",
    "ro",
    "rprivate",
    "rro",
    "rshared",
    "rslave",
    "runbindable",
    "rw",
    "shared",
    "slave",
    "strictatime",
    "suid",
    "tmpcopyup",
    "unbindable",
    "X-mount.subdir",
];

fn capabilities() -> Vec<String> {
    let known = CapabilitySet::all();
    let names = known.iter_names();
    names.map(|(name, _)| format!("CAP_{name}")).collect()
}

fn seccomp() -> Value {
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
        ],
        "archs": [match std::env::consts::ARCH {
            "aarch64" => "SCMP_ARCH_AARCH64",
            _ => "SCMP_ARCH_X86_64",
        }],
        "knownFlags": [],
        "supportedFlags": [],
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Capability, Features};

    use super::*;

    #[test]
    fn the_document_is_one_of_the_specification() {
        let features: Features = serde_json::from_value(document()).unwrap();
        assert_eq!(features.hooks().as_ref().unwrap().len(), 6);
        let linux = features.linux().as_ref().unwrap();
        assert_eq!(linux.apparmor().as_ref().unwrap().enabled(), &Some(true));
        for name in linux.capabilities().iter().flatten() {
            name.trim_start_matches("CAP_")
                .parse::<Capability>()
                .unwrap();
        }
        assert!(linux.capabilities().as_ref().unwrap().len() > 40);
    }
}
