//! What this process may do on this host, which bounds what it can give to a container.

use std::str::FromStr as _;
use std::sync::OnceLock;

use oci_spec::runtime::{Capabilities, Capability};
use rustix::process::{Resource, getrlimit};

/// This process and its kernel; neither changes while it runs.
#[derive(Clone, Debug)]
pub struct Host {
    /// The capabilities that this process has.
    pub capabilities: Capabilities,
    /// Version of the kernel: 6.12 is (6, 12).
    pub kernel: (u32, u32),
    /// The most open files that the hard limit of this process allows.
    pub open_files_max: u64,
    /// The largest dump of memory that the hard limit of this process allows.
    pub core_max: u64,
    /// How readily the kernel kills this process for want of memory: a container's score can be lower
    /// only with `CAP_SYS_RESOURCE`.
    pub oom_score_adj: i32,
    /// Whether the kernel has AppArmor.
    pub apparmor: bool,
}

impl Host {
    /// This one.
    pub fn this() -> &'static Self {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(Self::look)
    }

    fn look() -> Self {
        let release = rustix::system::uname();
        let kernel = kernel_version(&release.release().to_string_lossy());
        let score = std::fs::read_to_string("/proc/self/oom_score_adj");
        let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            capabilities: capabilities(),
            kernel: kernel.unwrap_or_default(),
            open_files_max: hard_limit(Resource::Nofile),
            core_max: hard_limit(Resource::Core),
            oom_score_adj: score
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or_default(),
            apparmor: apparmor.is_ok_and(|text| text.starts_with('Y')),
        }
    }

    /// Whether limits can be raised beyond this process's own.
    pub fn may_raise_limits(&self) -> bool {
        self.capabilities.contains(&Capability::SysResource)
    }
}

/// The hard limit of this process; `u64::MAX`: none.
pub fn hard_limit(resource: Resource) -> u64 {
    getrlimit(resource).maximum.unwrap_or(u64::MAX)
}

fn capabilities() -> Capabilities {
    let own = rustix::thread::capabilities(None).map(|sets| sets.permitted);
    let own = own.unwrap_or(rustix::thread::CapabilitySet::empty());
    own.iter_names()
        .filter_map(|(name, _)| Capability::from_str(name).ok())
        .collect()
}

/// `6.12.3-cloud` and `4.8`.
pub fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    let major = parts.next()?.parse().ok()?;
    Some((major, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read_as_uname_writes_them() {
        assert_eq!(kernel_version("6.12.3-cloud-amd64"), Some((6, 12)));
        assert_eq!(kernel_version("4.8"), Some((4, 8)));
        assert_eq!(kernel_version("4"), None);
        assert_eq!(kernel_version("next"), None);
    }

    #[test]
    fn the_capabilities_of_this_process_are_those_that_proc_shows() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("CapPrm:"))
            .unwrap();
        let bits = u64::from_str_radix(line.trim(), 16).unwrap();
        assert_eq!(Host::this().capabilities.len(), bits.count_ones() as usize);
    }
}
