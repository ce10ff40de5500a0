//! What fuzzers call: one function for each parser of what strangers send. Each checks what must hold
//! of whatever is accepted; a fault is a panic.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

use std::io::{Cursor, Read};

use orlop_proto::descriptor::parse_digest;
use orlop_proto::reference::Reference;
use orlop_store::layers::decompress::plain;
use orlop_store::layers::entry::{Action, decide};
use orlop_store::layers::tar::{Kind, Member, TarReader};
use orlop_store::layers::tarwrite::TarWriter;
use orlop_store::manifest::{self, Document};

/// What comes out of one input at most.
const PLAIN_BYTES_MAX: u64 = 16 << 20;

/// A name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 6] = [
    ("tar", tar),
    ("gzip", gzip),
    ("zstd", zstd),
    ("document", document),
    ("reference", reference),
    ("digest", digest),
];

/// Members have sound paths, bodies that lie in order within their files, and are the same after
/// they were written and read again.
pub fn tar(data: &[u8]) {
    let mut reader = TarReader::new(data);
    let mut buffer = [0; 4096];
    let mut members = 0;
    while let Ok(Some(member)) = reader.next_member() {
        members += 1;
        assert!(members * 512 <= data.len(), "more members than headers");
        sound(&member);
        let (mut end, mut total) = (0, 0);
        while let Ok(Some((offset, count))) = reader.read_piece(&mut buffer) {
            assert!(count > 0 && offset >= end);
            end = offset + count as u64;
            total += count;
            assert!(end <= member.size && total <= data.len());
        }
        written_and_read(member);
    }
}

fn sound(member: &Member) {
    assert!(member.mtime.nanos < 1_000_000_000 && member.mode <= 0o7777);
    let Ok(action) = decide(member.clone()) else {
        return;
    };
    let clean = |path: &[u8]| {
        let bad = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
        assert!(path.is_empty() || !path.split(|byte| *byte == b'/').any(bad));
    };
    match action {
        Action::Make {
            parent,
            name,
            member,
        } => {
            clean(&parent);
            assert!(!name.is_empty() && !name.contains(&b'/') && name != b".." && name != b".");
            if member.kind == Kind::HardLink {
                clean(&member.link);
            }
        }
        Action::Whiteout { parent, name } => {
            clean(&parent);
            assert!(!name.is_empty() && !name.contains(&b'/') && name != b".." && name != b".");
        }
        Action::Opaque { directory } => clean(&directory),
        Action::Skip | Action::Root(_) => {}
    }
}

fn written_and_read(mut member: Member) {
    member.size = 0;
    let unspeakable = |bytes: &[u8]| bytes.is_empty() || bytes.contains(&0);
    let odd_xattr = |(name, _): &(Vec<u8>, Vec<u8>)| name.contains(&b'=');
    if unspeakable(&member.path) || member.link.contains(&0) || member.xattrs.iter().any(odd_xattr)
    {
        return;
    }
    member.xattrs.sort();
    let mut writer = TarWriter::new(Vec::new());
    writer.header(&member).unwrap();
    let archive = writer.finish().unwrap();
    // What is longer than a reader takes is refused by it, never misread.
    if let Ok(again) = TarReader::new(archive.as_slice()).next_member() {
        assert_eq!(again, Some(member));
    }
}

/// What is taken for gzip gives the bytes that another decoder gives.
pub fn gzip(data: &[u8]) {
    let whole = [&b"\x1f\x8b\x08"[..], data].concat();
    let ours = unpacked(&whole);
    let mut theirs = Vec::new();
    let decoder = flate2::read::MultiGzDecoder::new(whole.as_slice());
    let other = decoder.take(PLAIN_BYTES_MAX).read_to_end(&mut theirs);
    if let (Some(ours), Ok(_)) = (ours, other) {
        assert!(ours == theirs, "two readings of one stream");
    }
}

pub fn zstd(data: &[u8]) {
    unpacked(&[&b"\x28\xb5\x2f\xfd"[..], data].concat());
    unpacked(data);
}

fn unpacked(blob: &[u8]) -> Option<Vec<u8>> {
    let reader = plain(Cursor::new(blob.to_vec())).ok()?;
    let mut bytes = Vec::new();
    reader.take(PLAIN_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A document is one thing, its digests are digests, and its configuration fits it.
pub fn document(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (first, second) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    for media_type in [
        "",
        manifest::OCI_MANIFEST,
        manifest::OCI_INDEX,
        manifest::DOCKER_INDEX,
    ] {
        let Ok(document) = Document::parse(first, media_type) else {
            continue;
        };
        for child in document.children() {
            parse_digest(child.digest().as_ref()).unwrap();
            assert!(i64::try_from(child.size()).is_ok());
        }
        assert!(!document.media_type().is_empty());
        if let Document::Manifest(manifest) = document
            && let Ok(config) = manifest::parse_config(second, &manifest)
        {
            assert_eq!(config.rootfs().diff_ids().len(), manifest.layers().len());
        }
    }
}

/// The normal form is one, and names no place but its own.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(reference) = text.parse::<Reference>() else {
        return;
    };
    let normal = reference.to_string();
    let again: Reference = normal
        .parse()
        .unwrap_or_else(|error| panic!("{normal:?}: {error}"));
    assert_eq!(again, reference, "{normal:?}");
    let familiar: Reference = reference.familiar().parse().unwrap();
    assert_eq!(familiar, reference, "{:?}", reference.familiar());
    let repository = reference.repository();
    assert!(
        !repository
            .split('/')
            .any(|part| matches!(part, "" | "." | "..")),
        "{normal:?}"
    );
    assert!(
        normal.bytes().all(|byte| byte.is_ascii_graphic()),
        "{normal:?}"
    );
    assert!(
        reference.tag().is_none_or(|tag| tag.len() <= 128),
        "{normal:?}"
    );
}

pub fn digest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(digest) = parse_digest(text) {
        assert_eq!(digest.to_string(), text);
        let fits = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() || byte == b':';
        assert!(text.bytes().all(fits), "{text:?}");
    }
}
