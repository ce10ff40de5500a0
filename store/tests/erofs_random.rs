//! Random layers: whatever the members are, the image holds the tree that the directory form has, or
//! both forms refuse.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::io::Cursor;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

#[path = "erofs/forms.rs"]
mod forms;
#[path = "support/smith.rs"]
mod smith;
use smith::{Tar, header, seal};

/// One member, or what comes instead of one.
#[derive(Clone, Debug)]
struct Random {
    path: String,
    flag: u8,
    link: String,
    mode: u32,
    owner: u32,
    seconds: u32,
    size: usize,
    xattr: Option<(&'static str, &'static [u8])>,
}

impl Random {
    fn put(&self, tar: Tar) -> Tar {
        let mut block = header(self.flag, self.path.as_bytes(), &self.link, self.mode, 0);
        block[108..115].copy_from_slice(format!("{:07o}", self.owner).as_bytes());
        block[116..123].copy_from_slice(format!("{:07o}", self.owner / 2).as_bytes());
        block[136..147].copy_from_slice(format!("{:011o}", self.seconds).as_bytes());
        block[337..344].copy_from_slice(format!("{:07o}", self.owner).as_bytes());
        let body = vec![b'b'; if self.flag == b'0' { self.size } else { 0 }];
        block[124..135].copy_from_slice(format!("{:011o}", body.len()).as_bytes());
        seal(&mut block);
        let tar = match self.xattr {
            Some((name, value)) => tar.pax(&[(&format!("SCHILY.xattr.{name}"), value)]),
            None => tar,
        };
        tar.raw(&block, &body)
    }
}

/// Few names, so that they meet; whiteouts and opaque marks among them.
fn path() -> impl Strategy<Value = String> {
    let parent = select(vec!["a", "a", "b", "b", "c"]);
    let name = select(vec!["a", "b", "c", "d", "e", "f"]);
    let last = prop_oneof![
        8 => name.clone().prop_map(str::to_owned),
        2 => name.clone().prop_map(|name| format!(".wh.{name}")),
        1 => Just(".wh..wh..opq".to_owned()),
    ];
    (vec(parent, 0..3), last).prop_map(|(mut parents, last)| {
        parents.push(&last);
        parents.join("/")
    })
}

/// Up, down, from the root, or nowhere.
fn target() -> impl Strategy<Value = String> {
    let name = select(vec!["a", "b", "c", "d", "..", ".", "e"]);
    (any::<bool>(), vec(name, 1..4)).prop_map(|(absolute, names)| {
        let slash = if absolute { "/" } else { "" };
        format!("{slash}{}", names.join("/"))
    })
}

fn xattr() -> impl Strategy<Value = (&'static str, &'static [u8])> {
    const CAPABILITY: &[u8] = &[1, 0, 0, 2, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const ACL: &[u8] = &[
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 3, 0, 0, 0, 4, 0, 5, 0, 255, 255,
        255, 255, 16, 0, 3, 0, 255, 255, 255, 255, 32, 0, 1, 0, 255, 255, 255, 255,
    ];
    select(vec![
        ("user.a", &b"1"[..]),
        ("user.a", b"a longer value"),
        ("trusted.b", b""),
        ("trusted.overlay.opaque", b"y"),
        ("security.capability", CAPABILITY),
        ("system.posix_acl_access", ACL),
        ("nowhere.known", b"x"),
    ])
}

fn member() -> impl Strategy<Value = Random> {
    let flag = select(b"0000555512123456".to_vec());
    // A directory that hands its group down is not among them: the directory form hands it to
    // directories that no member describes.
    let mode = select(vec![0o644, 0o755, 0o1777, 0o4711, 0o000]);
    let size = select(vec![0_usize, 1, 1024, 1025, 4096, 5000, 9000]);
    let rest = (
        mode,
        0..5_u32,
        1..1000_u32,
        size,
        option::weighted(0.2, xattr()),
    );
    (path(), flag, target(), rest).prop_map(
        |(path, flag, link, (mode, owner, seconds, size, xattr))| Random {
            link: if flag == b'1' {
                link.replace("..", "a")
            } else {
                link
            },
            path,
            flag,
            mode,
            owner,
            seconds,
            size,
            xattr,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_are_the_same_in_both_forms(members in vec(member(), 1..16)) {
        let tar = members.iter().fold(Tar::new(), |tar, member| member.put(tar)).end();
        forms::compare(|| Box::new(Cursor::new(tar.clone())));
    }
}
