//! Programs of others that take part in the making of a container, as "POSIX-platform Hooks" of the OCI
//! runtime specification's config.md has them.

use std::fmt::Debug;

use crate::error::{Error, Result};

/// When hooks run. Each fails with what is to be told to people; then there is no container.
pub trait Hooks: Debug {
    /// Whether any takes part before the container lets go of the host's files. Refused for one that joins
    /// the processes of another.
    fn early(&self) -> bool;

    /// On the host, once the container has its namespaces and mounts; `pid` is its first process.
    /// Called for every container, if not `early` then just before it waits for its beginning.
    fn create_runtime(&self, pid: i32) -> std::result::Result<(), String>;

    /// In the container's namespaces, in which the host's files are still there, and the container's own
    /// at the path of its root.
    fn create_container(&self) -> std::result::Result<(), String>;

    /// In the container, confined as its command is going to be.
    fn start_container(&self) -> std::result::Result<(), String>;
}

/// A hook's failure as that of the step.
pub(crate) fn run(hook: std::result::Result<(), String>) -> Result<()> {
    hook.map_err(Error::Hook)
}
