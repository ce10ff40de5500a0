//! `Archives` through a socket.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "served/store.rs"]
mod served;

use std::io::Write as _;

use orlop_proto::store as pb;
use orlop_proto::store::import_request::Message;
use served::{Served, config, digest};
use tonic::{Code, Status};

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        let name = &mut header.as_old_mut().name;
        name[..path.len().min(100)].copy_from_slice(&path.as_bytes()[..path.len().min(100)]);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn load(served: &Served, archive: &[u8]) -> Result<pb::LoadResponse, Status> {
    let messages: Vec<_> = archive
        .chunks(100_000)
        .map(|data| pb::LoadRequest {
            data: data.to_vec().into(),
        })
        .collect();
    let response = served.archives().load(tokio_stream::iter(messages)).await?;
    Ok(response.into_inner())
}

async fn save(served: &Served, reference: &str) -> Result<Vec<u8>, Status> {
    let request = pb::SaveRequest {
        references: vec![reference.to_owned()],
    };
    let mut stream = served.archives().save(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await? {
        bytes.extend_from_slice(&message.data);
    }
    Ok(bytes)
}

async fn import(served: &Served, name: &str, tar: &[u8]) -> Result<pb::ImportResponse, Status> {
    let name = name.to_owned();
    let config_json = r#"{"Cmd":["/bin/sh"]}"#.to_owned();
    let options = pb::ImportOptions {
        name,
        config_json,
        ..Default::default()
    };
    let mut messages = vec![pb::ImportRequest {
        message: Some(Message::Options(options)),
    }];
    messages.extend(tar.chunks(100_000).map(|data| pb::ImportRequest {
        message: Some(Message::Data(data.to_vec().into())),
    }));
    Ok(served
        .archives()
        .import(tokio_stream::iter(messages))
        .await?
        .into_inner())
}

#[tokio::test]
async fn what_is_imported_and_saved_is_loaded_elsewhere_with_the_same_digest() {
    let served = Served::start().await;
    let root = tar(&[("etc/hostname", b"x\n")]);
    for (name, archive) in [("plain:1", root.clone()), ("gzip:1", gzip(&root))] {
        let imported = import(&served, name, &archive).await.unwrap();
        let reference = pb::ResolveImageRequest {
            reference: name.into(),
            platform: None,
        };
        let found = served
            .images()
            .resolve(reference)
            .await
            .unwrap()
            .into_inner();
        let config = String::from_utf8(found.config_json.to_vec()).unwrap();
        assert!(
            config.contains(&digest(&root)) && config.contains("/bin/sh"),
            "{config}"
        );
        assert_eq!(found.config.unwrap().digest, imported.image_id);

        let saved = save(&served, name).await.unwrap();
        assert!(saved == save(&served, name).await.unwrap());
        let other = Served::start().await;
        for archive in [saved.clone(), gzip(&saved)] {
            let loaded = load(&other, &archive).await.unwrap();
            assert_eq!(loaded.images[0].name, format!("docker.io/library/{name}"));
            assert_eq!(
                loaded.images[0].target.as_ref().unwrap().digest,
                found.target.as_ref().unwrap().digest
            );
        }
    }
    assert_eq!(
        save(&served, "absent").await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_docker_archive_is_loaded() {
    let served = Served::start().await;
    let layer = tar(&[("a", b"a")]);
    let config = config(&[&digest(&layer)]);
    let name = format!("{}.json", &digest(config.as_bytes())[7..]);
    let manifest =
        format!(r#"[{{"Config":"{name}","RepoTags":["a:1","b:2"],"Layers":["x/layer.tar"]}}]"#);
    let archive = tar(&[
        ("x/layer.tar", &layer),
        (&name, config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ]);
    let loaded = load(&served, &archive).await.unwrap();
    let names: Vec<_> = loaded
        .images
        .iter()
        .map(|image| image.name.as_str())
        .collect();
    assert_eq!(names, ["docker.io/library/a:1", "docker.io/library/b:2"]);
}

#[tokio::test]
async fn a4_g8_i2_a_hostile_archive_leaves_nothing() {
    let served = Served::start().await;
    let layer = tar(&[("a", b"a")]);
    let config = config(&[&digest(&layer)]);
    let good = format!("{}.json", &digest(config.as_bytes())[7..]);
    let wrong = format!("{}.json", "0".repeat(64));
    let archive = |name: &str, path: &str| {
        let manifest = serde_json::json!([{"Config": name, "RepoTags": ["a:1"], "Layers": ["l"]}]);
        tar(&[
            ("l", &layer),
            (path, config.as_bytes()),
            ("manifest.json", manifest.to_string().as_bytes()),
        ])
    };
    let huge = "a".repeat(1 << 20);
    let mut bad: Vec<Vec<u8>> = ["../../x", "a/b", "", "x\0y", huge.as_str(), wrong.as_str()]
        .iter()
        .map(|name| archive(name, &good))
        .collect();
    bad.push(archive(&good, "../../x"));
    bad.push(archive(&good, "/x"));
    bad.push(tar(&[("blobs/sha256/../../x", b"x")]));
    bad.push(tar(&[(&format!("blobs/sha256/{}", "0".repeat(64)), b"x")]));
    bad.push(tar(&[("manifest.json", &vec![b' '; (1 << 20) + 1])]));
    bad.push(tar(&[("other", b"x")]));
    bad.push(b"not a tar at all".to_vec());
    for archive in bad {
        let error = load(&served, &archive).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    assert!(served.store.content.list().unwrap().is_empty());
    assert_eq!(served.store.images.count(), 0);
    assert_eq!(
        std::fs::read_dir(served.state().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    load(&served, &archive(&good, &good)).await.unwrap();
}
