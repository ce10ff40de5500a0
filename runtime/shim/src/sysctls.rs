//! Kernel parameters: which namespace one belongs to.

use oci_spec::runtime::LinuxNamespaceType;

/// Of System V IPC: `ipc_namespaces(7)`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The NIS domain name.
pub const DOMAIN_NAME: &str = "kernel.domainname";

/// The kind of namespace that a parameter is one of, by its name with dots; why there is none: it is no
/// name, or the whole host has one value of it (row B32).
pub fn namespace_of(name: &str) -> Result<LinuxNamespaceType, &'static str> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !name.bytes().all(known) || name.split('.').any(str::is_empty) {
        return Err("expected a name such as net.ipv4.ip_forward");
    }
    match name {
        name if name.starts_with("net.") => Ok(LinuxNamespaceType::Network),
        name if IPC.contains(&name) || name.starts_with("fs.mqueue.") => {
            Ok(LinuxNamespaceType::Ipc)
        }
        DOMAIN_NAME => Ok(LinuxNamespaceType::Uts),
        _ => Err(
            "it belongs to the host: only kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* do not",
        ),
    }
}
