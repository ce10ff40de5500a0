//! Documents that must be refused, and those that must not.

use proptest::prelude::*;

use super::*;

fn digest(character: char) -> String {
    format!("sha256:{}", character.to_string().repeat(64))
}

fn manifest(media_type: &str, layers: usize) -> String {
    let layer = format!(
        r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":1,"digest":"{}"}}"#,
        digest('b')
    );
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{{"mediaType":"{OCI_CONFIG}","size":2,"digest":"{}"}},"layers":[{}]}}"#,
        digest('a'),
        vec![layer; layers].join(",")
    )
}

fn parsed(layers: usize) -> ImageManifest {
    match Document::parse(manifest(OCI_MANIFEST, layers).as_bytes(), "").unwrap() {
        Document::Manifest(manifest) => *manifest,
        Document::Index(_) => panic!("an index"),
    }
}

fn config(diff_ids: usize, history: &str) -> String {
    let diff_ids = vec![format!("\"{}\"", digest('c')); diff_ids].join(",");
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Volumes":null,"ExposedPorts":null,"Labels":null,"Env":null,"Cmd":null}},"rootfs":{{"type":"layers","diff_ids":[{diff_ids}]}},"history":{history}}}"#
    )
}

#[test]
fn honest_documents_pass() {
    let document = Document::parse(manifest(DOCKER_MANIFEST, 2).as_bytes(), DOCKER_MANIFEST);
    assert_eq!(document.unwrap().children().count(), 3);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[],"mediaType":"{OCI_INDEX}"}}"#);
    assert!(matches!(
        Document::parse(index.as_bytes(), ""),
        Ok(Document::Index(_))
    ));
}

#[test]
fn h1_a_document_is_one_thing_to_everybody() {
    let good = manifest(OCI_MANIFEST, 1);
    let with = |extra: &str| good.replacen('{', &format!("{{{extra},"), 1);
    for bad in [
        with(r#""manifests":[]"#),
        with(r#""schemaVersion":2"#),
        with(r#""Layers":[]"#),
        with(r#""MediaType":"x""#),
        manifest(OCI_INDEX, 1),
        manifest("text/html", 1),
        format!("{good}x"),
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","manifests":[]}}"#),
        "[]".to_owned(),
        "<html>".to_owned(),
    ] {
        assert!(Document::parse(bad.as_bytes(), "").is_err(), "{bad}");
    }
    assert!(Document::parse(good.as_bytes(), DOCKER_MANIFEST).is_err());
    assert!(Document::parse(good.as_bytes(), OCI_INDEX).is_err());
}

#[test]
fn g8_h6_a_descriptor_in_a_document_is_checked() {
    for (from, to) in [
        (digest('a'), "sha256:../../x".to_owned()),
        (digest('a'), digest('A')),
        (
            "\"size\":2".to_owned(),
            "\"size\":9223372036854775808".to_owned(),
        ),
        ("\"size\":2".to_owned(), "\"size\":-1".to_owned()),
    ] {
        let bad = manifest(OCI_MANIFEST, 1).replace(&from, &to);
        assert!(Document::parse(bad.as_bytes(), "").is_err(), "{bad}");
    }
}

#[test]
fn e21_a_malformed_configuration_is_an_error() {
    let manifest = parsed(1);
    let history = r#"[{"created_by":"a"},{"empty_layer":true}]"#;
    assert!(parse_config(config(1, history).as_bytes(), &manifest).is_ok());
    assert!(parse_config(config(1, "null").as_bytes(), &manifest).is_ok());
    for bad in [
        config(1, "[null]"),
        config(0, "[]"),
        config(2, "[]"),
        config(1, r#"[{"created_by":"a"},{"created_by":"b"}]"#),
        config(1, "[]").replace("\"type\":\"layers\",", ""),
        config(1, "[]").replace("\"layers\"", "\"other\""),
        config(1, "[]").replace(&digest('c'), "sha256:/"),
        r#"{"architecture":"amd64","os":"linux"}"#.to_owned(),
        "null".to_owned(),
    ] {
        assert!(parse_config(bad.as_bytes(), &manifest).is_err(), "{bad}");
    }
}

#[test]
fn i1_depth_is_bounded() {
    let deep = format!(r#"{{"schemaVersion":2,"x":{}}}"#, "[".repeat(1_000_000));
    assert!(Document::parse(deep.as_bytes(), "").is_err());
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        Document::parse(&bytes, "").ok();
        parse_config(&bytes, &parsed(1)).ok();
    }

    #[test]
    fn a_cut_document_is_an_error(cut in 0usize..200) {
        let good = manifest(OCI_MANIFEST, 1);
        prop_assert!(Document::parse(&good.as_bytes()[..cut], "").is_err());
    }
}
