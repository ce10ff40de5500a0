//! Numbers of owners that mean something else where an archive is made or unpacked than in it.

/// Who owns what cannot be said: the kernel's own number for it.
const NOBODY: u32 = 65534;

/// The numbers of users and groups in a tree: those of an archive, or as a user namespace maps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owners(Option<(u32, u32)>);

impl Owners {
    /// An archive's owner 0 is `first` in the tree; `size` of them are known.
    pub fn mapped(first: u32, size: u32) -> Self {
        Self(Some((first, size)))
    }

    /// What an owner in the tree is called in an archive.
    pub(crate) fn in_archive(self, id: u32) -> u32 {
        let Some((first, size)) = self.0 else {
            return id;
        };
        let known = id.checked_sub(first).filter(|id| *id < size);
        known.unwrap_or(NOBODY)
    }

    /// Who an archive's owner is in the tree; `None`: nobody there.
    pub(crate) fn in_tree(self, id: u32) -> Option<u32> {
        match self.0 {
            None => Some(id),
            Some((first, size)) if id < size => first.checked_add(id),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_mapped_both_ways_and_strangers_are_nobody() {
        let plain = Owners::default();
        assert_eq!((plain.in_archive(7), plain.in_tree(7)), (7, Some(7)));
        let mapped = Owners::mapped(100_000, 10);
        assert_eq!(
            (mapped.in_archive(100_009), mapped.in_tree(9)),
            (9, Some(100_009))
        );
        assert_eq!(
            (mapped.in_archive(100_010), mapped.in_tree(10)),
            (NOBODY, None)
        );
        assert_eq!(mapped.in_archive(0), NOBODY);
    }
}
