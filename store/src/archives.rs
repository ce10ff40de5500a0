//! Images and file trees as tar files.
