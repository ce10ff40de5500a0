//! What a container changed in its file system, and all of it.

use futures_util::stream::{BoxStream, StreamExt as _};

use super::{Container, Containers};
use crate::clients::{Change, ChangeKind};
use crate::error::Result;

/// What the runtime itself mounts in every container: the targets are in the writable layer where the
/// image lacks them, and nobody made them.
const MOUNTED_TREES: [&[u8]; 3] = [b"/dev", b"/proc", b"/sys"];
const MOUNTED_FILES: [&[u8]; 3] = [b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf"];

impl Containers {
    /// Every path that the container changed, parents before children.
    pub(crate) async fn diff(
        &self,
        container: &Container,
    ) -> Result<BoxStream<'static, Result<Change>>> {
        let record = container.record();
        let changes = self.parts().store.changes(&record.snapshot).await?;
        let mut visible = Visible::default();
        let told = changes
            .map(Some)
            .chain(futures_util::stream::once(async { None }));
        let told = told.flat_map(move |change| {
            let told = match change {
                Some(Ok(change)) => visible.next(change).into_iter().map(Ok).collect(),
                Some(Err(error)) => vec![Err(error)],
                None => visible.end().into_iter().map(Ok).collect(),
            };
            futures_util::stream::iter(told)
        });
        Ok(told.boxed())
    }

    /// The whole tree as a tar.
    pub(crate) async fn export(
        &self,
        container: &Container,
    ) -> Result<BoxStream<'static, Result<bytes::Bytes>>> {
        let record = container.record();
        let tree = self.parts().store.export(&record.snapshot).await?;
        self.tell(&record, "export", &[]);
        Ok(tree)
    }
}

/// Leaves out what the runtime mounts, and a directory that changed by nothing else.
#[derive(Debug, Default)]
struct Visible {
    /// The last directory, until it is known whether somebody changed it.
    pending: Option<Change>,
    /// Something below it was left out.
    hides: bool,
}

impl Visible {
    /// Takes the next change; answers those that are to be told now.
    fn next(&mut self, change: Change) -> Vec<Change> {
        if is_mounted(&change.path) {
            self.hides |= self.pending.as_ref().is_some_and(|up| below(&change, up));
            return Vec::new();
        }
        let within = self.pending.as_ref().is_some_and(|up| below(&change, up));
        let mut told: Vec<Change> = if within {
            self.pending.take().into_iter().collect()
        } else {
            self.end()
        };
        self.hides = false;
        if change.kind == ChangeKind::Modified {
            self.pending = Some(change);
        } else {
            told.push(change);
        }
        told
    }

    /// What is left at the end.
    fn end(&mut self) -> Vec<Change> {
        let pending = self.pending.take().filter(|_| !self.hides);
        pending.into_iter().collect()
    }
}

fn below(change: &Change, directory: &Change) -> bool {
    let rest = change.path.strip_prefix(directory.path.as_slice());
    rest.is_some_and(|rest| rest.starts_with(b"/"))
}

fn is_mounted(path: &[u8]) -> bool {
    let in_tree = |tree: &&[u8]| {
        let rest = path.strip_prefix(*tree);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    MOUNTED_FILES.contains(&path) || MOUNTED_TREES.iter().any(in_tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(changes: &[(char, &str)]) -> Vec<String> {
        let mut visible = Visible::default();
        let mut told = Vec::new();
        for (kind, path) in changes {
            let kind = match kind {
                'A' => ChangeKind::Added,
                'D' => ChangeKind::Deleted,
                _ => ChangeKind::Modified,
            };
            let path = path.as_bytes().to_vec();
            told.extend(visible.next(Change { path, kind }));
        }
        told.extend(visible.end());
        let text = |change: Change| String::from_utf8(change.path).unwrap();
        told.into_iter().map(text).collect()
    }

    #[test]
    fn the_targets_of_our_own_mounts_are_not_told() {
        let ours = [
            ('A', "/dev"),
            ('A', "/dev/console"),
            ('C', "/etc"),
            ('A', "/etc/hostname"),
            ('A', "/etc/hosts"),
            ('A', "/proc"),
        ];
        assert!(told(&ours).is_empty());
    }

    #[test]
    fn a_directory_is_told_when_somebody_changed_something_in_it() {
        let changes = [
            ('C', "/etc"),
            ('A', "/etc/hosts"),
            ('A', "/etc/mine"),
            ('C', "/root"),
            ('D', "/root/old"),
            ('C', "/tmp"),
        ];
        let expected = ["/etc", "/etc/mine", "/root", "/root/old", "/tmp"];
        assert_eq!(told(&changes)[..], expected);
        let before = [('C', "/etc"), ('A', "/etc/a"), ('A', "/etc/hosts")];
        assert_eq!(told(&before), ["/etc", "/etc/a"]);
        let devices = [('A', "/device"), ('C', "/etcetera")];
        assert_eq!(told(&devices), ["/device", "/etcetera"]);
    }
}
