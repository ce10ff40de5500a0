//! Files into a container and out of it.

use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use orlop_files::{Kind, Source, Target, Unpacking, is_kernels, pack, unpack};
use rustix::fs::Stat;

use super::acting::ActingRoot;
use super::tree::Tree;
use super::{Container, Containers};
use crate::error::{Error, Result, blocking};

/// What is copied into a container, and where to.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    /// In the container.
    pub(crate) path: Vec<u8>,
    /// What the archive is.
    pub(crate) kind: Kind,
    /// What its top is called.
    pub(crate) name: Vec<u8>,
    /// Keep owners and set-id bits.
    pub(crate) owners: bool,
}

impl Containers {
    /// Unpacks a tar in a container; answers the bytes of its files.
    pub(crate) async fn copy_in(
        &self,
        container: &Arc<Container>,
        incoming: Incoming,
        tar: impl Read + Send + 'static,
    ) -> Result<u64> {
        let work = move |tree: Tree| {
            let Incoming { path, kind, .. } = incoming;
            let target = Target::find(tree.root, &path, kind, &incoming.name)?;
            let how = Unpacking {
                top: match kind {
                    Kind::Contents => b".".to_vec(),
                    _ => incoming.name,
                },
                owners: incoming.owners,
            };
            Ok(unpack(tar, &target, &how)?)
        };
        self.with_tree(container, work).await
    }

    /// Packs what is at a path; `begin` is told what it is before the first byte.
    pub(crate) async fn copy_out(
        &self,
        container: &Arc<Container>,
        path: Vec<u8>,
        follow: bool,
        begin: impl FnOnce(Kind, &[u8]) + Send + 'static,
        out: impl Write + Send + 'static,
    ) -> Result<()> {
        let work = move |tree: Tree| {
            let source = Source::find(&tree.root, &path, follow)?;
            begin(source.kind, &source.name);
            let leave = |handle: BorrowedFd<'_>, stat: &Stat| {
                tree.special.contains(&stat.st_dev) || is_kernels(handle).unwrap_or(true)
            };
            pack(&source, &leave, out)?;
            Ok(())
        };
        self.with_tree(container, work).await
    }

    /// A container that runs may end meanwhile; one that does not run cannot start.
    async fn with_tree<T: Send + 'static>(
        &self,
        container: &Arc<Container>,
        work: impl FnOnce(Tree) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let gate = container.gate.lock().await;
        if container.is_removed() {
            return Err(Error::NoContainer(container.id.clone()));
        }
        let mut record = container.record().as_ref().clone();
        if record.state.pid > 0 {
            drop(gate);
            let parent = &record.config.cgroup_parent;
            let group = self.parts().cgroups.path_of(&record.id, parent);
            let work = move || {
                let tree = Tree::of_running(&record, &group)?;
                let acting = record.ids.map(ActingRoot::begin).transpose();
                let _acting = acting.map_err(Error::file("act as root of", record.title()))?;
                work(tree)
            };
            return blocking(work).await;
        }
        drop(container.teardown.lock().await);
        record.root = self.parts().store.mount(&record.snapshot).await?;
        let place = container.directory.clone();
        self.mount_volumes(&record).await?;
        let copied = record.clone();
        let done = blocking(move || work(Tree::of_stopped(&copied, &place)?)).await;
        self.unmount_volumes(&record).await;
        drop(gate);
        done
    }
}
