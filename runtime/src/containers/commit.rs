//! An image of a container as it is now.

use std::sync::Arc;

use jiff::Timestamp;
use orlop_proto::reference::Reference;

use super::pause::set_frozen;
use super::record::Record;
use super::state::Status;
use super::{Container, Containers};
use crate::clients::Resolved;
use crate::error::{Error, Result};
use crate::spec::to_image::{self, Asked, Base, Layer};

/// An author or a message; both end up in a document that every user of the image reads.
const TEXT_BYTES_MAX: usize = 64 * 1024;

impl Containers {
    /// Makes the image; answers its id. With `pause` the container stands still while its files are read:
    /// the caller must run this to its end, or it stays so.
    pub(crate) async fn commit(
        &self,
        container: &Arc<Container>,
        name: &str,
        asked: Asked,
        pause: bool,
    ) -> Result<String> {
        let name = normal_name(name)?;
        for text in [&asked.author, &asked.message] {
            if text.len() > TEXT_BYTES_MAX {
                let problem = format!("{} bytes: at most {TEXT_BYTES_MAX}", text.len());
                return Err(Error::invalid("author or message", problem));
            }
        }
        let record = container.record();
        if record.image_id.is_empty() {
            let problem = format!("{} was made of no image", record.title());
            return Err(Error::invalid("container", problem));
        }
        let store = &self.parts().store;
        let image = self.base(&record).await?;
        let base = Base {
            manifest: &image.manifest_json,
            config: &image.config,
        };
        // A mistake in what was asked for is told before anything is read.
        to_image::documents(&record, base, &no_layer(), &asked, Timestamp::now())?;
        let layer = self.layer(container, pause).await?;
        let made = to_image::documents(&record, base, &layer, &asked, Timestamp::now())?;
        let id = store.put_image(made, &name).await?;
        let details = [
            ("comment", asked.message),
            ("imageID", id.clone()),
            ("imageRef", name),
        ];
        self.tell(&record, "commit", &details);
        Ok(id)
    }

    /// The image of the container, whatever its name points at by now.
    async fn base(&self, record: &Record) -> Result<Resolved> {
        let store = &self.parts().store;
        if record.manifest.is_empty() {
            let platform = record.config.platform.clone();
            return store.resolve(&record.image_id, platform).await;
        }
        store.image(&record.manifest).await
    }

    async fn layer(&self, container: &Arc<Container>, pause: bool) -> Result<Layer> {
        if !pause {
            return self.parts().store.layer(&container.record().snapshot).await;
        }
        // Nobody else starts, stops or pauses it meanwhile.
        let _gate = container.gate.lock().await;
        let record = container.record();
        if record.state.status != Status::Running {
            return self.parts().store.layer(&record.snapshot).await;
        }
        let _nobody = container.freeze().await?;
        let layer = self.parts().store.layer(&record.snapshot).await;
        set_frozen(container, false).await?;
        layer
    }
}

/// A layer that adds nothing.
fn no_layer() -> Layer {
    Layer {
        media_type: String::new(),
        digest: String::new(),
        size: 0,
        diff_id: String::new(),
        empty: true,
    }
}

/// The normal form of a name, with a tag and without a digest; empty stays empty.
fn normal_name(name: &str) -> Result<String> {
    if name.is_empty() {
        return Ok(String::new());
    }
    let parsed = name.parse::<Reference>();
    let parsed = parsed.map_err(|error| Error::invalid("image name", error.to_string()))?;
    Ok(parsed.to_string())
}
