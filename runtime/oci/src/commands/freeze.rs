//! `pause` and `resume`.

use orlop_shim::cgroups::freeze;

use crate::error::{Error, Result};
use crate::state::{Container, Status};

/// Freezes or thaws what runs.
pub(super) fn set_frozen(container: &Container, frozen: bool) -> Result<()> {
    match container.status() {
        Status::Stopped => Err(Error::NotRunning),
        _ => Ok(freeze::set_frozen(&container.record.cgroups, frozen)?),
    }
}
