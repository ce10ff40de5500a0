//! The names that an instance uses in the kernel: derived from its root, so that several instances on
//! one host do not meet, and a restarted one finds its own.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const ROOT_DEFAULT: &str = "/var/lib/orlop";
/// Five hexadecimal digits: what an interface's name has room for.
pub(crate) const VETHS_MAX: u128 = 0xf_ffff;

/// The kernel's names of one instance. An interface's name has at most 15 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// The bridge.
    pub(crate) bridge: String,
    /// The nftables table.
    pub(crate) table: String,
    /// What the bridges of users' networks begin with.
    bridge_prefix: String,
    /// What the host's ends of veth pairs begin with.
    pub(crate) veth_prefix: String,
    /// Where the search for a subnet begins: different for different instances, so that they seldom
    /// want the same.
    pub(crate) subnet_start: usize,
    /// The group of interfaces that are being removed.
    pub(crate) removal_group: u32,
    /// Where definitions of networks, and the choice of the first one's subnet, are kept.
    pub(crate) state: PathBuf,
}

impl Instance {
    /// Of the instance with this root, which keeps its network state in `state`.
    pub(crate) fn new(root: &Path, state: PathBuf) -> Self {
        let hash = fnv1a(root.as_os_str().as_bytes());
        // Small numbers are people's.
        let removal_group = hash | 0x8000_0000;
        if root == Path::new(ROOT_DEFAULT) {
            return Self {
                bridge: "orlop0".to_owned(),
                bridge_prefix: "orlop-".to_owned(),
                table: "orlop".to_owned(),
                veth_prefix: "vorlop-".to_owned(),
                subnet_start: 0,
                removal_group,
                state,
            };
        }
        Self {
            bridge: format!("orl-{hash:08x}"),
            bridge_prefix: format!("o{hash:08x}-"),
            table: format!("orlop-{hash:08x}"),
            veth_prefix: format!("v{hash:08x}-"),
            subnet_start: usize::try_from(hash).unwrap_or(0),
            removal_group,
            state,
        }
    }

    /// The bridge of the network with this number; 0 is the one that always exists.
    pub(crate) fn bridge_of(&self, number: u32) -> String {
        match number {
            0 => self.bridge.clone(),
            number => format!("{}{number:x}", self.bridge_prefix),
        }
    }

    /// The number in the name of a bridge of ours.
    pub(crate) fn bridge_number(&self, name: &str) -> Option<u32> {
        if name == self.bridge {
            return Some(0);
        }
        u32::from_str_radix(name.strip_prefix(&self.bridge_prefix)?, 16).ok()
    }

    /// The host's end of the veth pair with this number.
    pub(crate) fn veth(&self, number: u128) -> String {
        format!("{}{number:04x}", self.veth_prefix)
    }

    /// The number in the name of a host's end of ours.
    pub(crate) fn veth_number(&self, name: &str) -> Option<u128> {
        u128::from_str_radix(name.strip_prefix(&self.veth_prefix)?, 16).ok()
    }
}

/// 64 hexadecimal digits, the same at every start, for a network that nobody made.
pub(crate) fn network_id(root: &Path, name: &str) -> String {
    let seed = [root.as_os_str().as_bytes(), b"/", name.as_bytes()].concat();
    let word = |number: u8| fnv1a(&[seed.as_slice(), &[number]].concat());
    (0..8)
        .map(|number| format!("{:08x}", word(number)))
        .collect()
}

/// The word for the instance with this root in the names that it has in the kernel: 8 hexadecimal
/// digits, the same at every start.
pub(crate) fn name(root: &Path) -> String {
    format!("{:08x}", fnv1a(root.as_os_str().as_bytes()))
}

/// FNV-1a, 32 bits (RFC 9923): the same on every version of the program, which the standard library's
/// hash is not. Collisions are harmless as long as roots are few.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ_by_root() {
        let instance = |root: &str| Instance::new(Path::new(root), PathBuf::new());
        for root in [ROOT_DEFAULT, "/tmp/a", "/tmp/b"] {
            let instance = instance(root);
            assert!(instance.bridge.len() <= 15);
            let veth = instance.veth(VETHS_MAX);
            assert!(veth.len() <= 15);
            assert_eq!(instance.veth_number(&veth), Some(VETHS_MAX));
            for number in [0, 1, 0xffff] {
                let bridge = instance.bridge_of(number);
                assert!(bridge.len() <= 15);
                assert_eq!(instance.bridge_number(&bridge), Some(number));
            }
        }
        assert_ne!(instance("/tmp/a").bridge, instance("/tmp/b").bridge);
        assert_eq!(instance("/tmp/a").veth_number("vorlop-0001"), None);
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }
}
