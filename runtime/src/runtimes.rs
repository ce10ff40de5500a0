//! Other OCI runtimes, which make a container in the place of the shim's own code.
//!
//! A runtime is run by root, so it is a program that nobody but root can change.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::spec::validate;

/// What the shim's own code is called.
const OWN: &str = "orlop";
/// Writable by the group or by everybody.
const OTHERS_WRITE: u32 = 0o022;
/// What others have put into such a directory is theirs alone.
const STICKY: u32 = 0o1000;
/// Executable by somebody.
const EXECUTE: u32 = 0o111;
/// The longest name of a file.
const NAME_MAX: usize = 255;

/// Where runtimes are found.
#[derive(Clone, Debug)]
pub(crate) struct Runtimes {
    default: String,
    search_path: Vec<PathBuf>,
}

impl Runtimes {
    /// With the one for containers that ask for none.
    pub(crate) fn new(default: Option<String>, search_path: Vec<PathBuf>) -> Self {
        let default = default.unwrap_or_default();
        Self {
            default,
            search_path,
        }
    }

    /// The name that a new container keeps: what it asked for, else the default; empty is our own.
    /// There must be such a runtime.
    pub(crate) fn choose(&self, asked: &str) -> Result<String> {
        let name = match asked {
            "" => &self.default,
            asked => asked,
        };
        self.find(name)?;
        Ok(if name == OWN { "" } else { name }.to_owned())
    }

    /// The program of this name; `None`: our own code.
    pub(crate) fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        if name.is_empty() || name == OWN {
            return Ok(None);
        }
        let path = match name.contains('/') {
            true => {
                validate::absolute("runtime", name)?;
                PathBuf::from(name)
            }
            false => self.look_up(name)?,
        };
        check(&path).map(Some)
    }

    fn look_up(&self, name: &str) -> Result<PathBuf> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
        if name.len() > NAME_MAX || !name.bytes().all(known) {
            let shown: String = name.chars().take(64).collect();
            let problem = format!("{shown:?}: expected a name or an absolute path");
            return Err(Error::invalid("runtime", problem));
        }
        let directories = self.search_path.iter().filter(|path| path.is_absolute());
        let mut candidates = directories.map(|directory| directory.join(name));
        let found = candidates.find(|path| fs::metadata(path).is_ok_and(|file| file.is_file()));
        found.ok_or_else(|| {
            let problem = format!(
                "there is no program {name:?} in PATH of the runtime service: install it or give its path"
            );
            Error::invalid("runtime", problem)
        })
    }
}

/// The program itself, with no link left in its path.
fn check(path: &Path) -> Result<PathBuf> {
    let refuse = |problem: &str| {
        let problem = format!("{}: {problem}", path.display());
        Err(Error::invalid("runtime", problem))
    };
    let Ok(real) = fs::canonicalize(path) else {
        return refuse("there is no such program");
    };
    let Ok(file) = fs::metadata(&real) else {
        return refuse("there is no such program");
    };
    if !file.is_file() || file.mode() & EXECUTE == 0 {
        return refuse("this is not a program");
    }
    let directories = real.ancestors().skip(1);
    let safe = |directory: &Path| fs::metadata(directory).is_ok_and(|found| is_roots(&found));
    if !is_roots(&file) || !directories.into_iter().all(safe) {
        return refuse(
            "somebody besides root can change it: root has to own it and its directories",
        );
    }
    Ok(real)
}

/// Whether only root can change what is there.
fn is_roots(found: &Metadata) -> bool {
    let shared = found.is_dir() && found.mode() & STICKY != 0;
    found.uid() == 0 && (found.mode() & OTHERS_WRITE == 0 || shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn program(directory: &Path, name: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn told(runtimes: &Runtimes, name: &str) -> String {
        runtimes.find(name).unwrap_err().to_string()
    }

    #[test]
    fn a_runtime_is_found_by_path_or_name_and_our_own_needs_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = program(directory.path(), "runc", 0o755);
        let search = vec![PathBuf::from("bin"), directory.path().into()];
        let runtimes = Runtimes::new(None, search.clone());
        let real = fs::canonicalize(&path).unwrap();
        assert_eq!(runtimes.find("runc").unwrap(), Some(real.clone()));
        assert_eq!(runtimes.find(path.to_str().unwrap()).unwrap(), Some(real));
        assert_eq!(runtimes.find("").unwrap(), None);
        assert_eq!(runtimes.choose("").unwrap(), "");
        let runtimes = Runtimes::new(Some("runc".to_owned()), search);
        assert_eq!(runtimes.choose("").unwrap(), "runc");
        assert_eq!(runtimes.choose("orlop").unwrap(), "");
        assert!(told(&runtimes, "crun").contains("\"crun\" in PATH"));
        for bad in ["bin/runc", "/bin/../bin/runc", "ru nc", "/no/such"] {
            assert!(runtimes.find(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_program_that_others_can_change_is_no_runtime() {
        let directory = tempfile::tempdir().unwrap();
        let runtimes = Runtimes::new(None, Vec::new());
        let path = program(directory.path(), "runtime", 0o775);
        let name = path.to_str().unwrap();
        assert!(told(&runtimes, name).contains("besides root"));
        program(directory.path(), "runtime", 0o644);
        assert!(told(&runtimes, name).contains("not a program"));
        program(directory.path(), "runtime", 0o755);
        assert!(runtimes.find(name).is_ok());
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.path(), open).unwrap();
        assert!(told(&runtimes, name).contains("besides root"));
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
        assert!(told(&runtimes, name).contains("besides root"));
        assert!(told(&runtimes, directory.path().to_str().unwrap()).contains("not a program"));
    }
}
