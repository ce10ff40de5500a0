//! Namespaces that a container does not make for itself: of other containers, which it may be asked to
//! share, and of user ids, with that of the network, which the service makes for it.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use orlop_proto::runtime::CreateRequest;
use orlop_shim::protocol::{Reply, Request};

use super::record::Record;
use super::state::Action;
use super::{Container, Containers};
use crate::error::{Error, Result};
use crate::shim::{self, Namespaces, ask, unexpected};
use crate::spec::namespaces::{self, Joined, Mode};
use crate::spec::userns;
use crate::subids::IdRange;

/// What is shared, held open until the shim has joined it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pid: Option<File>,
    ipc: Option<File>,
    /// Where the `/dev/shm` is that goes with `ipc`.
    mount: Option<File>,
    /// Made for it, with its ids.
    own: Option<(Namespaces, IdRange)>,
}

impl Containers {
    /// Puts ids in the place of other containers' names, so that they stay the same whatever those are
    /// called later.
    pub(super) fn fix_shared(&self, request: &mut CreateRequest) -> Result<()> {
        if let Mode::Container(name) = namespaces::pid(request)? {
            request.pid_mode = format!("container:{}", self.find(&name)?.id);
        }
        if let Mode::Container(name) = namespaces::ipc(request)? {
            let donor = self.find(&name)?;
            shareable(&donor.record())?;
            request.ipc_mode = format!("container:{}", donor.id);
        }
        Ok(())
    }

    /// Opens what the container shares; the others must be running.
    pub(super) async fn shared(&self, record: &Record) -> Result<Shared> {
        let mut shared = Shared::default();
        if let Mode::Container(id) = namespaces::pid(&record.config)? {
            let [pid] = open(&*self.find(&id)?, ["pid"]).await?;
            shared.pid = Some(pid);
        }
        if let Mode::Container(id) = namespaces::ipc(&record.config)? {
            let donor = self.find(&id)?;
            shareable(&donor.record())?;
            let [ipc, mount] = open(&donor, ["ipc", "mnt"]).await?;
            (shared.ipc, shared.mount) = (Some(ipc), Some(mount));
        }
        if let Some(size) = userns::size(&record.config.userns)? {
            let ids = self.parts().subids.take(&record.id, size)?;
            let made = shim::namespaces(&self.parts().shim, ids).await;
            shared.own = Some((made.map_err(Error::UserNamespace)?, ids));
        }
        Ok(shared)
    }
}

impl Shared {
    /// Where the shim finds the namespaces.
    pub(super) fn joined(&self) -> Joined {
        Joined {
            pid: self.pid.as_ref().map(path),
            ipc: self.ipc.as_ref().map(path),
            user: self
                .own
                .as_ref()
                .map(|(made, ids)| (path(&made.user), *ids)),
        }
    }

    /// The network namespace that was made for the container.
    pub(super) fn network(&self) -> Option<PathBuf> {
        self.own.as_ref().map(|(made, _)| path(&made.network))
    }

    /// The ids of the host that the container has.
    pub(super) fn ids(&self) -> Option<IdRange> {
        self.own.as_ref().map(|(_, ids)| *ids)
    }

    /// Where the shim finds the mount namespace with the `/dev/shm` to share.
    pub(super) fn shm(&self) -> Option<PathBuf> {
        self.mount.as_ref().map(path)
    }
}

/// A file of this process's, for another one.
fn path(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

fn shareable(donor: &Record) -> Result<()> {
    if donor.config.ipc_mode == "shareable" {
        return Ok(());
    }
    let problem = format!(
        "--ipc container:{0}: {0} keeps its own to itself; create it with --ipc shareable",
        donor.title()
    );
    Err(Error::invalid("namespace", problem))
}

/// Opens namespaces of a running container. Its shim, which alone can reap its process, is asked
/// afterwards: while it still answers with this pid, no other process can have had it.
async fn open<const N: usize>(donor: &Container, names: [&str; N]) -> Result<[File; N]> {
    let record = donor.record();
    record.next(Action::Touch, "share a namespace of")?;
    let pid = record.state.pid;
    let mut files = Vec::new();
    for name in names {
        let path = format!("/proc/{pid}/ns/{name}");
        files.push(File::open(&path).map_err(Error::file("open", path))?);
    }
    let failed = donor.shim_failed("sharing a namespace");
    let reply = ask(&donor.socket, &Request::State).await.map_err(&failed)?;
    match (reply, files.try_into()) {
        (Reply::State { pid: now, .. }, Ok(files)) if now == pid => Ok(files),
        (reply, _) => Err(failed(unexpected(&reply))),
    }
}
