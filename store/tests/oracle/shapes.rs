//! Row A15: the archives in which parsers saw different members, made from their descriptions.

use crate::smith::{Tar, header, seal};

fn inner(name: &str) -> Vec<u8> {
    Tar::new().file(name, b"evil").cut()
}

fn size(bytes: &[u8]) -> String {
    bytes.len().to_string()
}

fn path(name: &[u8]) -> [(&str, &[u8]); 1] {
    [("path", name)]
}

fn long_name(tar: Tar, name: &[u8]) -> Tar {
    let body = [name, &[0]].concat();
    let mut block = header(b'L', b"././@LongLink", "", 0o644, body.len());
    block[257..265].copy_from_slice(b"ustar  \0");
    seal(&mut block);
    tar.raw(&block, &body)
}

pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let mut shapes = of_extensions();
    shapes.extend(of_bodies());
    shapes
}

fn of_extensions() -> Vec<(&'static str, Vec<u8>)> {
    let body = inner("hidden");
    let stated = size(&body);
    let records = [("size", stated.as_bytes())];
    vec![
        // PAX says how long the body is, and ustar that it is empty: what is in it is no member.
        (
            "pax-hidden-entry",
            Tar::new()
                .pax(&records)
                .raw(&header(b'0', b"outer", "", 0o644, 0), &body)
                .file("after", b"x")
                .end(),
        ),
        // The other way round: ustar's size would jump over a member.
        (
            "pax-phantom-entry",
            Tar::new()
                .pax(&[("size", b"0")])
                .raw(&header(b'0', b"outer", "", 0o644, 1024), b"")
                .file("after", b"x")
                .end(),
        ),
        // Of two extended headers the later one counts.
        (
            "pax-header-precedence",
            Tar::new()
                .pax(&path(b"first"))
                .pax(&path(b"second"))
                .file("ustar", b"x")
                .end(),
        ),
        // Records are for the member, not for the extension header in between.
        (
            "pax-size-of-an-extension",
            long_name(Tar::new().pax(&[("size", b"1")]), b"name-of-gnu")
                .raw(&header(b'0', b"n", "", 0o644, 1), b"x")
                .end(),
        ),
        (
            "pax-before-a-long-name",
            long_name(Tar::new().pax(&path(b"pax-name")), b"long-name")
                .file("n", b"x")
                .end(),
        ),
    ]
}

fn of_bodies() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "unterminated-pax",
            Tar::new()
                .raw(&header(b'x', b"x", "", 0o644, 9), b"9 path=ab")
                .file("n", b"x")
                .end(),
        ),
        (
            "pending-pax-at-the-boundary",
            Tar::new().file("n", b"x").pax(&path(b"never")).end(),
        ),
        (
            "truncated-entry-body",
            Tar::new()
                .raw(&header(b'0', b"n", "", 0o644, 4096), b"short")
                .cut(),
        ),
        (
            "size-of-a-directory",
            Tar::new()
                .raw(&header(b'5', b"d/", "", 0o755, 1024), b"")
                .file("after", b"x")
                .end(),
        ),
        (
            "size-of-a-link",
            Tar::new()
                .raw(&header(b'2', b"l", "to", 0o777, 1024), b"")
                .file("after", b"x")
                .end(),
        ),
        (
            "nul-in-a-name",
            Tar::new().pax(&path(b"a\0b")).file("n", b"x").end(),
        ),
        (
            "one-zero-block",
            Tar::new()
                .file("n", b"x")
                .raw(&[0; 512], b"")
                .file("after", b"x")
                .end(),
        ),
    ]
}
