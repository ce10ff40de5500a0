//! Making a container: everything is judged before anything is made, and what was made goes again when
//! a later step fails.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use orlop_proto::runtime as wire;
use orlop_proto::runtime::create_request::Root;
use orlop_shim::config::RootMount;

use super::record::{Below, Mount, MountKind, Record, State};
use super::{Container, Containers, names};
use crate::error::{Error, Result, blocking};
use crate::files::{self, Durability};
use crate::host::Host;
use crate::network::{Membership, Publishing};
use crate::retry;
use crate::spec::health::{self, ImageHealth};
use crate::spec::{from_image, resources, ulimits, validate};
use crate::volumes::Volumes;
use crate::volumes::driver::Options;

const DIRECTORY_MODE: u32 = 0o700;
/// Seconds that Stop waits: Docker's.
const STOP_TIMEOUT: u32 = 10;
/// Names that are tried before giving up.
const NAME_ATTEMPTS: usize = 100;

/// A container that was made.
#[derive(Debug)]
pub(crate) struct Created {
    /// The container.
    pub(crate) container: Arc<Container>,
    /// For the person who asked.
    pub(crate) warnings: Vec<String>,
    /// How its ports will be published; absent: they will not be.
    pub(crate) publishing: Option<Publishing>,
}

/// Everything known of a container before anything of it is made.
struct Plan {
    request: wire::CreateRequest,
    merged: from_image::Merged,
    memberships: Vec<Membership>,
    image: String,
    image_id: String,
    /// Manifest to unpack; empty on a snapshot of the caller's.
    manifest: String,
}

impl Containers {
    /// Makes a container; nothing runs yet. A hidden one is in no list and has no name.
    #[tracing::instrument(skip_all, fields(name = request.name))]
    pub(crate) async fn create(
        &self,
        request: wire::CreateRequest,
        hidden: bool,
    ) -> Result<Created> {
        let mut request = request;
        self.choose_runtime(&mut request, hidden).await?;
        if request.userns.is_empty() {
            request.userns.clone_from(&self.parts().userns);
        }
        validate::request(&request)?;
        let memberships = self.memberships(&mut request)?;
        if !request.name.is_empty() {
            names::check("container name", &request.name, 2)?;
        }
        let plan = self.plan(request, memberships).await?;
        let id = names::new_id()?;
        let name = if hidden {
            String::new()
        } else {
            self.reserve_name(&plan.request.name, &id)?
        };
        let warnings = self.warnings(&plan);
        let publishing = self.publishing(&plan.memberships);
        match self.make(&id, name, hidden, plan).await {
            Ok(container) => {
                self.tell(&container.record(), "create", &[]);
                Ok(Created {
                    container,
                    warnings,
                    publishing,
                })
            }
            Err(error) => {
                self.map_mut().names.retain(|_, owner| *owner != id);
                Err(error)
            }
        }
    }

    /// The default is for containers of people: a build's steps are always made by our own code.
    async fn choose_runtime(&self, request: &mut wire::CreateRequest, hidden: bool) -> Result<()> {
        if hidden && request.runtime.is_empty() {
            return Ok(());
        }
        let (this, asked) = (self.clone(), std::mem::take(&mut request.runtime));
        request.runtime = blocking(move || this.parts().runtimes.choose(&asked)).await?;
        Ok(())
    }

    fn warnings(&self, plan: &Plan) -> Vec<String> {
        let mut warnings = plan.merged.warnings.clone();
        if !plan.request.ports.is_empty() && self.publishing(&plan.memberships).is_none() {
            warnings.push(format!(
                "published ports are discarded with --network {}",
                plan.request.network
            ));
        }
        warnings.extend(unmet(&plan.request, Host::this()));
        let limits = plan.request.resources.clone().unwrap_or_default();
        let unified = self.parts().cgroups.is_unified();
        warnings.extend(resources::warnings(&limits, unified).map(str::to_owned));
        warnings
    }

    #[tracing::instrument(name = "resolve", skip_all)]
    async fn plan(
        &self,
        mut request: wire::CreateRequest,
        memberships: Vec<Membership>,
    ) -> Result<Plan> {
        let (merged, health, image, image_id, manifest) = match request.root.clone() {
            Some(Root::Image(image)) if !image.is_empty() => {
                let store = &self.parts().store;
                let resolved = store.resolve(&image, request.platform.clone()).await?;
                let config = from_image::parse(&image, &resolved.config)?;
                let merged = from_image::merge(&config, &request)?;
                let health = health::parse(&image, &resolved.config)?;
                (merged, health, image, resolved.image_id, resolved.manifest)
            }
            Some(Root::Snapshot(snapshot)) if !snapshot.is_empty() => {
                let merged = from_image::bare(&request)?;
                let health = ImageHealth::default();
                (merged, health, String::new(), String::new(), String::new())
            }
            _ => return Err(Error::invalid("root", "expected an image or a snapshot")),
        };
        request.labels = merged.labels.clone();
        request.health = health::merge(&health, &request)?;
        self.fix_shared(&mut request)?;
        if request.publish_all {
            publish_exposed(&mut request, &merged.exposed);
        }
        Ok(Plan {
            request,
            merged,
            memberships,
            image,
            image_id,
            manifest,
        })
    }

    /// Takes the name for the id, or makes one up.
    fn reserve_name(&self, asked: &str, id: &str) -> Result<String> {
        let mut map = self.map_mut();
        if !asked.is_empty() {
            map.take_name(asked, id)?;
            return Ok(asked.to_owned());
        }
        for attempt in 0..NAME_ATTEMPTS {
            let name = names::made_up(attempt)?;
            if !map.names.contains_key(&name) {
                map.names.insert(name.clone(), id.to_owned());
                return Ok(name);
            }
        }
        Err(Error::invalid(
            "container name",
            "no free one was found: give one",
        ))
    }

    async fn make(
        &self,
        id: &str,
        name: String,
        hidden: bool,
        plan: Plan,
    ) -> Result<Arc<Container>> {
        let directory = self.parts().directory.join(id);
        let made = directory.clone();
        blocking(move || {
            files::make_directory(&made, DIRECTORY_MODE).map_err(Error::file("make", made))
        })
        .await?;
        let result = self.make_in(id, name, hidden, plan).await;
        if result.is_err() {
            self.discard(id, &directory).await;
        }
        result
    }

    /// Removes what a failed creation left, later if it has to be.
    pub(super) async fn discard(&self, id: &str, directory: &std::path::Path) {
        let Err(error) = self.discard_now(id, directory).await else {
            return;
        };
        let error = orlop_proto::error::chain(&error);
        tracing::warn!(error, id, "cannot remove a container that was not made");
        let (this, directory) = (self.clone(), directory.to_owned());
        let known = id.to_owned();
        retry::later("remove a container that was not made", id, move || {
            let (this, id, directory) = (this.clone(), known.clone(), directory.clone());
            async move { this.discard_now(&id, &directory).await }
        });
    }

    /// The directory goes last: while it is there, the next start of the service tries again.
    async fn discard_now(&self, id: &str, directory: &std::path::Path) -> Result<()> {
        self.parts().store.remove(id).await?;
        let directory = directory.to_owned();
        blocking(move || files::remove_tree(&directory).map_err(Error::file("remove", directory)))
            .await
    }

    #[tracing::instrument(name = "prepare", skip_all)]
    async fn make_in(
        &self,
        id: &str,
        name: String,
        hidden: bool,
        plan: Plan,
    ) -> Result<Arc<Container>> {
        let (snapshot, owns_snapshot, root) = self.snapshot(id, &plan).await?;
        let guard = match plan.needs_volumes() {
            true => Some(self.0.volumes.lock().await),
            false => None,
        };
        let (volumes, request) = (self.volumes().clone(), plan.request.clone());
        let image_volumes = plan.merged.volumes.clone();
        let inherited = self.inherited(&request)?;
        let (mounts, anonymous) =
            blocking(move || mounts(&volumes, &request, inherited, &image_volumes)).await?;
        let made =
            self.keep(plan.record(id, name, hidden, mounts, (snapshot, owns_snapshot, root)));
        let made = made.await;
        if made.is_err() {
            let volumes = self.volumes().clone();
            blocking(move || discard_volumes(&volumes, &anonymous)).await?;
        }
        drop(guard);
        made
    }

    /// What comes from other containers; of two at one place the later one.
    fn inherited(&self, request: &wire::CreateRequest) -> Result<Vec<Mount>> {
        let mut inherited: Vec<Mount> = Vec::new();
        for text in &request.volumes_from {
            let (container, read_only) = validate::volumes_from(text)?;
            let record = self.find(container)?.record();
            let lasting = |mount: &&Mount| mount.kind != MountKind::Tmpfs;
            for mount in record.mounts.iter().filter(lasting) {
                inherited.retain(|other| other.target != mount.target);
                inherited.push(lent(mount, read_only));
            }
        }
        Ok(inherited)
    }

    /// Writes a record and puts its container into the map.
    async fn keep(&self, record: Record) -> Result<Arc<Container>> {
        let container = self.container(record, true);
        let record = container.record();
        let directory = self.parts().directory.clone();
        let own = container.directory.clone();
        blocking(move || {
            record.save(&own)?;
            if record.durability() == Durability::Power {
                files::sync_directory(&directory).map_err(Error::file("sync", directory))?;
            }
            Ok(())
        })
        .await?;
        self.parts().index.put(&container.record());
        self.insert(&container);
        Ok(container)
    }

    async fn snapshot(&self, id: &str, plan: &Plan) -> Result<(String, bool, RootMount)> {
        let store = &self.parts().store;
        match &plan.request.root {
            Some(Root::Snapshot(key)) => Ok((key.clone(), false, store.mount(key).await?)),
            _ => Ok((
                id.to_owned(),
                true,
                store.prepare(&plan.manifest, id).await?,
            )),
        }
    }
}

impl Plan {
    fn needs_volumes(&self) -> bool {
        let volume = |mount: &wire::Mount| mount.kind() == wire::MountKind::Volume;
        let from_others = !self.request.volumes_from.is_empty();
        from_others || !self.merged.volumes.is_empty() || self.request.mounts.iter().any(volume)
    }

    fn record(
        self,
        id: &str,
        name: String,
        hidden: bool,
        mounts: Vec<Mount>,
        (snapshot, owns_snapshot, root): (String, bool, RootMount),
    ) -> Record {
        Record {
            version: Record::VERSION,
            id: id.to_owned(),
            name,
            hidden,
            image: self.image,
            image_id: self.image_id,
            manifest: self.manifest,
            created: Timestamp::now(),
            process: self.merged.process,
            mounts,
            exposed: self.merged.exposed,
            snapshot,
            owns_snapshot,
            root,
            stop_signal: self.merged.stop_signal,
            stop_timeout: self.request.stop_timeout.unwrap_or(STOP_TIMEOUT),
            config: self.request,
            state: State::default(),
            memberships: self.memberships,
            attachment: None,
            cgroups: Vec::new(),
            ids: None,
        }
    }
}

/// What this host cannot give in full.
fn unmet(request: &wire::CreateRequest, host: &Host) -> Vec<String> {
    let mut unmet = ulimits::warnings(&request.ulimits, host);
    let least = host.oom_score_adj;
    let low = request.oom_score_adj.is_some_and(|score| score < least);
    if low && !host.may_raise_limits() {
        unmet.push(format!(
            "the OOM score cannot be less than {least} on this host: that is what it will be"
        ));
    }
    unmet
}

fn publish_exposed(request: &mut wire::CreateRequest, exposed: &[String]) {
    for port in exposed {
        let Some((number, protocol)) = port.split_once('/') else {
            continue;
        };
        let number: u32 = number.parse().unwrap_or_default();
        let asked = request.ports.iter().any(|asked| {
            let own = if asked.protocol.is_empty() {
                "tcp"
            } else {
                &asked.protocol
            };
            asked.container_port == number && own == protocol
        });
        if number > 0 && !asked {
            request.ports.push(wire::PortBinding {
                protocol: protocol.to_owned(),
                container_port: number,
                ..wire::PortBinding::default()
            });
        }
    }
}

/// A mount of another container's. It was filled there.
fn lent(mount: &Mount, read_only: bool) -> Mount {
    let mut mount = mount.clone();
    mount.read_only |= read_only;
    if let MountKind::Volume { copy, .. } = &mut mount.kind {
        *copy = false;
    }
    mount
}

/// The mounts that were asked for, then those of other containers, then the image's volumes, each where
/// there is nothing yet; and the volumes that were made for this container alone. On error none of these
/// is left.
fn mounts(
    volumes: &Volumes,
    request: &wire::CreateRequest,
    mut inherited: Vec<Mount>,
    image_volumes: &[String],
) -> Result<(Vec<Mount>, Vec<String>)> {
    let mut mounts = Vec::new();
    let image = image_volumes.iter().map(|target| wire::Mount {
        kind: wire::MountKind::Volume.into(),
        target: target.clone(),
        ..wire::Mount::default()
    });
    let target = |mount: &wire::Mount| validate::normalize(&mount.target);
    let mut taken: HashSet<String> = request.mounts.iter().map(target).collect();
    inherited.retain(|mount| taken.insert(mount.target.clone()));
    let image = image.filter(|mount| taken.insert(mount.target.clone()));
    for asked in request.mounts.iter().cloned().chain(image) {
        match mount(volumes, &asked) {
            Ok(mount) => mounts.push(mount),
            Err(error) => {
                discard_volumes(volumes, &anonymous(&mounts))?;
                return Err(error);
            }
        }
    }
    let anonymous = anonymous(&mounts);
    mounts.extend(inherited);
    Ok((mounts, anonymous))
}

/// The names of the volumes that were made for this container alone.
fn anonymous(mounts: &[Mount]) -> Vec<String> {
    let name = |mount: &Mount| match &mount.kind {
        MountKind::Volume {
            name,
            anonymous: true,
            ..
        } => Some(name.clone()),
        _ => None,
    };
    mounts.iter().filter_map(name).collect()
}

fn discard_volumes(volumes: &Volumes, names: &[String]) -> Result<()> {
    names.iter().try_for_each(|name| volumes.remove(name))
}

fn mount(volumes: &Volumes, asked: &wire::Mount) -> Result<Mount> {
    let mut read_only = asked.read_only;
    let mut below = match asked.below() {
        wire::BelowBind::Unspecified => Below::Alike,
        wire::BelowBind::LeftOut => Below::LeftOut,
        wire::BelowBind::Writable => Below::Writable,
    };
    let (kind, source) = match asked.kind() {
        wire::MountKind::Bind => (MountKind::Bind, bind_source(asked)?),
        wire::MountKind::Tmpfs | wire::MountKind::Unspecified => (MountKind::Tmpfs, PathBuf::new()),
        wire::MountKind::Volume => {
            let anonymous = asked.source.is_empty();
            let options = Options::parse(asked.options.clone())?;
            let volume = volumes.create(&asked.source, asked.labels.clone(), options, anonymous)?;
            let source = volumes.data(&volume)?;
            read_only |= volume.options.is_read_only();
            if !volume.options.is_deep() {
                below = Below::LeftOut;
            }
            let kind = MountKind::Volume {
                name: volume.name,
                anonymous,
                copy: !asked.no_copy && asked.subpath.is_empty(),
            };
            (kind, source)
        }
    };
    Ok(Mount {
        kind,
        source,
        target: validate::normalize(&asked.target),
        read_only,
        propagation: asked.propagation.clone(),
        size: asked.size,
        mode: asked.mode,
        below,
        subpath: asked.subpath.clone(),
        exec: asked.exec,
    })
}

fn bind_source(asked: &wire::Mount) -> Result<PathBuf> {
    let source = PathBuf::from(&asked.source);
    match std::fs::metadata(&source) {
        Ok(_) => Ok(source),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !asked.create_source {
                return Err(Error::NoBindSource(source));
            }
            files::make_directory(&source, 0o755).map_err(Error::file("make", &source))?;
            Ok(source)
        }
        Err(error) => Err(Error::file("use the bind mount source", source)(error)),
    }
}
