//! What an archive member means for a layer: a pure decision, without any file system.

use crate::error::Result;
use crate::layers::tar::{Kind, Member, malformed};

/// Prefix of a name that deletes (OCI image layer specification, "Whiteouts").
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The name that hides all that lower layers have in its directory.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of aufs' own files, which mean nothing to others.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// What is to be done. Paths are clean: relative, without empty names, `.` and `..`.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Skip,
    /// Set the root's own metadata.
    Root(Member),
    /// Make this, replacing what has the name unless both are directories.
    Make {
        /// The parent directory.
        parent: Vec<u8>,
        /// The last name.
        name: Vec<u8>,
        /// Everything else; the target of a hard link is clean too.
        member: Member,
    },
    /// Hide a name of the layers below.
    Whiteout {
        /// The parent directory.
        parent: Vec<u8>,
        /// The name that is hidden.
        name: Vec<u8>,
    },
    /// Hide everything of the layers below in this directory.
    Opaque {
        /// The directory.
        directory: Vec<u8>,
    },
}

/// Decides for a member of a layer.
pub fn decide(member: Member) -> Result<Action> {
    let path = clean(&member.path)?;
    let Some((parent, name)) = last(&path) else {
        return root(member);
    };
    if name == OPAQUE {
        return Ok(Action::Opaque { directory: parent });
    }
    if path
        .split(|b| *b == b'/')
        .any(|name| name.starts_with(WHITEOUT_META))
    {
        return Ok(Action::Skip);
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        return whiteout(parent, hidden);
    }
    make(parent, name, member)
}

/// Decides for a member of an archive that is no layer: whiteouts are names like others.
pub fn decide_plain(member: Member) -> Result<Action> {
    let path = clean(&member.path)?;
    match last(&path) {
        None => root(member),
        Some((parent, name)) => make(parent, name, member),
    }
}

fn make(parent: Vec<u8>, name: Vec<u8>, mut member: Member) -> Result<Action> {
    if member.kind == Kind::HardLink {
        member.link = clean(&member.link)?;
        if member.link.is_empty() {
            return Err(malformed("a hard link to the root directory"));
        }
    }
    if member.kind == Kind::Symlink && member.link.is_empty() {
        return Err(malformed(&format!(
            "{} is a link to nothing",
            shown(&member.path)
        )));
    }
    Ok(Action::Make {
        parent,
        name,
        member,
    })
}

/// Row A9: the root stays a directory.
fn root(member: Member) -> Result<Action> {
    if member.kind != Kind::Directory {
        let path = shown(&member.path);
        return Err(malformed(&format!(
            "{path} would replace the root directory"
        )));
    }
    Ok(Action::Root(member))
}

/// Row A28: what is left after the prefix must be a name.
fn whiteout(parent: Vec<u8>, hidden: &[u8]) -> Result<Action> {
    if hidden.is_empty() || hidden == b"." || hidden == b".." {
        return Err(malformed("a whiteout of no name"));
    }
    Ok(Action::Whiteout {
        parent,
        name: hidden.to_vec(),
    })
}

/// As Go's `filepath.Clean`, then refused if it would lead out (row A10).
fn clean(path: &[u8]) -> Result<Vec<u8>> {
    if path.contains(&0) {
        return Err(malformed(&format!("a NUL in the name {}", shown(path))));
    }
    let absolute = path.starts_with(b"/");
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if names.pop().is_none() && !absolute => {
                return Err(malformed(&format!(
                    "{} leads out of the layer",
                    shown(path)
                )));
            }
            b".." => {}
            name => names.push(name),
        }
    }
    Ok(names.join(&b'/'))
}

fn last(path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path[..slash].to_vec(), path[slash + 1..].to_vec()),
        None => (Vec::new(), path.to_vec()),
    })
}

fn shown(path: &[u8]) -> String {
    let cut = &path[..path.len().min(200)];
    format!("{:?}", String::from_utf8_lossy(cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &[u8], kind: Kind, link: &[u8]) -> Member {
        Member {
            path: path.to_vec(),
            link: link.to_vec(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: crate::layers::tar::Time::default(),
            size: 0,
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn a9_the_root_stays_a_directory() {
        for path in [&b"."[..], b"/", b"./", b"a/..", b""] {
            for kind in [Kind::File, Kind::Symlink, Kind::HardLink, Kind::Fifo] {
                assert!(decide(member(path, kind, b"/etc")).is_err());
            }
            assert!(matches!(
                decide(member(path, Kind::Directory, b"")),
                Ok(Action::Root(_))
            ));
        }
    }

    #[test]
    fn a10_names_that_lead_out_are_refused() {
        for path in [&b"../evil"[..], b"a/../../evil", b".."] {
            assert!(decide(member(path, Kind::File, b"")).is_err());
            assert!(decide(member(b"x", Kind::HardLink, path)).is_err());
        }
        assert!(decide(member(b"a/../b", Kind::File, b"")).is_ok());
        assert!(decide(member(b"/../b", Kind::File, b"")).is_ok());
    }

    #[test]
    fn a28_whiteouts_need_a_name() {
        for path in [&b".wh."[..], b".wh..", b".wh...", b"a/.wh..", b"../.wh.x"] {
            assert!(decide(member(path, Kind::File, b"")).is_err(), "{path:?}");
        }
        let expected = Action::Whiteout {
            parent: b"a".to_vec(),
            name: b"x".to_vec(),
        };
        assert_eq!(
            decide(member(b"./a/.wh.x", Kind::File, b"")).unwrap(),
            expected
        );
        assert_eq!(
            decide(member(b".wh..wh.plnk/1", Kind::File, b"")).unwrap(),
            Action::Skip
        );
    }
}
