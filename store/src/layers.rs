//! Layers: what a layer blob becomes on disk, and how a tree becomes a layer blob.
//!
//! A layer is kept once, in the directory `layers/<id>/fs` with the marks of overlayfs for what it
//! deletes, shared by every image that has the same diff id. `<id>` is made of the diff id, or is
//! random for a tree that RUN left and that has no tar yet.
//!
//! - [`tar`], [`tarwrite`]: the archive format. [`decompress`], [`compress`]: what is around it.
//! - [`entry`] decides what a member means, [`apply`] does it, beneath a [`root`].
//! - [`walk`], [`pack`]: from a tree to a tar.
//! - [`unpack`]: one blob into one directory. [`shelf`]: all layers of this store.
//! - [`chain`]: names of stacks of layers.

pub mod apply;
pub mod chain;
pub mod compress;
pub mod decompress;
pub mod entry;
pub mod form;
pub mod pack;
pub mod root;
pub mod shelf;
pub mod tar;
pub mod tarwrite;
pub mod unpack;
pub mod walk;
