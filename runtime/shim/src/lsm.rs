//! Linux security modules: the AppArmor profile and the SELinux label that a process takes on with its
//! command.
//!
//! They are written to `/proc/thread-self/attr/` of a proc file system that nobody else has a path to:
//! what is at `/proc` of a container its image may have a say in (row B12). What this host does not
//! enforce is refused, never left out.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use oci_spec::runtime::{Linux, Process};
use rustix::fs::OFlags;
use rustix::mount::MountAttrFlags;

use crate::error::{Error, Result};
use crate::rootfs;

/// The longest name: with its verb it has to fit into a page, which the kernel reads at once.
const NAME_BYTES_MAX: usize = 4000;

/// A module, and the word for what it gives to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Module {
    AppArmor,
    SeLinux,
}

impl Module {
    fn name(self) -> &'static str {
        match self {
            Self::AppArmor => "AppArmor",
            Self::SeLinux => "SELinux",
        }
    }

    /// Whether the kernel enforces it, or would if its operator let it.
    fn is_enabled(self, host: &Path) -> bool {
        match self {
            Self::AppArmor => {
                let path = host.join("sys/module/apparmor/parameters/enabled");
                fs::read_to_string(path).is_ok_and(|text| text.starts_with('Y'))
            }
            Self::SeLinux => host.join("sys/fs/selinux/enforce").exists(),
        }
    }
}

/// The profile that a process asks for.
fn profile(process: &Process) -> Option<&str> {
    let profile = process.apparmor_profile().as_deref();
    profile.filter(|name| !matches!(*name, "" | "unconfined"))
}

/// The label that a process asks for.
fn label(process: &Process) -> Option<&str> {
    let label = process.selinux_label().as_deref();
    label.filter(|label| !label.is_empty())
}

/// The label of the file systems that are made for a container.
pub(crate) fn mount_label(linux: &Linux) -> Option<&str> {
    let label = linux.mount_label().as_deref();
    label.filter(|label| !label.is_empty())
}

/// Fails if a process asks for what this host does not enforce. To be called on the host.
pub(crate) fn check(process: &Process) -> Result<()> {
    let host = Path::new("/");
    check_one(Module::AppArmor, profile(process), host)?;
    check_one(Module::SeLinux, label(process), host)
}

/// The same of the label of file systems.
pub(crate) fn check_mounts(linux: &Linux) -> Result<()> {
    check_one(Module::SeLinux, mount_label(linux), Path::new("/"))
}

fn check_one(module: Module, name: Option<&str>, host: &Path) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    let module_name = module.name();
    let lacks = |problem| Error::NoLabel {
        module: module_name,
        name: name.chars().take(64).collect(),
        problem,
    };
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        Err(lacks("it is not a name"))
    } else if !module.is_enabled(host) {
        Err(lacks("the kernel of this host does not have it"))
    } else {
        Ok(())
    }
}

/// Makes the caller's next exec take on profile and label. It needs privileges to see its own attributes,
/// so it comes before they are given up.
pub(crate) fn at_exec(process: &Process) -> Result<()> {
    if let Some(name) = profile(process) {
        // Every module has a directory of its own since Linux 5.1.
        let files = ["apparmor/exec", "exec"];
        write(Module::AppArmor, &files, name, &format!("exec {name}"))?;
    }
    if let Some(name) = label(process) {
        write(Module::SeLinux, &["exec"], name, name)?;
    }
    Ok(())
}

/// Makes the caller, which executes nothing, take on the profile. No label: SELinux lets hardly anybody
/// change theirs without an exec.
pub(crate) fn at_once(process: &Process) -> Result<()> {
    let files = ["apparmor/current", "current"];
    match profile(process) {
        Some(name) => write(
            Module::AppArmor,
            &files,
            name,
            &format!("changeprofile {name}"),
        ),
        None => Ok(()),
    }
}

fn write(module: Module, files: &[&str], name: &str, text: &str) -> Result<()> {
    let written = || -> io::Result<()> {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
        let proc = rootfs::new_filesystem("proc", Path::new("proc"), &[], attributes)?;
        let own = Path::new("thread-self/attr");
        let own = rootfs::open_in(&proc, own, OFlags::PATH | OFlags::DIRECTORY)?;
        write_first(own.as_fd(), files, text)
    };
    written().map_err(|source| Error::Label {
        module: module.name(),
        name: name.to_owned(),
        source,
    })
}

/// Writes to the first of the files that is there.
fn write_first(directory: BorrowedFd<'_>, files: &[&str], text: &str) -> io::Result<()> {
    let mut missing = io::Error::from(io::ErrorKind::NotFound);
    for file in files {
        match rootfs::open_plain(directory, Path::new(file), OFlags::WRONLY) {
            Ok(file) => return File::from(file).write_all(text.as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
            Err(error) => return Err(error),
        }
    }
    Err(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let host = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = host.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        host
    }

    #[test]
    fn b12_what_the_host_does_not_enforce_is_refused() {
        let enabled = "sys/module/apparmor/parameters/enabled";
        for (file, text, module, expected) in [
            (enabled, "Y\n", Module::AppArmor, true),
            (enabled, "N\n", Module::AppArmor, false),
            ("sys/fs/selinux/enforce", "0", Module::SeLinux, true),
            ("sys/fs/selinux/enforce", "1", Module::AppArmor, false),
            ("sys/other", "", Module::SeLinux, false),
        ] {
            let host = host(&[(file, text)]);
            let checked = check_one(module, Some("some"), host.path());
            assert_eq!(checked.is_ok(), expected, "{file} {text:?} {module:?}");
            check_one(module, None, host.path()).unwrap();
        }
    }

    #[test]
    fn b12_a_profile_has_a_name() {
        let host = host(&[("sys/module/apparmor/parameters/enabled", "Y\n")]);
        for name in ["a\nb", "a\0b", &"a".repeat(4001)] {
            assert!(check_one(Module::AppArmor, Some(name), host.path()).is_err());
        }
        check_one(Module::AppArmor, Some("/usr/bin/a b"), host.path()).unwrap();
    }

    #[test]
    fn nothing_is_asked_for_by_an_empty_name_or_by_unconfined() {
        let mut process = Process::default();
        for name in ["", "unconfined"] {
            process.set_apparmor_profile(Some(name.to_owned()));
            process.set_selinux_label(Some(String::new()));
            assert_eq!((profile(&process), label(&process)), (None, None));
        }
        check(&process).unwrap();
        at_exec(&process).unwrap();
    }

    #[test]
    fn the_files_of_the_module_come_before_those_of_all() {
        let files = ["apparmor/exec", "exec"];
        for (there, written) in [(&files[..], "apparmor/exec"), (&files[1..], "exec")] {
            let attributes = host(&there.iter().map(|file| (*file, "")).collect::<Vec<_>>());
            let directory = File::open(attributes.path()).unwrap();
            write_first(directory.as_fd(), &files, "exec some").unwrap();
            let text = fs::read_to_string(attributes.path().join(written)).unwrap();
            assert_eq!(text, "exec some");
        }
    }

    #[test]
    fn b12_a_link_or_nothing_in_the_place_of_an_attribute_is_an_error() {
        let attributes = host(&[("elsewhere", "")]);
        let directory = File::open(attributes.path()).unwrap();
        assert!(write_first(directory.as_fd(), &["exec"], "exec some").is_err());
        std::os::unix::fs::symlink("elsewhere", attributes.path().join("exec")).unwrap();
        assert!(write_first(directory.as_fd(), &["exec"], "exec some").is_err());
        let elsewhere = fs::read_to_string(attributes.path().join("elsewhere")).unwrap();
        assert_eq!(elsewhere, "");
    }
}
