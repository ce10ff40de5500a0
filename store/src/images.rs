//! Names that point at descriptors. One file per name is the truth; the [`catalog`] has the facts that
//! a list needs, so that a list opens no blob.

pub(crate) mod catalog;
mod events;
mod names;
pub(crate) mod resolve;
mod tree;
mod unlisted;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use oci_spec::image::{Descriptor, Digest};
use orlop_proto::reference::Reference;
use serde::{Deserialize, Serialize};

use crate::content::Content;
use crate::files::Group;
use crate::index::Index;
use crate::layers::chain::chain_ids;
use crate::turns::{Turn, Turns};
use crate::{StoreError, files};
use catalog::Catalog;
use events::Events;
pub use events::{Event, Watch, WatchEnd};
pub use resolve::{Resolved, Wanted};
pub use tree::{Summary, Tree};
use unlisted::Unlisted;

/// The most names in one page of a list.
pub const PAGE_MAX: usize = 10_000;

/// A name and where it points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// A reference in normal form.
    pub name: String,
    /// A manifest or an index.
    pub target: Descriptor,
    /// When the name was last pointed somewhere.
    pub updated: Timestamp,
}

/// An image with the facts of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The image.
    pub image: Image,
    /// What it is.
    pub summary: Summary,
}

/// What a name must be for a change to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Anything.
    Any,
    /// Not there.
    Absent,
    /// Pointing at this digest.
    Digest(String),
}

/// All names; clones share them.
#[derive(Clone, Debug)]
pub struct Images {
    directory: PathBuf,
    content: Content,
    catalog: Catalog,
    /// A change has the turn of its name from the comparison until it is durable and told.
    turns: Arc<Turns>,
    group: Group,
    events: Events,
    unlisted: Unlisted,
}

impl Images {
    /// Opens the names of a directory; `rebuild` fills the index from their files, in the background.
    pub fn open(
        directory: &Path,
        content: &Content,
        index: &Index,
        rebuild: bool,
    ) -> Result<Self, StoreError> {
        files::make_directory(directory)?;
        files::remove_unfinished(directory)?;
        let images = Self {
            directory: directory.to_owned(),
            content: content.clone(),
            catalog: Catalog::open(directory, content, index)?,
            turns: Arc::new(Turns::named("turn of a name")),
            group: Group::new(directory),
            events: Events::default(),
            unlisted: Unlisted::default(),
        };
        if rebuild && images.count() > 0 {
            let catalog = images.catalog.clone();
            std::thread::Builder::new()
                .name("fill the index".to_owned())
                .spawn(move || catalog.fill())
                .map_err(StoreError::io("start a thread for", directory))?;
        }
        Ok(images)
    }

    /// One image by its exact name.
    pub fn get(&self, name: &str) -> Result<Image, StoreError> {
        self.find(name)?
            .map(|listed| listed.image)
            .ok_or_else(|| StoreError::ImageNotFound {
                name: name.to_owned(),
            })
    }

    /// Points a name at a descriptor whose whole tree is here. Atomic and durable.
    pub fn put(
        &self,
        name: &str,
        target: Descriptor,
        expected: &Expected,
    ) -> Result<Image, StoreError> {
        let name = normal(name)?;
        // First the wish, then the look: what is here then stays until the name holds it.
        let _putting = self.unlisted.putting(target.digest());
        let tree = Tree::read(&self.content, &name, &target)?;
        if let Some(gone) = tree.blobs.iter().find(|blob| !self.content.want(blob)) {
            return Err(StoreError::ChildMissing {
                name,
                digest: gone.to_string(),
            });
        }
        crate::failpoint::reach("image.put.read");
        let _turn = self.turn(&name);
        self.compare(&name, expected)?;
        let image = Image {
            name,
            target,
            updated: Timestamp::now(),
        };
        self.write(Listed {
            image,
            summary: tree.summary,
        })
    }

    /// The file, then the index, then who watches. The caller has the turn of the name.
    fn write(&self, listed: Listed) -> Result<Image, StoreError> {
        let name = &listed.image.name;
        let file = names::file_name(name);
        let json = serde_json::to_vec(&listed.image).map_err(|source| StoreError::DamagedFile {
            path: self.directory.join(&file),
            source,
        })?;
        crate::failpoint::reach("image.put.begun");
        self.group.replace(&file, &json)?;
        crate::failpoint::reach("image.put.written");
        self.catalog.put(&listed);
        crate::failpoint::reach("image.put.indexed");
        self.events.tell(&listed.image, false);
        Ok(listed.image)
    }

    /// Removes a name, durably. Its blobs are not wanted any more on its behalf; the names of its
    /// committed snapshots are returned, that they may be treated alike.
    pub fn delete(&self, name: &str, expected: &Expected) -> Result<Vec<String>, StoreError> {
        let turn = self.turn(name);
        let image = self.get(name)?;
        self.compare(name, expected)?;
        self.group.remove(&names::file_name(name))?;
        crate::failpoint::reach("image.delete.removed");
        self.catalog.remove(name);
        crate::failpoint::reach("image.delete.indexed");
        self.events.tell(&image, true);
        drop(turn);
        // A damaged image may still be deleted: nothing of it is known to be unwanted then.
        let tree = Tree::read(&self.content, name, &image.target).unwrap_or_default();
        for digest in &tree.blobs {
            self.content.unwant(digest, image.updated);
        }
        Ok(tree
            .stacks
            .iter()
            .flat_map(|stack| chain_ids(stack))
            .collect())
    }

    /// Changes of names from now on. Those of one name come in their order.
    pub fn watch(&self) -> Watch {
        self.events.watch()
    }

    /// Notes that an image is used now.
    fn touch(&self, name: &str) {
        files::touch(&self.directory.join(names::file_name(name)));
    }

    /// When the image of a name was last resolved or written. The time of its file keeps it, written
    /// with whatever the file system writes next: after a loss of power it may be some seconds old.
    pub fn last_used(&self, name: &str) -> Option<Timestamp> {
        files::touched(&self.directory.join(names::file_name(name)))
    }

    /// Images whose name begins with the prefix, in order of name, from behind `after`.
    pub fn list(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<Listed>, StoreError> {
        let limit = if limit == 0 {
            PAGE_MAX
        } else {
            limit.min(PAGE_MAX)
        };
        Ok(self.catalog.list(prefix, after, limit))
    }

    /// All images.
    pub fn all(&self) -> Result<Vec<Listed>, StoreError> {
        self.catalog.all()
    }

    /// Tells every blob that a name points at, or is about to. A name that comes while it is told may
    /// be missing: its blobs are wanted since then.
    pub(crate) fn each_target(
        &self,
        mut tell: impl FnMut(&str, &Digest) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // Before the catalog: what is put meanwhile is in one of them.
        for digest in self.unlisted.targets() {
            tell("an image that is being named", &digest)?;
        }
        self.catalog.each(&mut tell)
    }

    /// The number of names.
    pub fn count(&self) -> usize {
        self.catalog.count()
    }

    /// The names, for a check.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The blobs of an image.
    pub(crate) fn tree(&self, image: &Image) -> Result<Tree, StoreError> {
        Tree::read(&self.content, &image.name, &image.target)
    }

    fn turn(&self, name: &str) -> Turn<'_> {
        self.turns.take(vec![name.to_owned()])
    }

    fn find(&self, name: &str) -> Result<Option<Listed>, StoreError> {
        self.catalog.get(name)
    }

    fn compare(&self, name: &str, expected: &Expected) -> Result<(), StoreError> {
        let actual = self
            .find(name)?
            .map(|listed| listed.image.target.digest().to_string());
        let (holds, wish) = match expected {
            Expected::Any => return Ok(()),
            Expected::Absent => (actual.is_none(), "absent"),
            Expected::Digest(digest) => (actual.as_ref() == Some(digest), digest.as_str()),
        };
        if holds {
            return Ok(());
        }
        Err(StoreError::ImageMoved {
            name: name.to_owned(),
            actual: actual.map_or_else(|| "is absent".to_owned(), |at| format!("points at {at}")),
            expected: wish.to_owned(),
        })
    }
}

/// The normal form of a name; anything that is not one is refused.
fn normal(name: &str) -> Result<String, StoreError> {
    Ok(name.parse::<Reference>()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred thousand names, of which half come or go while they are listed.
    #[test]
    fn every_name_that_stays_is_in_one_page() {
        const NAMES: usize = 100_000;
        let directory = tempfile::tempdir().unwrap();
        let content = Content::open_at(directory.path(), 0).unwrap();
        let index = Index::open(&directory.path().join("index")).index;
        let images = directory.path().join("images");
        let images = Images::open(&images, &content, &index, false).unwrap();
        let name = |n: usize| format!("docker.io/library/n{n:06}:1");
        let put = |n: usize| images.catalog.put(&listed(&name(n)));
        (0..NAMES).step_by(2).for_each(put);
        let (mut seen, mut last) = (Vec::new(), String::new());
        for turn in 0_usize.. {
            let page = images.list("docker.io/library/n", &last, 0).unwrap();
            let Some(end) = page.last() else { break };
            last.clone_from(&end.image.name);
            seen.extend(page.into_iter().map(|listed| listed.image.name));
            let around = (turn + 1) * 20_000;
            (around - 99..around + 100).step_by(2).for_each(put);
            (around - 20_000..around)
                .skip(1)
                .step_by(20)
                .for_each(|n| images.catalog.remove(&name(n)));
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "a name is listed twice");
        let stay = |name: &String| name[19..25].parse::<usize>().unwrap().is_multiple_of(2);
        seen.retain(stay);
        assert_eq!(seen.len(), NAMES / 2);
    }

    fn listed(name: &str) -> Listed {
        let target = Content::digest_of(b"x").unwrap();
        let target = Descriptor::new(oci_spec::image::MediaType::ImageManifest, 1, target);
        Listed {
            image: Image {
                name: name.to_owned(),
                target,
                updated: Timestamp::UNIX_EPOCH,
            },
            summary: Summary::default(),
        }
    }
}
