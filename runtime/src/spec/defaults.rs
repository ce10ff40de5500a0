//! The confinement that every container gets: `SECURITY` section 2, the column of our floor.

use std::str::FromStr as _;

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType,
};
use orlop_proto::runtime::Security;

use crate::error::{Error, Result};
use crate::host::Host;

/// Podman's eleven: Docker's fourteen without MKNOD, NET_RAW and AUDIT_WRITE.
const CAPABILITIES: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The union of Docker's and Podman's, without the paths of single CPUs.
const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
];

const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Docker 29's soft limit, so that programs which close every possible descriptor stay quick.
const OPEN_FILES_SOFT: u64 = 1024;
/// systemd's hard limit for services.
const OPEN_FILES_HARD: u64 = 524_288;
/// More CPUs than any kernel is built for (`CONFIG_NR_CPUS` of 8192).
const CPUS_MAX: usize = 8192;

/// What stands for every capability in a list of them.
const ALL: &str = "ALL";

/// Bounding, effective and permitted; inheritable and ambient stay empty (rows C6, C7). `held` are the
/// service's own: no container can have more.
pub fn capabilities(security: &Security, held: &Capabilities) -> Result<LinuxCapabilities> {
    let set = bounding(security, held)?;
    Ok(LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()?)
}

/// What is dropped goes first, then what is added comes; of all that are added at once, those that are
/// dropped by name stay away.
fn bounding(security: &Security, held: &Capabilities) -> Result<Capabilities> {
    let all = |name: &String| name.eq_ignore_ascii_case(ALL);
    let (add, drop) = (&security.capabilities_add, &security.capabilities_drop);
    let everything = add.iter().any(all);
    let mut set: Capabilities = if everything || security.privileged {
        held.clone()
    } else {
        CAPABILITIES.into_iter().collect()
    };
    if drop.iter().any(all) && !everything {
        set.clear();
    }
    for name in drop.iter().filter(|name| !all(name)) {
        set.remove(&capability(name)?);
    }
    for name in add.iter().filter(|name| !all(name)) {
        let capability = capability(name)?;
        if !held.contains(&capability) {
            let problem = format!("{capability}: orlop does not have it on this host itself");
            return Err(Error::invalid("capability", problem));
        }
        set.insert(capability);
    }
    Ok(set)
}

/// `NET_ADMIN`, `CAP_NET_ADMIN`, in any case.
pub(super) fn capability(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let unknown = || {
        let shown: String = name.chars().take(64).collect();
        Error::invalid(
            "capability",
            format!("{shown:?}: expected a name such as NET_ADMIN"),
        )
    };
    Capability::from_str(short).map_err(|_| unknown())
}

/// Limits of each process. A crash leaves no dump of the memory unless somebody asks for it, which
/// everybody may: `ulimit -c unlimited`.
pub fn rlimits(host: &Host) -> Result<Vec<PosixRlimit>> {
    let limit = |kind, soft: u64, hard: u64| {
        PosixRlimitBuilder::default()
            .typ(kind)
            .soft(soft.min(hard))
            .hard(hard)
            .build()
    };
    let open_files = OPEN_FILES_HARD.min(host.open_files_max);
    Ok(vec![
        limit(PosixRlimitType::RlimitNofile, OPEN_FILES_SOFT, open_files)?,
        limit(PosixRlimitType::RlimitCore, 0, host.core_max)?,
    ])
}

/// What is covered; the thermal counters of every possible CPU are a side channel (row B23).
pub fn masked_paths(possible_cpus: usize) -> Vec<String> {
    let thermal =
        (0..possible_cpus).map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle"));
    MASKED_PATHS
        .iter()
        .map(|path| (*path).to_owned())
        .chain(thermal)
        .collect()
}

/// What cannot be written.
pub fn readonly_paths() -> Vec<String> {
    READONLY_PATHS
        .iter()
        .map(|path| (*path).to_owned())
        .collect()
}

/// How many CPUs this host may ever have online. The kernel's answer does not change, so it is asked
/// once.
pub fn possible_cpus() -> usize {
    static CPUS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *CPUS.get_or_init(|| {
        std::fs::read_to_string("/sys/devices/system/cpu/possible")
            .ok()
            .and_then(|text| last_cpu(&text))
            .map_or_else(
                || std::thread::available_parallelism().map_or(1, usize::from),
                |last| (last + 1).min(CPUS_MAX),
            )
    })
}

/// `0-3` or `0-1,4-7` or `0`.
fn last_cpu(text: &str) -> Option<usize> {
    text.trim().rsplit([',', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> Result<LinuxCapabilities> {
        capabilities(&asked(add, drop), &held())
    }

    fn asked(add: &[&str], drop: &[&str]) -> Security {
        Security {
            capabilities_add: add.iter().map(|s| (*s).to_owned()).collect(),
            capabilities_drop: drop.iter().map(|s| (*s).to_owned()).collect(),
            ..Security::default()
        }
    }

    /// The floor's, and two more.
    fn held() -> Capabilities {
        let more = [Capability::NetRaw, Capability::SysAdmin];
        CAPABILITIES.into_iter().chain(more).collect()
    }

    #[test]
    fn c6_inheritable_and_ambient_are_empty_and_the_rest_is_the_floor() {
        let set = of(&[], &[]).unwrap();
        assert!(set.inheritable().as_ref().unwrap().is_empty());
        assert!(set.ambient().as_ref().unwrap().is_empty());
        let bounding = set.bounding().as_ref().unwrap();
        assert_eq!(bounding.len(), 11);
        for absent in [
            Capability::Mknod,
            Capability::NetRaw,
            Capability::AuditWrite,
            Capability::SysAdmin,
        ] {
            assert!(!bounding.contains(&absent), "{absent}");
        }
    }

    #[test]
    fn capabilities_are_dropped_before_they_are_added_and_unknown_ones_refused() {
        let set = of(&["cap_net_raw"], &["all"]).unwrap();
        let bounding = set.bounding().as_ref().unwrap();
        assert_eq!(bounding.iter().collect::<Vec<_>>(), [&Capability::NetRaw]);
        assert!(of(&["NO_SUCH"], &[]).is_err());
        assert!(
            of(&["SYS_RESOURCE"], &[]).is_err(),
            "more than the host has"
        );
        assert!(of(&[], &["NO_SUCH"]).is_err());
    }

    #[test]
    fn all_capabilities_are_those_of_the_service_without_what_is_dropped_by_name() {
        let bounding = |add: &[&str], drop: &[&str], privileged| {
            let security = Security {
                privileged,
                ..asked(add, drop)
            };
            bounding(&security, &held()).unwrap()
        };
        assert_eq!(bounding(&["all"], &[], false), held());
        assert_eq!(bounding(&["ALL"], &["ALL"], false), held());
        assert_eq!(bounding(&[], &[], true), held());
        assert!(!bounding(&["ALL"], &["SYS_ADMIN"], false).contains(&Capability::SysAdmin));
        assert!(!bounding(&[], &["CAP_SYS_ADMIN"], true).contains(&Capability::SysAdmin));
        assert!(bounding(&[], &["ALL"], true).is_empty());
    }

    #[test]
    fn b6_b22_what_this_kernel_may_lack_is_masked_all_the_same() {
        let masked = masked_paths(1);
        for path in [
            "/proc/acpi",
            "/proc/scsi",
            "/proc/asound",
            "/sys/devices/virtual/powercap",
        ] {
            assert!(masked.iter().any(|masked| masked == path), "{path}");
        }
    }

    #[test]
    fn b23_every_possible_cpu_is_masked() {
        let masked = masked_paths(3);
        for n in 0..3 {
            let path = format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle");
            assert!(masked.contains(&path));
        }
        assert_eq!(last_cpu("0-3\n"), Some(3));
        assert_eq!(last_cpu("0-1,4-7\n"), Some(7));
        assert_eq!(last_cpu("0\n"), Some(0));
    }
}
