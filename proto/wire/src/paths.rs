//! Where an instance of Orlop lives on its host.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::{Endpoint, ListenError};

const ROOT_DEFAULT: &str = "/var/lib/orlop";
const RUN_DIR_DEFAULT: &str = "/run/orlop";

/// The options that choose an instance. Two instances with different roots run side by side.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PathArgs {
    /// Where state is kept [default: /var/lib/orlop]
    #[arg(
        long,
        env = "ORLOP_ROOT",
        value_name = "DIR",
        global = true,
        hide_env_values = true
    )]
    pub root: Option<PathBuf>,

    /// Where sockets are [default: /run/orlop, or ROOT/run if a root is given]
    #[arg(
        long,
        env = "ORLOP_RUN_DIR",
        value_name = "DIR",
        global = true,
        hide_env_values = true
    )]
    pub run_dir: Option<PathBuf>,
}

/// The two directories of an instance, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// State that outlives a reboot.
    pub root: PathBuf,
    /// Sockets, and state that does not.
    pub run_dir: PathBuf,
}

impl PathArgs {
    /// The directories, with the defaults filled in. A relative path is taken from the working
    /// directory of now.
    pub fn resolve(&self) -> Paths {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
        let root = self.root.as_deref().map(absolute);
        let run_dir = match (&self.run_dir, &root) {
            (Some(run_dir), _) => absolute(run_dir),
            (None, Some(root)) if root != Path::new(ROOT_DEFAULT) => root.join("run"),
            (None, _) => PathBuf::from(RUN_DIR_DEFAULT),
        };
        Paths {
            root: root.unwrap_or_else(|| PathBuf::from(ROOT_DEFAULT)),
            run_dir,
        }
    }
}

impl Paths {
    /// The Unix socket of a service of this instance: `store`, `builder`, `runtime`, `registry`.
    pub fn socket(&self, service: &str) -> PathBuf {
        self.run_dir.join(format!("{service}.sock"))
    }

    /// The same as an endpoint.
    pub fn endpoint(&self, service: &str) -> Endpoint {
        Endpoint::Unix(self.socket(service))
    }

    /// Where a service keeps its state.
    pub fn state(&self, service: &str) -> PathBuf {
        self.root.join(service)
    }

    /// The same, made if it is missing, with mode 0700: what is in layers and contexts is no business
    /// of the host's other users (`SECURITY` row J3).
    pub fn make_state(&self, service: &str) -> Result<PathBuf, ListenError> {
        let path = self.state(service);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        let closed =
            made.and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o700)));
        match closed {
            Ok(()) => Ok(path),
            Err(source) => Err(ListenError::State { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_of_its_own_brings_a_run_dir_of_its_own() {
        let args = PathArgs {
            root: Some("/tmp/a".into()),
            run_dir: None,
        };
        assert_eq!(args.resolve().run_dir, Path::new("/tmp/a/run"));
        assert_eq!(
            PathArgs::default().resolve().run_dir,
            Path::new("/run/orlop")
        );
        assert_eq!(
            PathArgs::default().resolve().root,
            Path::new("/var/lib/orlop")
        );
    }
}
