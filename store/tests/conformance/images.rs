//! `Images`: what names point at, and what a person may have typed.

use orlop_proto::error::{Kind, reason};
use orlop_proto::store as pb;
use orlop_proto::types::{Descriptor, Platform};
use serde_json::json;

use crate::calls::{kind, named, refusal};
use crate::reach::Subject;
use crate::smith::Tar;
use crate::words::{ARCHITECTURE, CONFIG, INDEX, LAYER, MANIFEST};
use crate::words::{config, described, digest, manifest, size, target};

conforms! {
    an_image_is_found_by_all_that_a_person_may_type,
    an_ambiguous_prefix_is_said_to_be_one,
    a_platform_is_chosen_of_an_index,
    of_an_index_one_whole_image_is_enough,
    a_name_never_points_at_something_incomplete,
    e21_h1_h6_i1_bad_documents_get_no_name,
    i1_a_manifest_or_configuration_above_4_mib_is_refused,
    the_size_of_an_unpacked_image_is_that_of_its_files,
    what_is_resolved_was_used,
}

const NAME: &str = "docker.io/library/a:latest";

async fn resolve(store: &Subject, reference: &str) -> Result<pb::ResolvedImage, tonic::Status> {
    resolve_for(store, reference, None).await
}

async fn resolve_for(
    store: &Subject,
    reference: &str,
    platform: Option<Platform>,
) -> Result<pb::ResolvedImage, tonic::Status> {
    let reference = reference.to_owned();
    let request = pb::ResolveImageRequest {
        reference,
        platform,
    };
    store
        .images()
        .resolve(request)
        .await
        .map(tonic::Response::into_inner)
}

async fn only(store: &Subject) -> pb::ImageSummary {
    let list = store.images().list(pb::ListImagesRequest::default()).await;
    let mut images = list.unwrap().into_inner().images;
    assert_eq!(images.len(), 1);
    images.remove(0)
}

async fn an_image_is_found_by_all_that_a_person_may_type(store: Subject) {
    let target = store.named(NAME, b"layer").await;
    let summary = only(&store).await;
    let id = summary.image_id.clone();
    assert_eq!(summary.labels["word"], "");
    assert_eq!(summary.created.unwrap().seconds, 1_767_323_045);
    assert_eq!(summary.platform.unwrap().architecture, ARCHITECTURE);
    let by_digest = format!("a@{}", target.digest);
    for (text, name) in [
        ("a", NAME),
        ("a:latest", NAME),
        ("library/a", NAME),
        (NAME, NAME),
        (&by_digest, NAME),
        (&target.digest, ""),
        (&target.digest[7..], ""),
        (&id, ""),
        (&id[7..], ""),
        (&id[7..19], ""),
        (&id[..19], ""),
    ] {
        let found = resolve(&store, text).await.unwrap();
        assert_eq!(found.target.unwrap().digest, target.digest, "{text}");
        assert_eq!(found.names, [NAME], "{text}");
        assert_eq!(found.name, name, "{text}");
        assert_eq!(digest(&found.manifest_json), target.digest);
        assert_eq!(found.config.unwrap().digest, id);
        assert_eq!(digest(&found.config_json), id);
    }
    for unknown in ["zzz", "a:2", "b@sha256:00", &digest(b"?"), "feedfeed"] {
        let failure = refusal(resolve(&store, unknown).await);
        let malformed = unknown == "b@sha256:00";
        let expected = if malformed {
            Kind::InvalidArgument
        } else {
            Kind::NotFound
        };
        assert_eq!(failure.kind, expected, "{unknown}");
        assert!(
            malformed || failure.reason == reason::IMAGE_NOT_FOUND,
            "{unknown}"
        );
    }
    for malformed in ["A/", "", "a b", "a:"] {
        assert_eq!(
            kind(resolve(&store, malformed).await),
            Kind::InvalidArgument,
            "{malformed}"
        );
    }
}

async fn an_ambiguous_prefix_is_said_to_be_one(store: Subject) {
    // Of seventeen ids two begin alike.
    let mut ids: Vec<String> = Vec::new();
    for n in 0..17 {
        let word = n.to_string();
        let layer: (&[u8], String) = (b"layer", digest(b"layer"));
        let image = store.image_of(std::slice::from_ref(&layer), &word).await;
        store
            .images()
            .put(named(&format!("n{n}"), &image))
            .await
            .unwrap();
        ids.push(digest(config(&[layer.1], &word).as_bytes()));
    }
    let first = |id: &str| id[7..8].to_owned();
    let count = |letter: &str| ids.iter().filter(|id| first(id) == letter).count();
    let letter = ids
        .iter()
        .map(|id| first(id))
        .find(|letter| count(letter) > 1)
        .unwrap();
    for prefix in [letter.clone(), format!("sha256:{letter}")] {
        let failure = refusal(resolve(&store, &prefix).await);
        assert_eq!(failure.kind, Kind::FailedPrecondition);
        assert_eq!(failure.reason, reason::AMBIGUOUS_PREFIX);
    }
    let one = &ids[3];
    assert_eq!(
        resolve(&store, &one[7..47])
            .await
            .unwrap()
            .config
            .unwrap()
            .digest,
        *one
    );
    // A name comes before an id.
    let image = store.image(b"other").await;
    store.images().put(named(&letter, &image)).await.unwrap();
    assert_eq!(
        resolve(&store, &letter)
            .await
            .unwrap()
            .target
            .unwrap()
            .digest,
        image.digest
    );
}

/// An index of manifests, each with its platform.
async fn index(store: &Subject, entries: &[(&Descriptor, &str)]) -> Descriptor {
    let entries = entries.iter().map(|(entry, architecture)| {
        json!({
            "mediaType": entry.media_type, "digest": entry.digest, "size": entry.size,
            "platform": {"os": "linux", "architecture": architecture},
        })
    });
    let entries: Vec<_> = entries.collect();
    let json = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    store.blob(json.as_bytes()).await;
    target(INDEX, json.as_bytes())
}

async fn a_platform_is_chosen_of_an_index(store: Subject) {
    let host = store.image(b"host").await;
    let other = store.image(b"other").await;
    let both = index(&store, &[(&other, "riscv64"), (&host, ARCHITECTURE)]).await;
    store.images().put(named(NAME, &both)).await.unwrap();
    let found = resolve(&store, "a").await.unwrap();
    assert_eq!(found.target.unwrap(), both);
    assert_eq!(found.manifest.unwrap().digest, host.digest);
    let wanted = |architecture: &str| {
        Some(Platform {
            architecture: architecture.to_owned(),
            ..Default::default()
        })
    };
    let found = resolve_for(&store, "a", wanted("riscv64")).await.unwrap();
    assert_eq!(found.manifest.unwrap().digest, other.digest);
    let failure = refusal(resolve_for(&store, "a", wanted("s390x")).await);
    assert_eq!(
        (failure.kind, failure.reason.as_str()),
        (Kind::NotFound, reason::IMAGE_NOT_FOUND)
    );
    // All that an index has is needed, whatever it is for.
    let held = refusal(store.delete(&other.digest).await);
    assert_eq!(held.reason, reason::IN_USE);
}

async fn of_an_index_one_whole_image_is_enough(store: Subject) {
    let host = store.image(b"host").await;
    let absent = target(MANIFEST, b"absent");
    let none = index(&store, &[(&absent, "riscv64")]).await;
    let refused = store.images().put(named(NAME, &none)).await;
    assert_eq!(kind(refused), Kind::FailedPrecondition);
    let some = index(&store, &[(&absent, "riscv64"), (&host, ARCHITECTURE)]).await;
    store.images().put(named(NAME, &some)).await.unwrap();
    assert_eq!(
        resolve(&store, "a").await.unwrap().manifest.unwrap().digest,
        host.digest
    );
}

async fn a_name_never_points_at_something_incomplete(store: Subject) {
    let absent = target(MANIFEST, b"absent");
    let answer = store.images().put(named(NAME, &absent)).await;
    assert_eq!(kind(answer), Kind::FailedPrecondition);

    let gone = digest(b"gone");
    let config = config(std::slice::from_ref(&gone), "");
    let json = manifest(config.as_bytes(), &[b"gone"]);
    store.blob(json.as_bytes()).await;
    let target = target(MANIFEST, json.as_bytes());
    for lacks in [digest(config.as_bytes()), gone] {
        let failure = refusal(store.images().put(named(NAME, &target)).await);
        assert_eq!(failure.kind, Kind::FailedPrecondition);
        assert!(failure.message.contains(&lacks), "{failure}");
        store.blob(config.as_bytes()).await;
    }
    let get = pb::GetImageRequest {
        name: NAME.to_owned(),
    };
    assert_eq!(kind(store.images().get(get).await), Kind::NotFound);
    store.blob(b"gone").await;
    store.images().put(named(NAME, &target)).await.unwrap();
}

async fn e21_h1_h6_i1_bad_documents_get_no_name(store: Subject) {
    let layer = store.blob(b"layer").await;
    let good = config(&[layer], "");
    store.blob(good.as_bytes()).await;
    let mut bad = Vec::new();
    for broken in [
        good.replace("\"rootfs\"", "\"x\""),
        good.replacen('{', "{\"history\":[null],", 1),
        config(&[], ""),
        good.replacen('{', "{\"os\":\"linux\",", 1),
    ] {
        store.blob(broken.as_bytes()).await;
        bad.push(manifest(broken.as_bytes(), &[b"layer"]));
    }
    let sized = |config_size: usize, layer_size: usize| {
        let mut json = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": described(CONFIG, good.as_bytes()),
            "layers": [described(LAYER, b"layer")],
        });
        json["config"]["size"] = config_size.into();
        json["layers"][0]["size"] = layer_size.into();
        json.to_string()
    };
    bad.push(sized(good.len() + 1, 5));
    bad.push(sized(good.len(), 4));
    let whole = sized(good.len(), 5);
    bad.push(whole.replacen('{', "{\"manifests\":[],", 1));
    bad.push(whole.replace("\"schemaVersion\":2", "\"schemaVersion\":1"));
    bad.push("not json".to_owned());
    for json in bad {
        store.blob(json.as_bytes()).await;
        let answer = store
            .images()
            .put(named(NAME, &target(MANIFEST, json.as_bytes())))
            .await;
        assert_eq!(kind(answer), Kind::InvalidArgument, "{json}");
    }
    store.blob(whole.as_bytes()).await;
    let right = target(MANIFEST, whole.as_bytes());
    let wrong_size = Descriptor {
        size: right.size + 1,
        ..right.clone()
    };
    let wrong_type = Descriptor {
        media_type: INDEX.to_owned(),
        ..right.clone()
    };
    for wrong in [wrong_size, wrong_type, Descriptor::default()] {
        assert_eq!(
            kind(store.images().put(named(NAME, &wrong)).await),
            Kind::InvalidArgument
        );
    }
    store.images().put(named(NAME, &right)).await.unwrap();
}

/// The same document with spaces at its end, so that it has `size` bytes.
fn padded(json: &str, size: usize) -> String {
    let spaces = " ".repeat(size.saturating_sub(json.len()));
    format!("{json}{spaces}")
}

async fn i1_a_manifest_or_configuration_above_4_mib_is_refused(store: Subject) {
    const MAX: usize = 4 << 20;
    let layer = store.blob(b"layer").await;
    let small = config(&[layer], "");
    let put_with = async |config_size: usize, manifest_size: usize| {
        let config = padded(&small, config_size);
        store.blob(config.as_bytes()).await;
        let json = padded(&manifest(config.as_bytes(), &[b"layer"]), manifest_size);
        store.blob(json.as_bytes()).await;
        store
            .images()
            .put(named(NAME, &target(MANIFEST, json.as_bytes())))
            .await
    };
    for (config_size, manifest_size) in [(0, MAX + 1), (MAX + 1, 0)] {
        let failure = refusal(put_with(config_size, manifest_size).await);
        assert_eq!(failure.kind, Kind::InvalidArgument, "{failure}");
        assert!(failure.message.contains(&MAX.to_string()), "{failure}");
    }
    put_with(MAX - 1, MAX).await.unwrap();
    put_with(MAX, MAX - 1).await.unwrap();
}

async fn the_size_of_an_unpacked_image_is_that_of_its_files(store: Subject) {
    let layer = Tar::new().file("f", b"abc").end();
    let target = store.named(NAME, &layer).await;
    assert_eq!(only(&store).await.size, size(&layer));
    store.unpack(&target.digest).await.unwrap();
    assert_eq!(only(&store).await.size, 3);
}

async fn what_is_resolved_was_used(store: Subject) {
    store.named(NAME, b"layer").await;
    let used = async || {
        let time = only(&store).await.last_used.unwrap();
        (time.seconds, time.nanos)
    };
    let put = used().await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    resolve(&store, "a").await.unwrap();
    assert!(used().await > put);
}
