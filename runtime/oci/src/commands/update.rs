//! `update`.

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use crate::bundle::{self, unsupported_of_resources};
use crate::error::{Error, Result};
use crate::groups;
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
    let record = &container.record;
    let scope = record.scope.as_deref();
    groups::change(&record.cgroups, scope, &groups::limits_of(asked))
}
