//! File trees as they travel: what both sides of `cp` do with the files of a container and of the caller.
//!
//! Either side may be hostile to the other. A tree that is packed is walked by handles, a link in it is
//! never followed; an archive that is unpacked ends up below its [`Target`] or nowhere.
//!
//! - [`Root`]: a directory that paths cannot leave.
//! - [`Owners`]: whose the files are, where numbers differ.
//! - [`Source`], [`pack`]: what is copied, as a tar.
//! - [`Target`], [`unpack`]: Docker's rules for destinations, and a tar as files.
//! - [`Chunks`], [`Joined`]: between blocking readers and writers and the messages of a stream.

mod chunks;
mod error;
mod members;
mod owners;
mod pack;
mod root;
mod target;
mod unpack;

pub use chunks::{Chunks, Joined};
pub use error::{CopyError, Result};
pub use owners::Owners;
pub use pack::{Source, pack};
pub use root::{Root, is_kernels};
pub use target::{Kind, Target};
pub use unpack::{Unpacking, unpack};

/// The longest path, as in Linux.
const PATH_BYTES_MAX: usize = 4096;
