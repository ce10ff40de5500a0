//! `delete`.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;

use oci_spec::runtime::ContainerState;
use orlop_shim::oci;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Error, Result};
use crate::state::{Container, Status, directory};
use crate::{groups, hooks};

/// How long a killed process may take to be gone.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// Removes a container.
pub(super) fn delete(root: &Path, id: &str, force: bool) -> Result<()> {
    let container = match Container::open(root, id) {
        // What is left of a creation that never came to its end goes as well.
        Err(Error::Missing) if force => return remove_directory(&directory(root, id)?),
        found => found?,
    };
    match container.status() {
        status @ (Status::Running | Status::Paused) if !force => {
            return Err(Error::NotStopped(status.word()));
        }
        Status::Stopped => {}
        _ => kill(&container)?,
    }
    let spec = container.spec()?;
    oci::kill_all(&container.record.cgroups);
    let record = &container.record;
    groups::remove(&record.cgroups, record.scope.as_deref())?;
    remove_directory(&container.directory)?;
    let poststop = spec.hooks().as_ref();
    let poststop = poststop.and_then(|hooks| hooks.poststop().as_ref());
    hooks::run_all(poststop, &container.state(ContainerState::Stopped, &spec))
}

fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", directory)(error))
        }
        _ => Ok(()),
    }
}

/// Kills what runs in it.
pub(super) fn kill(container: &Container) -> Result<()> {
    let Some(first) = container.first() else {
        return Ok(());
    };
    // It may have ended since.
    oci::signal(first.as_fd(), 9).ok();
    oci::kill_all(&container.record.cgroups);
    let mut ended = [PollFd::new(&first, PollFlags::IN)];
    match rustix::io::retry_on_intr(|| poll(&mut ended, Some(&PATIENCE))) {
        Ok(0) => Err(Error::NotStopped("it does not die")),
        _ => Ok(()),
    }
}
