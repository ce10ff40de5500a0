//! Which names there are, and what a list shows of each. The names are read from their files at the
//! start and kept in memory, with the moment of each one's last change; the facts come from the index,
//! as far as it has those of that very moment, and otherwise from the files. So nothing that the index
//! says or forgets is ever seen: it only saves time.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::thread;

use jiff::Timestamp;
use oci_spec::image::Digest;

use super::{Image, Listed, Summary, Tree, names};
use crate::content::Content;
use crate::index::{Entry, Index, Table};
use crate::locks::Mutex;
use crate::quarantine::{Quarantine, Suspect};
use crate::{StoreError, files};

/// Files that are read at once: a disk likes a few, a page cache does not care.
const READERS: usize = 4;
/// Names that are copied while nobody else can look at them.
const PAGE_NAMES: usize = 512;

/// All names; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    directory: PathBuf,
    content: Content,
    index: Index,
    names: Arc<Mutex<BTreeMap<String, Pointer>>>,
}

/// What is kept of each name: what a collection needs of all of them.
#[derive(Clone, Debug)]
struct Pointer {
    /// When the name was last pointed somewhere.
    updated: Timestamp,
    /// Where.
    target: Digest,
}

impl Pointer {
    fn of(image: &Image) -> Self {
        Self {
            updated: image.updated,
            target: image.target.digest().clone(),
        }
    }
}

/// What the file of a name holds.
#[derive(Debug)]
pub(crate) enum NameFile {
    /// A name and where it points.
    Image(Box<Image>),
    /// It went meanwhile.
    Gone,
    /// Why it is no name.
    Damaged(String),
}

/// The name of a file, and what it holds.
type ReadFile = (String, Result<NameFile, StoreError>);

impl Catalog {
    /// Reads all names. A damaged file is put aside.
    pub(super) fn open(
        directory: &Path,
        content: &Content,
        index: &Index,
    ) -> Result<Self, StoreError> {
        let catalog = Self {
            directory: directory.to_owned(),
            content: content.clone(),
            index: index.clone(),
            names: Arc::new(Mutex::new("names", BTreeMap::new())),
        };
        let mut damaged = Vec::new();
        for (file, read) in catalog.read_all()? {
            match read? {
                NameFile::Image(image) => {
                    let pointer = Pointer::of(&image);
                    catalog.lock().insert(image.name, pointer);
                }
                NameFile::Gone => {}
                NameFile::Damaged(_) => damaged.push(file),
            }
        }
        let quarantine = Quarantine::beside(directory);
        for file in damaged {
            quarantine.put(Suspect::Name, &file, &directory.join(&file))?;
        }
        Ok(catalog)
    }

    /// What a file of the directory of names holds.
    pub(crate) fn read(&self, file: &str) -> Result<NameFile, StoreError> {
        let path = self.directory.join(file);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Ok(NameFile::Damaged("it is no regular file".to_owned()));
        }
        let read = match files::read_json::<Image>(&path) {
            Ok(Some(image)) if names::file_name(&image.name) == file => {
                NameFile::Image(Box::new(image))
            }
            Ok(Some(image)) => NameFile::Damaged(format!("it is the file of {}", image.name)),
            Ok(None) => NameFile::Gone,
            // The second is a sector that the disk does not give back.
            Err(
                error @ (StoreError::DamagedFile { .. } | StoreError::Io { action: "read", .. }),
            ) => NameFile::Damaged(orlop_proto::error::chain(&error)),
            Err(error) => return Err(error),
        };
        Ok(read)
    }

    /// The directory of the files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Notes a name whose file is durable.
    pub(super) fn put(&self, listed: &Listed) {
        let image = &listed.image;
        self.lock().insert(image.name.clone(), Pointer::of(image));
        self.index.put(Table::Names, &image.name, listed);
    }

    /// Notes that a name's file is gone.
    pub(crate) fn remove(&self, name: &str) {
        self.lock().remove(name);
        self.index.remove(Table::Names, name);
    }

    /// One name with its facts.
    pub(super) fn get(&self, name: &str) -> Result<Option<Listed>, StoreError> {
        match self.updated(name) {
            Some(updated) => self.listed(name, updated),
            None => Ok(None),
        }
    }

    /// All names and what they point at, one after another, also while they change.
    pub(super) fn each(
        &self,
        tell: &mut dyn FnMut(&str, &Digest) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut last = String::new();
        loop {
            let page = self.page("", &last, PAGE_NAMES);
            for (name, pointer) in &page {
                tell(name, &pointer.target)?;
            }
            match page.into_iter().next_back() {
                Some((name, _)) => last = name,
                None => return Ok(()),
            }
        }
    }

    /// All names. An error where the file of one is damaged: who asks for all must not miss one.
    pub(super) fn all(&self) -> Result<Vec<Listed>, StoreError> {
        let mut all = Vec::new();
        self.each(&mut |name, _| {
            all.extend(self.get(name)?);
            Ok(())
        })?;
        Ok(all)
    }

    fn updated(&self, name: &str) -> Option<Timestamp> {
        self.lock().get(name).map(|pointer| pointer.updated)
    }

    /// Those that begin with the prefix, in order, from behind `after`, at most `limit`. One whose
    /// file is damaged is left out.
    pub(super) fn list(&self, prefix: &str, after: &str, limit: usize) -> Vec<Listed> {
        let mut found = Vec::new();
        let mut last = after.to_owned();
        // A name that goes meanwhile leaves its place to the next one: a short page is the last.
        while found.len() < limit {
            let page = self.page(prefix, &last, limit - found.len());
            match page.last() {
                Some((name, _)) => last.clone_from(name),
                None => break,
            }
            let listed =
                |(name, pointer): &(String, Pointer)| self.listed_or_log(name, pointer.updated);
            found.extend(page.iter().filter_map(listed));
        }
        found
    }

    fn page(&self, prefix: &str, after: &str, limit: usize) -> Vec<(String, Pointer)> {
        let start = if after.is_empty() || after < prefix {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(after)
        };
        self.lock()
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .take(limit)
            .map(|(name, pointer)| (name.clone(), pointer.clone()))
            .collect()
    }

    /// The number of names.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// The file of a name.
    pub(crate) fn file_of(&self, name: &str) -> String {
        names::file_name(name)
    }

    /// The files that there should be.
    pub(crate) fn known_files(&self) -> impl Iterator<Item = String> {
        let names: Vec<_> = self.lock().keys().cloned().collect();
        names.into_iter().map(|name| names::file_name(&name))
    }

    /// The name that a file is of, and when it was last changed.
    pub(crate) fn name_of(&self, file: &str) -> Option<(String, Timestamp)> {
        let names = self.lock();
        let mut found = names
            .iter()
            .filter(|(name, _)| names::file_name(name) == file);
        found
            .next()
            .map(|(name, pointer)| (name.clone(), pointer.updated))
    }

    /// What a name was by its last change, as far as the index has it.
    pub(crate) fn remembered(&self, name: &str) -> Option<Image> {
        let updated = self.updated(name);
        match self.index.get::<Listed>(Table::Names, name) {
            Entry::Value(listed) if Some(listed.image.updated) == updated => Some(listed.image),
            _ => None,
        }
    }

    /// Whether what the index has of a name, if anything, is of its last change.
    pub(crate) fn index_agrees(&self, name: &str) -> bool {
        match self.index.get::<Listed>(Table::Names, name) {
            Entry::Value(_) => self.remembered(name).is_some(),
            Entry::Absent => true,
            Entry::Damaged => false,
        }
    }

    /// Makes what the index has of a name anew.
    pub(crate) fn refresh(&self, name: &str) -> Result<(), StoreError> {
        self.index.remove(Table::Names, name);
        self.get(name).map(drop)
    }

    /// Fills the index, with a few threads. Who asks for a name meanwhile is served first.
    pub(crate) fn fill(&self) {
        let names: Vec<_> = self.lock().clone().into_iter().collect();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(|| {
                    while let Some((name, pointer)) =
                        names.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        self.listed_or_log(name, pointer.updated);
                    }
                });
            }
        });
    }

    /// The facts of a name: from the index if it has those of this change, else from the files.
    fn listed(&self, name: &str, updated: Timestamp) -> Result<Option<Listed>, StoreError> {
        if let Entry::Value(listed) = self.index.get::<Listed>(Table::Names, name)
            && listed.image.name == name
            && listed.image.updated == updated
        {
            return Ok(Some(listed));
        }
        match self.read(&names::file_name(name))? {
            NameFile::Image(image) => Ok(Some(self.described(*image))),
            NameFile::Gone => Ok(None),
            NameFile::Damaged(detail) => Err(StoreError::NameDamaged {
                name: name.to_owned(),
                detail,
            }),
        }
    }

    fn listed_or_log(&self, name: &str, updated: Timestamp) -> Option<Listed> {
        self.listed(name, updated).unwrap_or_else(|error| {
            let error = orlop_proto::error::chain(&error);
            tracing::error!(name, error, "a name is left out");
            None
        })
    }

    /// A name whose blobs are damaged is there all the same; its facts are not remembered.
    fn described(&self, image: Image) -> Listed {
        match Tree::read(&self.content, &image.name, &image.target) {
            Ok(Tree { summary, .. }) => {
                let listed = Listed { image, summary };
                self.index.put(Table::Names, &listed.image.name, &listed);
                listed
            }
            Err(error) => {
                let error = orlop_proto::error::chain(&error);
                tracing::error!(name = image.name, error, "an image is not complete");
                let summary = Summary {
                    ids: vec![image.target.digest().to_string()],
                    ..Summary::default()
                };
                Listed { image, summary }
            }
        }
    }

    fn read_all(&self) -> Result<Vec<ReadFile>, StoreError> {
        let names = files::names(&self.directory)?;
        let share = names.len().div_ceil(READERS).max(1);
        let read = |names: &[String]| -> Vec<_> {
            let pair = |name: &String| (name.clone(), self.read(name));
            names.iter().map(pair).collect()
        };
        Ok(thread::scope(|scope| {
            let parts: Vec<_> = names
                .chunks(share)
                .map(|names| scope.spawn(|| read(names)))
                .collect();
            let joined = parts.into_iter().filter_map(|part| part.join().ok());
            joined.flatten().collect()
        }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Pointer>> {
        self.names.lock()
    }
}
