//! Tars against two other readers, Python's `tarfile` and GNU tar: what we list is what both list, or,
//! where one of them disagrees or refuses, what one of them lists or an error.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

#[path = "oracle/listing.rs"]
mod listing;
#[path = "oracle/shapes.rs"]
mod shapes;
#[path = "support/smith.rs"]
mod smith;

use listing::{Row, gnu_tar_lists, python_lists, we_list};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use smith::{Tar, header, seal};

/// Generated archives; Python reads all of them in one process.
const ARCHIVES: usize = 400;

/// Ours must be a listing of one of them; with both of one mind it must be theirs.
#[track_caller]
fn judge(archives: &[Vec<u8>]) -> usize {
    let directory = tempfile::tempdir().unwrap();
    for (number, archive) in archives.iter().enumerate() {
        std::fs::write(directory.path().join(format!("{number}.tar")), archive).unwrap();
    }
    let python = python_lists(directory.path(), archives.len());
    let mut agreed = 0;
    for (number, archive) in archives.iter().enumerate() {
        let gnu = gnu_tar_lists(&directory.path().join(format!("{number}.tar")));
        let Ok(ours) = we_list(archive) else { continue };
        let theirs = [&python[number], &gnu];
        let is = |their: &&Option<Vec<Row>>| their.as_ref() == Some(&ours);
        assert!(
            theirs.iter().any(is),
            "archive {number}: {}\nours   {ours:?}\npython {:?}\ngnu    {gnu:?}",
            archive
                .escape_ascii()
                .to_string()
                .chars()
                .take(3000)
                .collect::<String>(),
            python[number],
        );
        agreed += usize::from(theirs.iter().all(is));
    }
    agreed
}

#[derive(Clone, Debug)]
enum Part {
    File(Vec<u8>, usize),
    Directory(Vec<u8>),
    Link(Vec<u8>, String),
    Pax(Vec<(&'static str, Vec<u8>)>),
    LongName(Vec<u8>),
    Sizes(usize, usize),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"abcdef.-_".to_vec());
    prop::collection::vec(byte, 1..20).prop_filter("no name of dots", |name| {
        !name.iter().all(|byte| *byte == b'.')
    })
}

fn part() -> impl Strategy<Value = Part> {
    let record = prop_oneof![
        name().prop_map(|name| ("path", name)),
        (0_u64..2000).prop_map(|size| ("size", size.to_string().into_bytes())),
        (0_u64..1 << 33).prop_map(|time| ("mtime", time.to_string().into_bytes())),
        (0_u64..1 << 31).prop_map(|uid| ("uid", uid.to_string().into_bytes())),
        name().prop_map(|value| ("comment", value)),
    ];
    prop_oneof![
        4 => (name(), 0_usize..1500).prop_map(|(name, size)| Part::File(name, size)),
        1 => name().prop_map(Part::Directory),
        1 => (name(), "[a-z]{1,9}").prop_map(|(name, target)| Part::Link(name, target)),
        3 => prop::collection::vec(record, 1..4).prop_map(Part::Pax),
        2 => prop::collection::vec(prop::sample::select(b"xyz/".to_vec()), 1..300).prop_map(Part::LongName),
        1 => (0_usize..1100, 0_usize..1100).prop_map(|(pax, ustar)| Part::Sizes(pax, ustar)),
    ]
}

fn archive(parts: &[Part]) -> Vec<u8> {
    let mut tar = Tar::new();
    for part in parts {
        tar = match part {
            Part::File(name, size) => {
                tar.raw(&header(b'0', name, "", 0o644, *size), &vec![b'.'; *size])
            }
            Part::Directory(name) => tar.raw(&header(b'5', name, "", 0o755, 0), b""),
            Part::Link(name, target) => tar.raw(&header(b'2', name, target, 0o777, 0), b""),
            Part::Pax(records) => {
                let records: Vec<_> = records
                    .iter()
                    .map(|(key, value)| (*key, value.as_slice()))
                    .collect();
                tar.pax(&records)
            }
            Part::LongName(name) => {
                let body = [name.as_slice(), &[0]].concat();
                let mut block = header(b'L', b"././@LongLink", "", 0o644, body.len());
                block[257..265].copy_from_slice(b"ustar  \0");
                seal(&mut block);
                tar.raw(&block, &body)
            }
            Part::Sizes(pax, ustar) => {
                let inner = Tar::new().file("evil", b"evil").end();
                let body = inner[..*pax.min(&inner.len())].to_vec();
                let size = body.len().to_string();
                tar.pax(&[("size", size.as_bytes())])
                    .raw(&header(b'0', b"sizes", "", 0o644, *ustar), &body)
            }
        };
    }
    tar.end()
}

#[test]
fn a15_generated_archives_list_as_elsewhere() {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let parts = prop::collection::vec(part(), 1..8);
    let mut next = || parts.new_tree(&mut runner).unwrap().current();
    let archives: Vec<_> = (0..ARCHIVES).map(|_| archive(&next())).collect();
    let agreed = judge(&archives);
    assert!(agreed > ARCHIVES / 5, "only {agreed} are read alike by all");
}

#[test]
fn a15_the_shapes_in_which_parsers_differed() {
    for (name, archive) in shapes::all() {
        println!("{name}");
        judge(&[archive]);
    }
}

/// Which of them are errors, and what the others list: a change of mind is a change of this list.
#[test]
fn a15_each_shape_has_one_reading() {
    let listed = |archive: &[u8]| {
        we_list(archive)
            .ok()
            .map(|rows| rows.into_iter().map(|row| row.name).collect::<Vec<_>>())
    };
    let readings: Vec<_> = shapes::all()
        .into_iter()
        .map(|(name, archive)| (name, listed(&archive)))
        .collect();
    let some = |names: &[&str]| {
        Some(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        readings,
        [
            ("pax-hidden-entry", some(&["outer", "after"])),
            ("pax-phantom-entry", some(&["outer", "after"])),
            ("pax-header-precedence", None),
            ("pax-size-of-an-extension", some(&["name-of-gnu"])),
            ("pax-before-a-long-name", None),
            ("unterminated-pax", None),
            ("pending-pax-at-the-boundary", None),
            ("truncated-entry-body", None),
            ("size-of-a-directory", some(&["d", "after"])),
            ("size-of-a-link", some(&["l", "after"])),
            ("nul-in-a-name", None),
            ("one-zero-block", None),
        ]
    );
}
