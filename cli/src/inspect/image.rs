//! An image in Docker's shape (Docker Engine API, `ImageInspect`).

use orlop_proto::reference::Reference;
use orlop_proto::store::ResolvedImage;
use serde_json::{Value, json};

use crate::error::CliError;

/// The whole image. `size` is in bytes, unpacked.
pub(crate) fn describe(image: &ResolvedImage, size: i64) -> Result<Value, CliError> {
    let config: Value =
        serde_json::from_slice(&image.config_json).map_err(|_| CliError::Contract {
            service: "store",
            what: "an image configuration that is not JSON",
        })?;
    let text = |name: &str| config.get(name).cloned().unwrap_or_else(|| json!(""));
    let (tags, digests) = names(image);
    Ok(json!({
        "Id": image.config.as_ref().map(|config| config.digest.clone()),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": text("created"),
        "Author": text("author"),
        "Comment": comment(&config),
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "Size": size,
        "Config": config.get("config").cloned().unwrap_or_else(|| json!({})),
        "RootFS": {
            "Type": "layers",
            "Layers": config.pointer("/rootfs/diff_ids").cloned().unwrap_or_else(|| json!([])),
        },
        "Descriptor": image.target.as_ref().map(|target| json!({
            "mediaType": target.media_type,
            "digest": target.digest,
            "size": target.size,
        })),
    }))
}

/// What was said of the last layer, such as `commit -m` does.
fn comment(config: &Value) -> Value {
    let history = config.get("history").and_then(Value::as_array);
    let last = history.and_then(|steps| steps.last()?.get("comment"));
    last.cloned().unwrap_or_else(|| json!(""))
}

/// Names with tags, and the repositories with the target's digest.
fn names(image: &ResolvedImage) -> (Vec<String>, Vec<String>) {
    let digest = image
        .target
        .as_ref()
        .map(|target| target.digest.clone())
        .unwrap_or_default();
    let mut tags = Vec::new();
    let mut digests = Vec::new();
    for reference in image
        .names
        .iter()
        .filter_map(|name| name.parse::<Reference>().ok())
    {
        let repository = format!("{}@{digest}", reference.familiar_repository());
        if !digests.contains(&repository) {
            digests.push(repository);
        }
        if reference.tag().is_some() && reference.digest().is_none() {
            tags.push(reference.familiar());
        }
    }
    (tags, digests)
}

#[cfg(test)]
mod tests {
    use orlop_proto::types::Descriptor;

    use super::*;

    #[test]
    fn an_image_has_tags_digests_and_layers() {
        let image = ResolvedImage {
            names: vec![
                "docker.io/library/a:1".to_owned(),
                "docker.io/library/a:2".to_owned(),
            ],
            target: Some(Descriptor {
                digest: "sha256:x".to_owned(),
                ..Descriptor::default()
            }),
            config_json:
                r#"{"os":"linux","config":{"Env":["A=1"]},"rootfs":{"diff_ids":["sha256:l"]}}"#
                    .into(),
            ..ResolvedImage::default()
        };
        let shown = describe(&image, 5).unwrap();
        assert_eq!(shown["RepoTags"], json!(["a:1", "a:2"]));
        assert_eq!(shown["RepoDigests"], json!(["a@sha256:x"]));
        assert_eq!(shown["RootFS"]["Layers"][0], "sha256:l");
        assert_eq!(shown["Config"]["Env"][0], "A=1");
    }
}
