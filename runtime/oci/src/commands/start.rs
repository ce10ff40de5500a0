//! `start` and `run`.

use std::fs;
use std::path::Path;

use oci_spec::runtime::ContainerState;
use orlop_shim::oci;

use super::{create, delete};
use crate::args::Create;
use crate::error::{Error, Result};
use crate::hooks;
use crate::inherited::Descriptors;
use crate::state::{Container, Status};

/// Lets a container begin.
pub(super) fn start(container: &Container) -> Result<()> {
    match container.status() {
        Status::Created => {}
        other => return Err(Error::NotCreated(other.word())),
    }
    let spec = container.spec()?;
    let hooks = spec.hooks().as_ref();
    let own = hooks.and_then(|all| all.start_container().as_ref());
    let patient = own.is_some_and(|hooks| !hooks.is_empty());
    oci::begin(&container.directory, patient)?;
    let gate = oci::gate(&container.directory);
    fs::remove_file(&gate).map_err(Error::file("remove", gate))?;
    let state = container.state(ContainerState::Running, &spec);
    let told = hooks::run(hooks.and_then(|all| all.poststart().as_ref()), &state);
    if told.is_err() {
        delete::kill(container)?;
    }
    told
}

/// Makes a container, starts it and, unless it is to be detached, waits for its end and removes it.
pub(super) fn run(root: &Path, args: &Create, by_systemd: bool, detach: bool) -> Result<u8> {
    let kept = Descriptors::find(args.process.preserve_fds)?;
    let wait = (!detach).then(oci::Wait::prepare).transpose()?;
    let container = create::create(root, args, by_systemd, kept)?;
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
