//! Which namespaces a container has of its own, and whose it has otherwise.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use orlop_proto::runtime::CreateRequest;

use crate::error::{Error, Result};
use crate::subids::IdRange;

/// Whose namespace it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The container's own.
    Own,
    /// The host's.
    Host,
    /// That of another container, by id or name.
    Container(String),
}

/// Namespaces of other containers that are joined.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    /// Of processes.
    pub pid: Option<PathBuf>,
    /// Of System V IPC and message queues.
    pub ipc: Option<PathBuf>,
    /// Of user ids: made for this container, which has these ids of the host.
    pub user: Option<(PathBuf, IdRange)>,
}

/// Whose processes it sees.
pub fn pid(config: &CreateRequest) -> Result<Mode> {
    parse("--pid", &config.pid_mode, &[], true)
}

/// Whose System V IPC and message queues it has.
pub fn ipc(config: &CreateRequest) -> Result<Mode> {
    let own = ["private", "none", "shareable"];
    parse("--ipc", &config.ipc_mode, &own, true)
}

/// Whose host name it has.
pub fn uts(config: &CreateRequest) -> Result<Mode> {
    parse("--uts", &config.uts_mode, &[], false)
}

/// Where its tree of control groups begins.
pub fn cgroup(config: &CreateRequest) -> Result<Mode> {
    parse("--cgroupns", &config.cgroupns_mode, &["private"], false)
}

/// Whether it has a network namespace of its own.
pub fn own_network(config: &CreateRequest) -> bool {
    config.network != "host" && !config.network.starts_with("container:")
}

/// Judges all of them.
pub(super) fn check(config: &CreateRequest) -> Result<()> {
    pid(config)?;
    ipc(config)?;
    cgroup(config)?;
    if uts(config)? == Mode::Host {
        let mut named = [
            ("--hostname", &config.hostname),
            ("--domainname", &config.domainname),
        ]
        .into_iter();
        if let Some((option, _)) = named.find(|(_, name)| !name.is_empty()) {
            let problem = format!("{option} and --uts host exclude one another");
            return Err(Error::invalid("namespace", problem));
        }
    }
    Ok(())
}

fn parse(option: &str, text: &str, own: &[&str], joins: bool) -> Result<Mode> {
    let another = text.strip_prefix("container:").filter(|_| joins);
    match another {
        Some(id) if !id.is_empty() => return Ok(Mode::Container(id.to_owned())),
        None if text.is_empty() || own.contains(&text) => return Ok(Mode::Own),
        None if text == "host" => return Ok(Mode::Host),
        _ => {}
    }
    let mut words = own.to_vec();
    words.push("host");
    words.extend(joins.then_some("container:ID"));
    let shown: String = text.chars().take(64).collect();
    let problem = format!("{option} {shown:?}: expected {}", words.join(", "));
    Err(Error::invalid("namespace", problem))
}

/// The list of the document.
pub(super) fn list(
    config: &CreateRequest,
    netns: Option<&Path>,
    joined: &Joined,
) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let mut all = vec![namespace(Mount, None)];
    let modes = [
        (Pid, pid(config)?, joined.pid.as_deref()),
        (Uts, uts(config)?, None),
        (Ipc, ipc(config)?, joined.ipc.as_deref()),
        (Cgroup, cgroup(config)?, None),
    ];
    for (kind, mode, path) in modes {
        match mode {
            Mode::Own => all.push(namespace(kind, None)),
            Mode::Host => {}
            Mode::Container(id) => match path {
                Some(path) => all.push(namespace(kind, Some(path))),
                None => return Err(Error::NoContainer(id)),
            },
        }
    }
    all.extend(netns.map(|path| namespace(Network, Some(path))));
    let user = joined.user.as_ref();
    all.extend(user.map(|(path, _)| namespace(User, Some(path))));
    Ok(all)
}

fn namespace(kind: LinuxNamespaceType, path: Option<&Path>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path.map(PathBuf::from));
    namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pid: &str, ipc: &str, uts: &str, cgroup: &str) -> CreateRequest {
        CreateRequest {
            pid_mode: pid.to_owned(),
            ipc_mode: ipc.to_owned(),
            uts_mode: uts.to_owned(),
            cgroupns_mode: cgroup.to_owned(),
            ..CreateRequest::default()
        }
    }

    #[test]
    fn a_container_has_its_own_namespaces_unless_asked_otherwise() {
        let kinds = |config: &CreateRequest| -> Vec<LinuxNamespaceType> {
            let list = list(config, None, &Joined::default()).unwrap();
            list.iter().map(LinuxNamespace::typ).collect()
        };
        assert_eq!(kinds(&config("", "", "", "")).len(), 5);
        assert_eq!(kinds(&config("", "none", "", "private")).len(), 5);
        let shared = kinds(&config("host", "host", "host", "host"));
        assert_eq!(shared, [LinuxNamespaceType::Mount]);
    }

    #[test]
    fn a_namespace_of_another_container_is_joined_by_its_file_or_not_at_all() {
        let config = config("container:web", "", "", "");
        assert!(list(&config, None, &Joined::default()).is_err());
        let joined = Joined {
            pid: Some("/proc/1/fd/9".into()),
            ..Joined::default()
        };
        let all = list(&config, None, &joined).unwrap();
        let pid = all.iter().find(|n| n.typ() == LinuxNamespaceType::Pid);
        assert_eq!(pid.unwrap().path().as_deref(), joined.pid.as_deref());
    }

    #[test]
    fn unknown_words_are_refused_with_the_option() {
        for bad in [
            config("container:", "", "", ""),
            config("private", "", "", ""),
            config("", "other", "", ""),
            config("", "", "container:a", ""),
            config("", "", "", "none"),
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
        let mut named = config("", "", "host", "");
        named.hostname = "web".to_owned();
        assert!(check(&named).is_err());
        named.domainname = std::mem::take(&mut named.hostname);
        assert!(check(&named).is_err());
    }
}
