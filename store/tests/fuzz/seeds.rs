//! Good inputs and nearly good ones, from which mutations begin.

use std::io::Write as _;

use serde_json::json;

use crate::smith::{Tar, header, seal};

pub(crate) fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "tar" => tars(),
        "gzip" => gzips(),
        "zstd" => zstds(),
        "document" => documents(),
        "reference" => texts(&REFERENCES),
        _ => texts(&[
            &format!("sha256:{}", "a".repeat(64)),
            &format!("sha512:{}", "0".repeat(128)),
            "sha256:",
            "md5:00",
        ]),
    }
}

const REFERENCES: [&str; 14] = [
    "busybox",
    "a/b:c",
    "docker.io/library/x:latest",
    "localhost:5000/a/b@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "[::1]:5000/a",
    "a__b/c--d/e.f:T_a-g.1",
    "127.0.0.1/a",
    "x.y/z:1@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    "index.docker.io/x",
    "registry-1.docker.io/library/y",
    "A.example/b",
    "a:5000/b",
    "library/x",
    "docker.io/a",
];

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn tars() -> Vec<Vec<u8>> {
    [
        plain_tars(),
        extended_tars(),
        old_sparse_tars(),
        sparse_tars(),
    ]
    .concat()
}

fn plain_tars() -> Vec<Vec<u8>> {
    let mut large = header(b'0', b"owner", "", 0o644, 0);
    large[108..116].copy_from_slice(b"\x80\0\0\0\0\xff\xff\xff");
    large[136..148].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf0");
    seal(&mut large);
    let all = Tar::new()
        .directory("d/", 0o755)
        .file("d/f", &[7; 700])
        .symlink("s", "d/f")
        .hard_link("h", "d/f")
        .kind(b'6', "p")
        .kind(b'3', "c")
        .file("d/.wh.x", b"")
        .file(".wh..wh..opq", b"");
    vec![all.end(), Tar::new().raw(&large, b"").end()]
}

fn extended_tars() -> Vec<Vec<u8>> {
    let long = Tar::new()
        .raw(
            &header(b'L', b"././@LongLink", "", 0o644, 301),
            &[b"n".repeat(300), vec![0]].concat(),
        )
        .raw(
            &header(b'K', b"././@LongLink", "", 0o644, 201),
            &[b"l".repeat(200), vec![0]].concat(),
        )
        .symlink("short", "short");
    let pax = Tar::new()
        .pax(&[
            ("path", b"p/a"),
            ("linkpath", b"x"),
            ("size", b"3"),
            ("uid", b"4000000000"),
            ("gid", b"7"),
            ("mtime", b"-1.25"),
            ("SCHILY.xattr.user.a", b"b"),
            ("comment", b"c"),
        ])
        .file("f", b"abc");
    let global = Tar::new()
        .raw(&header(b'g', b"g", "", 0o644, 11), b"11 path=ab\n")
        .file("f", b"");
    vec![long.end(), pax.end(), global.end()]
}

fn old_sparse_tars() -> Vec<Vec<u8>> {
    let mut old_sparse = header(b'S', b"sparse", "", 0o644, 10);
    old_sparse[257..265].copy_from_slice(b"ustar  \0");
    old_sparse[386..398].copy_from_slice(b"00000001000\0");
    old_sparse[398..410].copy_from_slice(b"00000000012\0");
    old_sparse[483..495].copy_from_slice(b"00000010000\0");
    seal(&mut old_sparse);
    let mut extended = old_sparse;
    extended[482] = 1;
    seal(&mut extended);
    let mut more = [0; 512];
    more[..24].copy_from_slice(b"00000002000\x0000000000000\0");
    let extended = Tar::new().raw(&extended, b"").cut();
    let extended = [extended, more.to_vec(), vec![b'x'; 512], vec![0; 1024]].concat();
    vec![Tar::new().raw(&old_sparse, b"0123456789").end(), extended]
}

fn sparse_tars() -> Vec<Vec<u8>> {
    let sparse = |records: &[(&str, &[u8])], body: &[u8]| {
        Tar::new()
            .pax(records)
            .file("GNUSparseFile.0/s", body)
            .end()
    };
    let map = [b"1\n512\n4\n".to_vec(), vec![0; 504], b"data".to_vec()].concat();
    vec![
        sparse(
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"s"),
                ("GNU.sparse.realsize", b"1000"),
            ],
            &map,
        ),
        sparse(
            &[
                ("GNU.sparse.size", b"1000"),
                ("GNU.sparse.numblocks", b"1"),
                ("GNU.sparse.map", b"512,4"),
                ("GNU.sparse.name", b"s"),
            ],
            b"data",
        ),
        sparse(
            &[
                ("GNU.sparse.size", b"1000"),
                ("GNU.sparse.offset", b"512"),
                ("GNU.sparse.numbytes", b"4"),
            ],
            b"data",
        ),
    ]
}

/// Without the first three bytes, which the target puts there.
fn gzips() -> Vec<Vec<u8>> {
    let member = |bytes: &[u8]| {
        let mut encoder = flate2::GzBuilder::new()
            .filename("n")
            .extra(vec![1, 2])
            .comment("c")
            .write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let text =
        b"a text that is long enough to be worth a table of its own, and again a text".repeat(9);
    let two = [member(&text), member(b"two")].concat();
    let trailed = [member(b""), vec![0; 64]].concat();
    [member(&text), two, trailed]
        .into_iter()
        .map(|bytes| bytes[3..].to_vec())
        .collect()
}

fn zstds() -> Vec<Vec<u8>> {
    let text =
        b"a text that is long enough to be worth a table of its own, and again a text".repeat(9);
    let frame = |bytes: &[u8], level| zstd::bulk::compress(bytes, level).unwrap();
    let skippable = [&b"\x50\x2a\x4d\x18\x04\0\0\0skip"[..], &frame(b"x", 1)].concat();
    vec![
        frame(&text, 19),
        frame(&text, 1),
        [frame(b"1", 3), frame(&text, 3)].concat(),
        skippable,
        frame(&text, 3)[4..].to_vec(),
    ]
}

fn documents() -> Vec<Vec<u8>> {
    let digest = format!("sha256:{}", "a".repeat(64));
    let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 7, "annotations": { "a": "b" } });
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": 2 }, "layers": [layer] });
    let platform = json!({ "architecture": "amd64", "os": "linux", "variant": "v8" });
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 7, "platform": platform }] });
    let config = json!({ "architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z",
        "config": { "User": "1:2", "Env": ["A=B"], "Cmd": ["x"], "Labels": { "a": "b" }, "ExposedPorts": { "1/tcp": {} } },
        "rootfs": { "type": "layers", "diff_ids": [digest] }, "history": [{ "created_by": "x" }, { "empty_layer": true }] });
    let both = format!("{manifest}\0{config}");
    vec![
        both.into_bytes(),
        manifest.to_string().into_bytes(),
        index.to_string().into_bytes(),
        b"{}\0{}".to_vec(),
    ]
}
