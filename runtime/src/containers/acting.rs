//! Files in a container with a user namespace are made by somebody whom that namespace knows.

use std::io;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::subids::IdRange;

/// While this lives, files are of the container's root to this thread, which keeps the privileges of the
/// host's.
#[derive(Debug)]
pub(super) struct ActingRoot(Uid, Gid);

impl ActingRoot {
    /// Begins with it. The rest of the process goes on as before.
    pub(super) fn begin(ids: IdRange) -> io::Result<Self> {
        let acting = Self(setfsuid(ids.first.into()), setfsgid(ids.first.into()));
        // The kernel took away what a user who is not root has no right to.
        let mut sets = rustix::thread::capabilities(None)?;
        sets.effective = sets.permitted;
        rustix::thread::set_capabilities(None, sets)?;
        Ok(acting)
    }
}

impl Drop for ActingRoot {
    fn drop(&mut self) {
        setfsgid(self.1);
        setfsuid(self.0);
    }
}
