//! Rows A27, I2, I3 and I4: archives of images, and the documents in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use orlop_proto::error::Kind;
use orlop_proto::store::LoadRequest;
use orlop_proto::store::archives_client::ArchivesClient;
use serde_json::{Value, json};
use tonic::Code;

use crate::client::Client;
use crate::service::{Service, sha256};
use crate::smith::{Canary, Tar, header, seal};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn put(service: &Service, document: &Value, media_type: &str) -> Value {
    let bytes = serde_json::to_vec(document).unwrap();
    json!({ "mediaType": media_type, "digest": service.put(&bytes), "size": bytes.len() })
}

/// What is announced in an archive's header and never ends is read no further than the bound.
#[tokio::test(flavor = "multi_thread")]
async fn i2_a_document_of_10_gib_is_refused_at_once() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 4096;
    let service = Service::start().await;
    for name in ["manifest.json", "index.json", "oci-layout"] {
        let mut block = header(b'0', name.as_bytes(), "", 0o644, 0);
        block[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\x02\x80\0\0\0");
        seal(&mut block);
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let body = (0..PIECES).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            vec![b' '; PIECE]
        });
        let start = std::iter::once(block.to_vec());
        let messages = start
            .chain(body)
            .map(|data| LoadRequest { data: data.into() });
        let mut archives = service.client(ArchivesClient::new);
        let refused = archives
            .load(tokio_stream::iter(messages))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}: {refused}");
        // The layout's own document is passed over, and never held.
        let read = sent.load(Ordering::Relaxed);
        assert!(
            read < PIECES || name == "oci-layout",
            "{name} was read to its end"
        );
    }
    assert!(service.store.content.list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_no_document_is_a_panic() {
    let mut client = Client::start().await;
    let service = &client.service;
    let layer = service.put(&Tar::new().file("f", b"x").end());
    let layer = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 2048 });
    let config = |config: &Value| put(service, config, "application/vnd.oci.image.config.v1+json");
    let good = json!({ "architecture": "a", "os": "b", "rootfs": { "type": "layers", "diff_ids": [sha256(b"")] } });
    let of = |config: Value, layers: Value| json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    let configs = [
        json!({}),
        json!(null),
        json!([]),
        json!("x"),
        json!(7),
        json!({ "rootfs": null }),
        json!({ "rootfs": {} }),
        json!({ "rootfs": { "type": "layers", "diff_ids": null } }),
        json!({ "architecture": "a", "os": "b", "rootfs": { "type": "layers", "diff_ids": [] } }),
        json!({ "architecture": "a", "os": "b", "rootfs": { "type": "layers", "diff_ids": [null] } }),
        json!({ "architecture": "a", "os": "b", "rootfs": { "type": "layers", "diff_ids": [sha256(b"a"), sha256(b"b")] } }),
        json!({ "architecture": "a", "os": "b", "history": [{}, {}], "rootfs": { "type": "layers", "diff_ids": [sha256(b"a")] } }),
    ];
    let mut documents: Vec<Value> = configs
        .iter()
        .map(|bad| of(config(bad), json!([layer])))
        .collect();
    documents.extend([
        json!({}),
        json!(null),
        json!([]),
        json!({ "schemaVersion": 2 }),
        of(config(&good), json!(null)),
        of(config(&good), json!([null])),
        of(json!(null), json!([layer])),
        of(config(&good), json!([layer, layer])),
        of(config(&good), json!([])),
        of(layer.clone(), json!([layer])),
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": null }),
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [null] }),
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
    ]);
    let mut digests: Vec<String> = documents
        .iter()
        .map(|bad| service.put(bad.to_string().as_bytes()))
        .collect();
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    digests.push(service.put(&deep));
    digests.push(service.put(&[&b"{\"a\":"[..], &deep, b"}"].concat()));
    digests.push(service.put(b"\xff\xfe"));
    digests.push(service.put(b""));
    for digest in digests {
        let kind = crate::client::kind(client.unpack(&digest).await);
        let expected = [
            Kind::InvalidArgument,
            Kind::NotFound,
            Kind::FailedPrecondition,
        ];
        assert!(expected.contains(&kind), "{digest}: {kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_many_and_deep_indexes_are_bounded() {
    let mut client = Client::start().await;
    let service = &client.service;
    let entry = |digest: &str| json!({ "mediaType": MANIFEST, "digest": digest, "size": 2 });
    let million = vec![entry(&sha256(b"{}")); 1_000_000];
    let large = put(
        service,
        &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": million }),
        INDEX,
    );
    drop(million);
    let many = vec![entry(&sha256(b"{}")); 20_000];
    let many = put(
        service,
        &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": many }),
        INDEX,
    );
    let mut nested = entry(&sha256(b"{}"));
    for _ in 0..100 {
        nested = put(
            service,
            &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [nested] }),
            INDEX,
        );
    }
    // No digest is that of a document which holds it: a circle can only be claimed.
    let circle = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [{ "mediaType": INDEX, "digest": sha256(b"circle"), "size": 6 }] });
    let circle = put(service, &circle, INDEX);
    for target in [large, many, nested, circle] {
        let outcome = client.unpack(target["digest"].as_str().unwrap()).await;
        assert!(outcome.is_err(), "{target}");
    }
}

/// What an annotation says is never a path.
#[tokio::test(flavor = "multi_thread")]
async fn a27_a_title_is_not_a_place() {
    let canary = Canary::new();
    let mut client = Client::start().await;
    let layer = Tar::new().file("f", b"x").end();
    let above = format!("../../../../../../..{}/title", canary.path());
    let absolute = format!("{}/title", canary.path());
    for title in [
        "../../x",
        "/x",
        "..",
        "a/../../x",
        above.as_str(),
        absolute.as_str(),
    ] {
        let service = &client.service;
        let annotations =
            json!({ "org.opencontainers.image.title": title, "io.containerd.image.name": title });
        let config = json!({ "architecture": "a", "os": "b", "config": { "Labels": { "title": title } },
            "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] } });
        let config = put(service, &config, "application/vnd.oci.image.config.v1+json");
        let blob = json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": service.put(&layer),
            "size": layer.len(), "annotations": annotations });
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [blob],
            "annotations": annotations });
        let manifest = put(service, &manifest, MANIFEST);
        client
            .unpack(manifest["digest"].as_str().unwrap())
            .await
            .unwrap();
    }
    canary.sings();
    let mut around = crate::service::names(client.service.directory.path());
    around.retain(|name| !name.starts_with("s.sock"));
    assert_eq!(around, ["store"]);
}
