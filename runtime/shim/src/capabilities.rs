//! Capabilities: what the specification lists, in the sets that it lists them for; nothing inheritable,
//! nothing ambient, ever.

use std::io;

use oci_spec::runtime::{Capability, LinuxCapabilities};
use orlop_sys::process::drop_bounding;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Highest number that a kernel can have: the sets are 64 bits wide.
const NUMBERS: u32 = 64;

/// The sets of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sets {
    bounding: CapabilitySet,
    permitted: CapabilitySet,
    effective: CapabilitySet,
}

impl Sets {
    /// From the specification; an absent one means none.
    pub(crate) fn from_spec(spec: Option<&LinuxCapabilities>) -> Self {
        let set = |list: Option<&std::collections::HashSet<Capability>>| {
            let bits = list
                .into_iter()
                .flatten()
                .map(|&capability| bit(capability));
            bits.fold(CapabilitySet::empty(), |all, one| all | one)
        };
        let bounding = set(spec.and_then(|spec| spec.bounding().as_ref()));
        let permitted = set(spec.and_then(|spec| spec.permitted().as_ref())) & bounding;
        let effective = set(spec.and_then(|spec| spec.effective().as_ref())) & permitted;
        Self {
            bounding,
            permitted,
            effective,
        }
    }

    /// Whether the process may have `capability`.
    pub(crate) fn has(&self, capability: CapabilitySet) -> bool {
        self.bounding.contains(capability)
    }

    /// Drops everything else from the bounding set.
    pub(crate) fn bound(&self) -> io::Result<()> {
        for number in 0..NUMBERS {
            if self.bounding.bits() & (1 << number) != 0 {
                continue;
            }
            match drop_bounding(number) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                result => result?,
            }
        }
        Ok(())
    }

    /// The other sets. A process that is not root keeps none: its exec would drop them anyway.
    pub(crate) fn apply(&self, uid: u32) -> io::Result<()> {
        rustix::thread::clear_ambient_capability_set()?;
        let none = CapabilitySet::empty();
        let (effective, permitted) = if uid == 0 {
            (self.effective, self.permitted)
        } else {
            (none, none)
        };
        let sets = CapabilitySets {
            effective,
            permitted,
            inheritable: none,
        };
        Ok(rustix::thread::set_capabilities(None, sets)?)
    }
}

/// The kernel's number of a capability, as a set of one.
fn bit(capability: Capability) -> CapabilitySet {
    let name = format!("{capability:?}");
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let found = CapabilitySet::all().iter_names().find(|(known, _)| {
        let known = known.chars().filter(char::is_ascii_alphanumeric);
        known
            .map(|c| c.to_ascii_lowercase())
            .eq(name.chars().map(|c| c.to_ascii_lowercase()))
    });
    found.map_or(CapabilitySet::empty(), |(_, set)| set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_of_the_specification_is_known() {
        let names = "CHOWN DAC_OVERRIDE FSETID FOWNER SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE \
                     SYS_CHROOT KILL SYS_ADMIN PERFMON BPF CHECKPOINT_RESTORE AUDIT_READ SYSLOG";
        for name in names.split_whitespace() {
            let json = format!("\"CAP_{name}\"");
            let capability: Capability = serde_json::from_str(&json).unwrap();
            assert_eq!(bit(capability).iter_names().next().unwrap().0, name);
        }
    }

    #[test]
    fn c6_nothing_is_effective_that_is_not_bounding() {
        let spec = r#"{"bounding":["CAP_KILL"],"permitted":["CAP_KILL","CAP_SYS_ADMIN"],
                       "effective":["CAP_SYS_ADMIN"],"inheritable":["CAP_KILL"],"ambient":["CAP_KILL"]}"#;
        let sets = Sets::from_spec(Some(&serde_json::from_str(spec).unwrap()));
        assert_eq!(sets.permitted, CapabilitySet::KILL);
        assert_eq!(sets.effective, CapabilitySet::empty());
    }
}
