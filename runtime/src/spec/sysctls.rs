//! Kernel parameters: those of namespaces that the container has for itself, and no other (rows B32,
//! B33).

use std::collections::HashMap;

use oci_spec::runtime::LinuxNamespaceType;
use orlop_proto::runtime::CreateRequest;
use orlop_shim::sysctls::{DOMAIN_NAME, namespace_of};

use super::namespaces::{self, Mode};
use crate::error::{Error, Result};
use crate::subids::IdRange;

const PING: &str = "net.ipv4.ping_group_range";
const SYSCTLS_MAX: usize = 256;
/// What the kernel reads of one write to a parameter.
const VALUE_MAX: usize = 4096;

/// Judges all of a request's.
pub(super) fn check(config: &CreateRequest) -> Result<()> {
    if config.sysctls.len() > SYSCTLS_MAX {
        return Err(Error::invalid("sysctl", "too many of them"));
    }
    for (name, value) in &config.sysctls {
        one(config, name, value).map_err(|problem| {
            let shown: String = name.chars().take(128).collect();
            Error::invalid("sysctl", format!("{shown:?}: {problem}"))
        })?;
    }
    Ok(())
}

/// Those of a request. Everybody in a user namespace may ping, as in one of the network alone: the network
/// allows it to groups of the lower half only.
pub(super) fn all(config: &CreateRequest, ids: Option<IdRange>) -> HashMap<String, String> {
    let mut all = config.sysctls.clone();
    if !config.domainname.is_empty() {
        all.insert(DOMAIN_NAME.to_owned(), config.domainname.clone());
    }
    if let Some(ids) = ids {
        all.entry(PING.to_owned())
            .or_insert_with(|| format!("0 {}", ids.size - 1));
    }
    all
}

fn one(config: &CreateRequest, name: &str, value: &str) -> Result<(), &'static str> {
    let kind = namespace_of(name)?;
    if value.len() > VALUE_MAX || value.chars().any(char::is_control) {
        return Err("its value is too long, or has a control character");
    }
    let (own, problem) = match kind {
        LinuxNamespaceType::Network => (
            namespaces::own_network(config),
            "it needs a network of the container's own",
        ),
        LinuxNamespaceType::Ipc => (
            namespaces::ipc(config).is_ok_and(|mode| mode == Mode::Own),
            "it needs an IPC namespace of the container's own",
        ),
        // As with Docker.
        _ => (false, "--domainname is for that"),
    };
    own.then_some(()).ok_or(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, value: &str) -> CreateRequest {
        CreateRequest {
            sysctls: [(name.to_owned(), value.to_owned())].into(),
            ..CreateRequest::default()
        }
    }

    #[test]
    fn b32_nothing_but_a_parameter_of_a_namespace_is_set() {
        check(&asked("net.ipv4.ip_unprivileged_port_start", "0")).unwrap();
        check(&asked("kernel.shm_rmid_forced", "1")).unwrap();
        check(&asked("fs.mqueue.msg_max", "100")).unwrap();
        for name in [
            "kernel.core_pattern",
            "kernel.shmmax+kernel.core_pattern",
            "kernel.shmmax=1",
            "kernel.shmmax\nkernel.core_pattern",
            "net/../kernel/core_pattern",
            "net..ipv4",
            "net.",
            "",
            "vm.overcommit_memory",
        ] {
            assert!(check(&asked(name, "1")).is_err(), "{name:?}");
        }
        assert!(check(&asked("kernel.shmmax", "1\n2")).is_err());
    }

    #[test]
    fn b33_nothing_of_a_namespace_of_the_hosts_is_set() {
        let mut net = asked("net.ipv4.ip_forward", "1");
        let mut ipc = asked("kernel.shmmax", "1");
        for (network, mode) in [("host", "host"), ("container:a", "container:a")] {
            network.clone_into(&mut net.network);
            mode.clone_into(&mut ipc.ipc_mode);
            assert!(check(&net).is_err());
            assert!(check(&ipc).is_err());
        }
        "none".clone_into(&mut net.network);
        "none".clone_into(&mut ipc.ipc_mode);
        check(&net).unwrap();
        check(&ipc).unwrap();
    }
}
