//! Layers: what a layer blob becomes on disk, and how a tree becomes a layer blob.
//!
//! A layer is kept once, below `layers/<id>`, shared by every image that has the same diff id: as an
//! EROFS image that is mounted where it is used, or as a directory, both with the marks of overlayfs for
//! what the layer deletes. `<id>` is made of the diff id, of the chain id for a layer that takes
//! attributes from those below, or is random for a tree that RUN left and that has no tar yet.
//!
//! - [`tar`], [`tarwrite`]: the archive format. [`decompress`] with `gunzip`, [`compress`]: what is
//!   around it.
//! - [`entry`] decides what a member means; [`making`] does it: [`apply`] in a tree beneath a [`root`],
//!   [`erofs`] in an image. [`unpack`]: one archive into one layer.
//! - [`walk`], [`pack`], [`usage`]: from a tree to a tar, and to numbers.
//! - [`shelf`]: all layers of this store. [`form`]: which form new ones have. [`mounts`]: where images
//!   are mounted.
//! - [`chain`]: names of stacks of layers.

pub mod apply;
pub mod chain;
pub mod compress;
pub mod decompress;
pub mod entry;
pub mod erofs;
pub mod form;
mod gunzip;
pub mod making;
pub mod mounts;
pub mod pack;
pub mod root;
pub mod shelf;
pub mod tar;
pub mod tarwrite;
pub mod unpack;
pub mod usage;
pub mod walk;
