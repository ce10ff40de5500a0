//! `Archives`: images and file trees as tar files.

use orlop_proto::error::Kind;
use orlop_proto::store as pb;
use orlop_proto::store::import_request::Message;
use orlop_proto::types::Platform;

use crate::calls::{Outcome, all, kind, named};
use crate::reach::Subject;
use crate::words::{config, digest, gzip, zstd};

conforms! {
    what_is_imported_and_saved_is_loaded_elsewhere_with_the_same_digest,
    several_images_are_saved_as_one_archive,
    a_docker_archive_is_loaded,
    a_manifest_without_a_name_is_told,
    a4_g8_i2_a_hostile_archive_leaves_nothing,
    an_import_says_what_the_image_is,
    a_bad_import_makes_no_image,
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        // By hand: the crate refuses to write the names that this is about.
        let name = &mut header.as_old_mut().name;
        let length = path.len().min(100);
        name[..length].copy_from_slice(&path.as_bytes()[..length]);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

async fn load(store: &Subject, archive: &[u8]) -> Outcome<pb::LoadResponse> {
    let pieces = archive.chunks(100_000).map(|data| pb::LoadRequest {
        data: data.to_vec().into(),
    });
    let pieces: Vec<_> = pieces.collect();
    let loaded = store.archives().load(tokio_stream::iter(pieces)).await?;
    Ok(loaded.into_inner())
}

async fn save(store: &Subject, references: &[&str]) -> Outcome<Vec<u8>> {
    let references = references.iter().map(|&name| name.to_owned()).collect();
    let request = pb::SaveRequest { references };
    let pieces = all(store.archives().save(request).await).await?;
    Ok(pieces
        .iter()
        .flat_map(|piece| piece.data.to_vec())
        .collect())
}

async fn import(
    store: &Subject,
    options: pb::ImportOptions,
    tar: &[u8],
) -> Outcome<pb::ImportResponse> {
    let pieces = tar
        .chunks(100_000)
        .map(|data| Message::Data(data.to_vec().into()));
    let messages = std::iter::once(Message::Options(options)).chain(pieces);
    import_of(store, messages.collect()).await
}

async fn import_of(store: &Subject, messages: Vec<Message>) -> Outcome<pb::ImportResponse> {
    let messages = messages.into_iter().map(|message| pb::ImportRequest {
        message: Some(message),
    });
    let imported = store
        .archives()
        .import(tokio_stream::iter(messages))
        .await?;
    Ok(imported.into_inner())
}

fn of_name(name: &str) -> pb::ImportOptions {
    pb::ImportOptions {
        name: name.to_owned(),
        config_json: r#"{"Cmd":["/bin/sh"]}"#.to_owned(),
        ..Default::default()
    }
}

async fn resolve(store: &Subject, reference: &str) -> Outcome<pb::ResolvedImage> {
    let request = pb::ResolveImageRequest {
        reference: reference.to_owned(),
        platform: None,
    };
    Ok(store.images().resolve(request).await?.into_inner())
}

async fn names(store: &Subject) -> Vec<String> {
    let list = store.images().list(pb::ListImagesRequest::default()).await;
    let images = list.unwrap().into_inner().images;
    images
        .into_iter()
        .map(|summary| summary.image.unwrap().name)
        .collect()
}

async fn what_is_imported_and_saved_is_loaded_elsewhere_with_the_same_digest(store: Subject) {
    let root = tar(&[("hostname", b"x\n")]);
    for (name, archive) in [
        ("plain:1", root.clone()),
        ("gzip:1", gzip(&root)),
        ("zstd:1", zstd(&root)),
    ] {
        let imported = import(&store, of_name(name), &archive).await.unwrap();
        let found = resolve(&store, name).await.unwrap();
        let config = String::from_utf8(found.config_json.to_vec()).unwrap();
        assert!(
            config.contains(&digest(&root)) && config.contains("/bin/sh"),
            "{config}"
        );
        assert_eq!(found.config.unwrap().digest, imported.image_id);
        assert_eq!(found.target, imported.target);

        let saved = save(&store, &[name]).await.unwrap();
        assert!(saved == save(&store, &[name]).await.unwrap());
        for archive in [saved.clone(), gzip(&saved), zstd(&saved)] {
            let other = store.another().await;
            let loaded = load(&other, &archive).await.unwrap();
            assert_eq!(loaded.images[0].name, format!("docker.io/library/{name}"));
            assert_eq!(loaded.images[0].target, imported.target);
            let digest = &imported.target.as_ref().unwrap().digest;
            let unpacked = other.unpack(digest).await.unwrap();
            assert_eq!(
                other.read(&unpacked.name, "hostname").await.unwrap(),
                b"x\n"
            );
        }
    }
    assert_eq!(kind(save(&store, &["absent"]).await), Kind::NotFound);
    assert_eq!(
        kind(save(&store, &["plain:1", "absent"]).await),
        Kind::NotFound
    );
    assert_eq!(kind(save(&store, &[]).await), Kind::InvalidArgument);
}

async fn several_images_are_saved_as_one_archive(store: Subject) {
    let one = store.named("docker.io/library/one:1", b"layer one").await;
    store.images().put(named("same:1", &one)).await.unwrap();
    store.named("docker.io/library/two:1", b"layer two").await;
    let saved = save(&store, &["one:1", "same:1", "two:1"]).await.unwrap();
    let other = store.another().await;
    assert_eq!(load(&other, &saved).await.unwrap().images.len(), 3);
    let expected = ["one", "same", "two"].map(|name| format!("docker.io/library/{name}:1"));
    assert_eq!(names(&other).await, expected);
    assert_eq!(resolve(&other, "same:1").await.unwrap().target, Some(one));
}

async fn a_docker_archive_is_loaded(store: Subject) {
    let layer = tar(&[("a", b"a")]);
    let config = config(&[digest(&layer)], "");
    let name = format!("{}.json", &digest(config.as_bytes())[7..]);
    let manifest = serde_json::json!([
        {"Config": name, "RepoTags": ["a:1", "b:2"], "Layers": ["x/layer.tar"]}
    ]);
    let archive = tar(&[
        ("x/layer.tar", &layer),
        (&name, config.as_bytes()),
        ("manifest.json", manifest.to_string().as_bytes()),
    ]);
    let loaded = load(&store, &archive).await.unwrap();
    let told: Vec<_> = loaded
        .images
        .iter()
        .map(|image| image.name.clone())
        .collect();
    assert_eq!(told, ["docker.io/library/a:1", "docker.io/library/b:2"]);
    assert_eq!(names(&store).await, told);
    let id = digest(config.as_bytes());
    assert_eq!(
        resolve(&store, "a:1").await.unwrap().config.unwrap().digest,
        id
    );
}

async fn a_manifest_without_a_name_is_told(store: Subject) {
    let image = store.named("docker.io/library/a:1", b"layer").await;
    let saved = save(&store, &[&image.digest]).await.unwrap();
    let other = store.another().await;
    let loaded = load(&other, &saved).await.unwrap();
    assert!(loaded.images.is_empty());
    assert_eq!(loaded.unnamed, [image.digest.as_str()]);
    assert!(names(&other).await.is_empty());
    other.images().put(named("b", &image)).await.unwrap();
}

async fn a4_g8_i2_a_hostile_archive_leaves_nothing(store: Subject) {
    let layer = tar(&[("a", b"a")]);
    let config = config(&[digest(&layer)], "");
    let good = format!("{}.json", &digest(config.as_bytes())[7..]);
    let wrong = format!("{}.json", "0".repeat(64));
    let tagged = |name: &str, path: &str, tag: &str| {
        let manifest = serde_json::json!([{"Config": name, "RepoTags": [tag], "Layers": ["l"]}]);
        tar(&[
            ("l", &layer),
            (path, config.as_bytes()),
            ("manifest.json", manifest.to_string().as_bytes()),
        ])
    };
    let archive = |name: &str, path: &str| tagged(name, path, "a:1");
    let huge = "a".repeat(1 << 20);
    let odd = ["../../x", "a/b", "", "x\0y", huge.as_str(), wrong.as_str()];
    let mut bad: Vec<Vec<u8>> = odd.iter().map(|name| archive(name, &good)).collect();
    bad.push(archive(&good, "../../x"));
    bad.push(archive(&good, "/x"));
    bad.push(tagged(&good, &good, "a b"));
    bad.push(tar(&[("blobs/sha256/../../x", b"x")]));
    bad.push(tar(&[(&format!("blobs/sha256/{}", "0".repeat(64)), b"x")]));
    bad.push(tar(&[("manifest.json", &vec![b' '; (1 << 20) + 1])]));
    bad.push(tar(&[("other", b"x")]));
    bad.push(b"not a tar at all".to_vec());
    bad.push(gzip(b"not a tar at all"));
    bad.push(gzip(&archive(&good, &good))[..200].to_vec());
    for archive in bad {
        assert_eq!(kind(load(&store, &archive).await), Kind::InvalidArgument);
    }
    let blobs = all(store.content().list(pb::ListRequest {}).await)
        .await
        .unwrap();
    assert!(blobs.is_empty() && names(&store).await.is_empty());
    load(&store, &archive(&good, &good)).await.unwrap();
}

async fn an_import_says_what_the_image_is(store: Subject) {
    let options = pb::ImportOptions {
        message: "made by hand".to_owned(),
        platform: Some(Platform {
            os: "linux".to_owned(),
            architecture: "riscv64".to_owned(),
            variant: String::new(),
        }),
        ..of_name("")
    };
    let root = tar(&[("f", b"1")]);
    let imported = import(&store, options, &root).await.unwrap();
    assert!(names(&store).await.is_empty());
    assert_eq!(
        digest(&store.bytes(&imported.image_id).await.unwrap()),
        imported.image_id
    );
    let config = store.bytes(&imported.image_id).await.unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["architecture"], "riscv64");
    assert_eq!(config["history"][0]["comment"], "made by hand");
    assert_eq!(config["config"]["Cmd"][0], "/bin/sh");
    let target = imported.target.unwrap();
    store
        .images()
        .put(named("named-later", &target))
        .await
        .unwrap();
}

async fn a_bad_import_makes_no_image(store: Subject) {
    let root = tar(&[("f", b"1")]);
    let not_json = pb::ImportOptions {
        config_json: "{".to_owned(),
        ..of_name("a")
    };
    assert_eq!(
        kind(import(&store, not_json, &root).await),
        Kind::InvalidArgument
    );
    for bad in [b"".as_slice(), b"not a tar", &gzip(&root)[..40]] {
        assert_eq!(
            kind(import(&store, of_name("a"), bad).await),
            Kind::InvalidArgument
        );
    }
    assert_eq!(
        kind(import(&store, of_name("A b"), &root).await),
        Kind::InvalidArgument
    );
    let data = || Message::Data(root.clone().into());
    let options = || Message::Options(of_name("a"));
    for messages in [vec![], vec![data()], vec![options(), data(), options()]] {
        assert_eq!(
            kind(import_of(&store, messages).await),
            Kind::InvalidArgument
        );
    }
    assert!(names(&store).await.is_empty());
}
