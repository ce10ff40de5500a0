//! `start` and `run`.

use std::fs;
use std::path::Path;

use oci_spec::runtime::ContainerState;
use orlop_shim::oci;

use super::{create, delete};
use crate::args::Create;
use crate::error::{Error, Result};
use crate::hooks;
use crate::state::{Container, Status};

/// Lets a container begin.
pub(super) fn start(container: &Container) -> Result<()> {
    match container.status() {
        Status::Created => {}
        other => return Err(Error::NotCreated(other.word())),
    }
    oci::begin(&container.directory)?;
    let gate = oci::gate(&container.directory);
    fs::remove_file(&gate).map_err(Error::file("remove", gate))?;
    let spec = container.spec()?;
    let state = container.state(ContainerState::Running, &spec);
    let poststart = spec.hooks().as_ref();
    let poststart = poststart.and_then(|hooks| hooks.poststart().as_ref());
    hooks::run(poststart, &state)
}

/// Makes a container, starts it and, unless it is to be detached, waits for its end and removes it.
pub(super) fn run(root: &Path, args: &Create, detach: bool) -> Result<u8> {
    let wait = (!detach).then(oci::Wait::prepare).transpose()?;
    let container = create::create(root, args)?;
    let started = start(&container);
    let Some(wait) = wait.filter(|_| started.is_ok()) else {
        if started.is_err() {
            delete::delete(root, &args.id, true)?;
        }
        return started.map(|()| 0);
    };
    let code = wait.until_end(container.record.pid);
    delete::delete(root, &args.id, true)?;
    Ok(code)
}
