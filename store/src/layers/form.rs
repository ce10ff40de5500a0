//! How layers are kept on disk.

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// [`Form::Erofs`] if the kernel can mount an image from a file, otherwise [`Form::Directory`].
    #[default]
    Auto,
    /// One EROFS image per layer, mounted where it is used.
    Erofs,
    /// One directory tree per layer.
    Directory,
}
