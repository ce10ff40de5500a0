//! The document of the bundle: the service's, with all that the shim does by itself otherwise.

use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxNamespace, LinuxNamespaceType, LinuxResources, LinuxSeccomp, Mount, Process, Spec, User,
};

use crate::process::DEFAULT_UMASK;
use crate::user::Identity;

/// The newest version that every runtime in use reads; nothing newer is in our documents.
const VERSION: &str = "1.0.2";
/// How changes of mounts spread, as the specification names it.
const PROPAGATIONS: [&str; 6] = [
    "private",
    "rprivate",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
];

/// The process with its user found.
pub(super) fn process(process: &Process, identity: &Identity) -> Process {
    let mut user = User::default();
    user.set_uid(identity.uid)
        .set_gid(identity.gid)
        .set_umask(process.user().umask().or(Some(DEFAULT_UMASK)))
        .set_additional_gids(Some(identity.groups.clone()));
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    let mut complete = process.clone();
    complete.set_user(user).set_env(Some(env));
    complete
}

/// The tree at `place`, which has all attributes of the mount already.
pub(super) fn bind(mount: &Mount, place: PathBuf) -> Mount {
    let known = |word: &&String| PROPAGATIONS.contains(&word.as_str());
    let spread = mount.options().iter().flatten().filter(known).cloned();
    let options = std::iter::once("rbind".to_owned()).chain(spread).collect();
    let mut bind = mount.clone();
    bind.set_typ(Some("bind".to_owned()))
        .set_source(Some(place))
        .set_options(Some(options));
    bind
}

/// The whole document. The limits of the groups are set already; who may open which device is not.
pub(super) fn complete(
    spec: &Spec,
    process: Process,
    mounts: Vec<Mount>,
    filter: Option<LinuxSeccomp>,
) -> Spec {
    let mut complete = spec.clone();
    complete
        .set_version(VERSION.to_owned())
        .set_process(Some(process))
        .set_mounts(Some(mounts));
    let linux = spec.linux().clone().map(|mut linux| {
        let devices = linux
            .resources()
            .as_ref()
            .and_then(|all| all.devices().clone());
        let mut resources = LinuxResources::default();
        resources.set_devices(devices);
        linux.set_resources(Some(resources)).set_seccomp(filter);
        linux
    });
    complete.set_linux(linux);
    if !names_itself(spec) {
        complete.set_hostname(None);
    }
    complete
}

/// Whether it has a host name of its own; runtimes refuse to change that of others.
fn names_itself(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref());
    let own = |namespace: &LinuxNamespace| {
        namespace.typ() == LinuxNamespaceType::Uts && namespace.path().is_none()
    };
    namespaces.unwrap_or_default().iter().any(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            uid: 33,
            gid: 34,
            groups: vec![34, 40],
            home: "/var/www".to_owned(),
        }
    }

    #[test]
    fn the_process_has_the_numbers_of_its_user_and_a_home() {
        let mut asked = Process::default();
        asked.set_env(Some(vec!["A=b".to_owned()]));
        let made = process(&asked, &identity());
        let user = made.user();
        assert_eq!(
            (user.uid(), user.gid(), user.umask()),
            (33, 34, Some(0o022))
        );
        assert_eq!(user.additional_gids().as_deref(), Some([34, 40].as_slice()));
        assert_eq!(made.env().as_deref().unwrap(), ["A=b", "HOME=/var/www"]);
        asked.set_env(Some(vec!["HOME=/".to_owned()]));
        assert_eq!(
            process(&asked, &identity()).env().as_deref().unwrap(),
            ["HOME=/"]
        );
    }

    #[test]
    fn a_bind_mount_keeps_how_it_spreads_and_leaves_the_rest_to_what_is_mounted() {
        let mut mount = Mount::default();
        let words = ["bind", "rro", "rslave", "X-mount.subdir=a"].map(str::to_owned);
        mount.set_options(Some(words.to_vec()));
        let made = bind(&mount, "/b/mounts/1".into());
        assert_eq!(made.options().as_deref().unwrap(), ["rbind", "rslave"]);
        assert_eq!(
            made.source().as_deref().unwrap().to_str(),
            Some("/b/mounts/1")
        );
    }

    #[test]
    fn limits_are_the_services_and_devices_the_runtimes() {
        let spec = Spec::default();
        let made = complete(&spec, Process::default(), Vec::new(), None);
        let resources = made.linux().as_ref().unwrap().resources().clone().unwrap();
        assert!(resources.devices().is_some() && resources.memory().is_none());
        assert_eq!(made.version(), VERSION);
    }

    #[test]
    fn a_host_name_goes_with_a_namespace_for_it() {
        let mut spec = Spec::default();
        spec.set_hostname(Some("box".to_owned()));
        let named = |spec: &Spec| {
            let made = complete(spec, Process::default(), Vec::new(), None);
            made.hostname().clone()
        };
        assert_eq!(named(&spec).as_deref(), Some("box"));
        let mut linux = spec.linux().clone().unwrap();
        linux.set_namespaces(Some(Vec::new()));
        spec.set_linux(Some(linux));
        assert_eq!(named(&spec), None);
    }
}
