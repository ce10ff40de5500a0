//! Giving a container another name.

use std::sync::Arc;

use super::{Container, Containers, names};
use crate::error::{Error, Result};

impl Containers {
    /// Gives a container another name. The new one is taken before the record changes, and the old one is
    /// free once it has.
    pub(crate) async fn rename(&self, container: &Arc<Container>, name: String) -> Result<()> {
        names::check("container name", &name, 2)?;
        let _renaming = self.0.renaming.lock().await;
        let old = container.record().name.clone();
        if old == name {
            let problem = format!("{name:?} is the container's name already");
            return Err(Error::invalid("container name", problem));
        }
        self.claim(&name, container)?;
        let renamed = container.update(|record| {
            record.name.clone_from(&name);
            if let Some(attachment) = &mut record.attachment {
                attachment.rename(&old, &name);
            }
        });
        let renamed = renamed.await;
        let unused = if renamed.is_ok() { &old } else { &name };
        self.release_name(unused, &container.id);
        self.parts().index.put(&*renamed?);
        self.network().rename(&container.id, &old, &name);
        if container.is_removed() {
            return Err(Error::NoContainer(container.id.clone()));
        }
        self.tell(&container.record(), "rename", &[("oldName", old)]);
        Ok(())
    }

    /// Takes a name for a container that is in the map and in lists.
    fn claim(&self, name: &str, container: &Container) -> Result<()> {
        let mut map = self.map_mut();
        if container.record().hidden || !map.by_id.contains_key(&container.id) {
            return Err(Error::NoContainer(container.id.clone()));
        }
        map.take_name(name, &container.id)
    }

    fn release_name(&self, name: &str, id: &str) {
        let mut map = self.map_mut();
        if map.names.get(name).is_some_and(|owner| owner == id) {
            map.names.remove(name);
        }
    }
}
