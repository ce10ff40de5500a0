//! Images and file trees as tar files: `load`, `save` and `import`. Everything in an archive is hostile;
//! nothing is stored before all of it was good, and nothing is named before it is stored.

mod import;
mod layout;
mod load;
mod save;

use crate::content::Content;
use crate::images::Images;
use crate::layers::decompress::Limits;
pub use import::{ImportOptions, Imported};
pub use load::Loaded;

/// Reads and writes archives.
#[derive(Clone, Debug)]
pub struct Archives {
    content: Content,
    images: Images,
    limits: Limits,
}

impl Archives {
    /// Over the blobs and names of a store; `limits` bound what is decompressed.
    pub fn new(content: Content, images: Images, limits: Limits) -> Self {
        Self {
            content,
            images,
            limits,
        }
    }
}
