//! `update`.

use std::path::Path;

use oci_spec::runtime::LinuxResources;
use orlop_shim::cgroups::live;

use crate::bundle::{self, unsupported_of_resources};
use crate::error::{Error, Result};
use crate::groups::limits_of;
use crate::state::{Container, Status};

/// Changes the limits of a container: all of them, or none.
pub(super) fn update(container: &Container, resources: &Path) -> Result<()> {
    let path = match resources == Path::new("-") {
        true => Path::new("/proc/self/fd/0"),
        false => resources,
    };
    let asked: LinuxResources = bundle::read(path)?;
    if let Some(what) = unsupported_of_resources(&asked) {
        return Err(Error::Unsupported(what));
    }
    if container.status() == Status::Stopped {
        return Err(Error::NotRunning);
    }
    live::change(&container.record.cgroups, &limits_of(asked))?;
    Ok(())
}
