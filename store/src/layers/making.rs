//! A layer in the making, in either of its two forms. Both take the same actions and give the same
//! tree; `store/tests/erofs.rs` compares them.

use std::fs::File;
use std::io::Read;

use crate::error::Result;
use crate::layers::apply::{Applier, Attributes};
use crate::layers::entry::Action;
use crate::layers::erofs::ImageWriter;
use crate::layers::tar::{TarReader, Time};

/// Where the members of a layer go.
#[derive(Debug)]
pub enum Making {
    /// A directory tree.
    Tree(Applier),
    /// An EROFS image.
    Image(ImageWriter),
}

/// A finished layer.
#[derive(Debug)]
pub enum Made {
    /// The tree is where it was made.
    Tree,
    /// The image's file, complete and not synced.
    Image(File),
}

impl Making {
    /// Performs one action; `tar` stands at the member's body.
    pub fn perform<R: Read>(&mut self, action: Action, tar: &mut TarReader<R>) -> Result<()> {
        match self {
            Self::Tree(applier) => applier.perform(action, tar),
            Self::Image(writer) => writer.perform(action, tar),
        }
    }

    /// Bytes of all files by now, holes included.
    pub fn file_bytes(&self) -> u64 {
        match self {
            Self::Tree(applier) => applier.file_bytes(),
            Self::Image(writer) => writer.file_bytes(),
        }
    }

    /// Whether a member described the root.
    pub fn root_described(&self) -> bool {
        match self {
            Self::Tree(applier) => applier.root_described(),
            Self::Image(writer) => !writer.implicit().iter().any(Vec::is_empty),
        }
    }

    /// Directories below the root that no member described, parents first.
    pub fn implicit(&self) -> Result<Vec<Vec<u8>>> {
        match self {
            Self::Tree(applier) => applier.implicit(),
            Self::Image(writer) => {
                let mut paths = writer.implicit();
                paths.retain(|path| !path.is_empty());
                Ok(paths)
            }
        }
    }

    /// Gives an implicit directory its attributes.
    pub(crate) fn describe(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        match self {
            Self::Tree(applier) => applier.describe(path, attributes, xattrs),
            Self::Image(writer) => writer.describe(path, attributes, xattrs),
        }
    }

    /// Completes the layer. A root that nobody described is the same on every host.
    pub fn finish(mut self) -> Result<Made> {
        if !self.root_described() {
            self.describe(b"", &plain_directory(), &[])?;
        }
        match self {
            Self::Tree(applier) => applier.finish().map(|_| Made::Tree),
            Self::Image(writer) => writer.finish().map(|(file, _)| Made::Image(file)),
        }
    }
}

/// A directory that nothing is known of.
pub(crate) fn plain_directory() -> Attributes {
    Attributes {
        uid: 0,
        gid: 0,
        mode: 0o755,
        mtime: Time::default(),
    }
}
