//! Names that point at descriptors.
use std::path::Path;
use crate::StoreError;
use crate::content::Content;
use crate::index::Index;
/// Names.
#[derive(Clone, Debug)]
pub struct Images;
impl Images {
    /// Opens.
    pub fn open(_d: &Path, _c: &Content, _i: &Index, _rebuild: bool) -> Result<Self, StoreError> { Ok(Self) }
}
