//! Starting a container: network, files, limits, shim; then its command is let go.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use oci_spec::runtime::Spec;
use orlop_proto::runtime as wire;
use orlop_shim::config::{self as shim_config, Away, Cgroup, RootMount, ShimConfig};
use orlop_shim::health::HealthCheck;
use orlop_shim::protocol::{Failure, Reply, Request, VERSION};
use tracing::{Instrument as _, info_span};

use super::policy;
use super::record::{MountKind, Record};
use super::shared::Shared;
use super::state::{Action, Status};
use super::{Container, Containers};
use crate::devices::{Disks, HostDevice};
use crate::error::{Error, Result, blocking, exit_code};
use crate::files::{self, Durability};
use crate::host::Host;
use crate::logs::LogSize;
use crate::network::{Attachment, Lookup, NetworkMode, NetworkRequest, PortRequest};
use crate::shim::{self, Connection, unexpected};
use crate::spec::namespaces::Joined;
use crate::spec::{self, Surroundings, health};
use crate::subids::IdRange;

/// Which of a container's streams somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Streams {
    /// To write.
    pub(crate) stdin: bool,
    /// To read.
    pub(crate) stdout: bool,
    /// To read.
    pub(crate) stderr: bool,
}

/// What a start holds until the command runs.
struct Launch {
    attachment: Attachment,
    cgroups: Vec<Cgroup>,
    ids: Option<IdRange>,
}

impl Containers {
    /// Starts a container that does not run. With `streams` somebody is attached before the command
    /// runs, so that no output is lost.
    pub(crate) async fn start(
        &self,
        container: &Arc<Container>,
        streams: Option<Streams>,
    ) -> Result<Option<Connection>> {
        let _gate = container.gate.lock().await;
        self.start_held(container, streams, 0).await
    }

    /// The same for a caller that has the container's gate.
    pub(super) async fn start_held(
        &self,
        container: &Arc<Container>,
        streams: Option<Streams>,
        restart_count: u32,
    ) -> Result<Option<Connection>> {
        drop(container.teardown.lock().await);
        if container.is_removed() {
            return Err(Error::BeingRemoved(container.record().title().to_owned()));
        }
        container.record().next(Action::Start, "start")?;
        let record = container.record();
        let launched = match self.mount_volumes(&record).await {
            Ok(()) => self.launch(container, streams, restart_count).await,
            Err(error) => Err(error),
        };
        let error = match launched {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        self.unmount_volumes(&record).await;
        self.failed_start(container, &error).await;
        Err(error)
    }

    #[tracing::instrument(name = "start", skip_all)]
    async fn launch(
        &self,
        container: &Arc<Container>,
        streams: Option<Streams>,
        restart_count: u32,
    ) -> Result<Option<Connection>> {
        let record = container.record();
        let root = self.root(container, &record).await?;
        let shared = self.shared(&record).await?;
        let attachment = self.attach_network(&record, shared.network()).await?;
        let written = self
            .write_files(container, root, &attachment, &shared, restart_count)
            .await;
        let launch = match written {
            Ok(cgroups) => Launch {
                attachment,
                cgroups,
                ids: shared.ids(),
            },
            Err(error) => {
                self.detach(&record.id, &attachment).await;
                self.tell_networks(&record, "disconnect", &attachment);
                return Err(error);
            }
        };
        self.tell_volumes(&record, "mount");
        let result = self.spawn(container, &launch, streams, restart_count).await;
        if result.is_err() {
            self.detach(&record.id, &launch.attachment).await;
            self.tell_networks(&record, "disconnect", &launch.attachment);
            self.tell_volumes(&record, "unmount");
            let (cgroups, groups) = (self.parts().cgroups.clone(), launch.cgroups);
            blocking(move || {
                cgroups.remove(&groups);
                Ok(())
            })
            .await?;
        }
        result
    }

    /// How the root is mounted: as the store said when the container was made, or, after this service
    /// or the host was started again, as it says now.
    async fn root(&self, container: &Container, record: &Record) -> Result<RootMount> {
        if container.mounted.swap(false, Ordering::AcqRel) {
            return Ok(record.root.clone());
        }
        self.parts().store.mount(&record.snapshot).await
    }

    #[tracing::instrument(name = "network", skip_all)]
    async fn attach_network(
        &self,
        record: &Record,
        prepared: Option<PathBuf>,
    ) -> Result<Attachment> {
        let mut request = self.network_request(record)?;
        request.prepared = prepared;
        let attachment = self.parts().network.attach(&record.id, &request).await?;
        self.tell_networks(record, "connect", &attachment);
        Ok(attachment)
    }

    /// Gives a container's place in the network back. What cannot be given back now is found when the
    /// service starts again.
    pub(super) async fn detach(&self, id: &str, attachment: &Attachment) {
        if let Err(error) = self.parts().network.detach(id, attachment).await {
            let error = orlop_proto::error::chain(&error);
            tracing::warn!(id, error, "cannot take a container from its network");
        }
    }

    /// Writes what the shim reads, and makes the control groups.
    #[tracing::instrument(name = "spec", skip_all)]
    async fn write_files(
        &self,
        container: &Arc<Container>,
        root: RootMount,
        attachment: &Attachment,
        shared: &Shared,
        restart_count: u32,
    ) -> Result<Vec<Cgroup>> {
        let (this, container) = (self.clone(), Arc::clone(container));
        let (joined, shm) = (shared.joined(), shared.shm());
        let attachment = attachment.clone();
        blocking(move || {
            let record = container.record();
            let etc = this.etc_files(&container, &record, &attachment)?;
            let spec = this.spec(&record, &attachment, etc, joined)?;
            let limits = spec
                .linux()
                .as_ref()
                .and_then(|linux| linux.resources().clone());
            let cgroups = this.parts().cgroups.create(
                &record.id,
                &record.config.cgroup_parent,
                &limits.unwrap_or_default(),
            )?;
            let written = this.write_spec(&container, &spec, root, &cgroups, shm, restart_count);
            if written.is_err() {
                this.parts().cgroups.remove(&cgroups);
            }
            written.map(|()| cgroups)
        })
        .await
    }

    fn spec(
        &self,
        record: &Record,
        attachment: &Attachment,
        etc: Vec<(PathBuf, &'static str)>,
        joined: Joined,
    ) -> Result<Spec> {
        spec::build(
            record,
            &Surroundings {
                netns: attachment.netns.clone(),
                hostname: match self.neighbour(record)? {
                    Some(neighbour) => neighbour.record().hostname(),
                    None => record.hostname(),
                },
                files: etc,
                cgroup: self
                    .parts()
                    .cgroups
                    .path_of(&record.id, &record.config.cgroup_parent),
                no_new_privileges: self.parts().no_new_privileges,
                joined,
                devices: devices(&record.config)?,
                disks: disks(&record.config)?,
                host: Host::this().clone(),
            },
        )
    }

    fn write_spec(
        &self,
        container: &Container,
        spec: &Spec,
        root: RootMount,
        cgroups: &[Cgroup],
        shm_from: Option<PathBuf>,
        restart_count: u32,
    ) -> Result<()> {
        let record = &*container.record();
        let log = LogSize::of(&record.config, self.parts().log_bytes_max);
        let shim = ShimConfig {
            version: VERSION,
            id: record.id.clone(),
            socket: container.socket.clone(),
            root,
            open_stdin: record.config.open_stdin,
            cgroups: cgroups.to_vec(),
            log_bytes_max: log.bytes_max,
            log_files: log.files,
            copy_up: copy_up(record),
            window: record.process.window,
            user: record.process.user.clone(),
            groups: record.config.groups.clone(),
            create_cwd: true,
            volatile_exit: record.durability() == Durability::Process,
            init: record.config.init,
            shm_from,
            health: self.health_check(record)?,
            away: away(record, restart_count),
            runtime: self.parts().runtimes.find(&record.config.runtime)?,
        };
        for file in [shim_config::EXIT_FILE, shim_config::HEALTH_FILE] {
            let left = container.directory.join(file);
            files::remove_file(&left).map_err(Error::file("remove", left))?;
        }
        let json = |path: &PathBuf, bytes: serde_json::Result<Vec<u8>>| {
            bytes.map_err(|error| Error::Json(path.clone(), error))
        };
        let path = container.directory.join(shim_config::SPEC_FILE);
        let bytes = json(&path, serde_json::to_vec(spec))?;
        std::fs::write(&path, bytes).map_err(Error::file("write", path))?;
        let path = container.directory.join(shim_config::SHIM_FILE);
        let bytes = json(&path, serde_json::to_vec(&shim))?;
        std::fs::write(&path, bytes).map_err(Error::file("write", path))
    }

    /// The check is confined as the container itself is.
    fn health_check(&self, record: &Record) -> Result<Option<HealthCheck>> {
        let Some((check, process)) = record.config.health.as_ref().zip(health::process(record))
        else {
            return Ok(None);
        };
        let no_new_privileges = self.parts().no_new_privileges;
        let host = Host::this();
        let process = spec::exec_process(record, &process, false, no_new_privileges, host)?;
        Ok(Some(health::for_shim(check, process)))
    }

    /// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`; what the container wrote into them stays
    /// until its next start.
    fn etc_files(
        &self,
        container: &Container,
        record: &Record,
        attachment: &Attachment,
    ) -> Result<Vec<(PathBuf, &'static str)>> {
        let targets = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
        if let Some(neighbour) = self.neighbour(record)? {
            let theirs = |target: &'static str| (neighbour.etc_file(target), target);
            return Ok(targets.map(theirs).into());
        }
        let texts = self.etc_texts(record, attachment)?;
        let mut written = Vec::new();
        for (target, text) in targets.into_iter().zip(texts) {
            let path = container.etc_file(target);
            write_readable(&path, &text).map_err(Error::file("write", &path))?;
            written.push((path, target));
        }
        Ok(written)
    }

    /// What `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` are to say.
    pub(super) fn etc_texts(
        &self,
        record: &Record,
        attachment: &Attachment,
    ) -> Result<[String; 3]> {
        let network = &self.parts().network;
        let name = record.hostname();
        let extra = &record.config.extra_hosts;
        let hosts = network.hosts(&record.full_name(), &attachment.endpoints, extra)?;
        Ok([
            hosts + &self.link_lines(record),
            format!("{name}\n"),
            network.resolv_conf(attachment, &Lookup::try_from(&record.config)?)?,
        ])
    }

    /// The container whose network namespace this one shares.
    fn neighbour(&self, record: &Record) -> Result<Option<Arc<Container>>> {
        match record.network_mode() {
            NetworkMode::Container(id) => self.find(&id).map(Some),
            _ => Ok(None),
        }
    }

    fn network_request(&self, record: &Record) -> Result<NetworkRequest> {
        let mode = record.network_mode();
        let ports = match mode {
            NetworkMode::Bridge(_) => record.config.ports.as_slice(),
            _ => &[],
        };
        let ports: Result<Vec<PortRequest>, _> = ports.iter().map(PortRequest::try_from).collect();
        let servers = record.config.dns.iter();
        Ok(NetworkRequest {
            kind: mode.kind(),
            ports: ports?,
            memberships: record.memberships.clone(),
            names: record.names(),
            servers: servers.filter_map(|text| text.parse().ok()).collect(),
            neighbour: self
                .neighbour(record)?
                .map(|c| c.id.clone())
                .unwrap_or_default(),
            prepared: None,
        })
    }

    /// Spawns the shim, saves that the container runs while the shim works, attaches, and lets the
    /// command go.
    async fn spawn(
        &self,
        container: &Arc<Container>,
        launch: &Launch,
        streams: Option<Streams>,
        restart_count: u32,
    ) -> Result<Option<Connection>> {
        let failed = container.shim_failed("starting");
        let _writing = container.writing.lock().await;
        let mut connection = {
            let _span = info_span!("spawn").entered();
            shim::spawn(&self.parts().shim, &container.directory).map_err(&failed)?
        };
        let mut record = running(&container.record(), launch, restart_count)?;
        let saving = Arc::new(record.clone());
        let (saved, created) = tokio::join!(
            container.save(&saving).instrument(info_span!("save")),
            connection.reader.reply().instrument(info_span!("build"))
        );
        saved?;
        match created.map_err(&failed)? {
            Reply::Created { pid } => record.state.pid = pid,
            reply => return Err(start_failed(&record, reply)),
        }
        let attached = match streams {
            Some(streams) => {
                let joined = self.join(container, streams);
                Some(joined.instrument(info_span!("join")).await?)
            }
            None => None,
        };
        let sent = connection.writer.request(&Request::Start).await;
        sent.map_err(&failed)?;
        let released = connection.reader.reply().instrument(info_span!("exec"));
        match released.await.map_err(&failed)? {
            Reply::Started { pid } => record.state.pid = pid,
            reply => return Err(start_failed(&record, reply)),
        }
        self.tell(&record, "start", &[]);
        container.publish(&Arc::new(record));
        self.monitor(container, connection);
        self.renew_links_to(container);
        Ok(attached)
    }

    /// Connects to the container's streams.
    pub(crate) async fn join(&self, container: &Container, streams: Streams) -> Result<Connection> {
        let failed = container.shim_failed("attaching");
        let mut connection = shim::connect(&container.socket).map_err(&failed)?;
        let request = Request::Attach {
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
        };
        connection.writer.request(&request).await.map_err(&failed)?;
        match connection.reader.reply().await.map_err(&failed)? {
            Reply::Attached { .. } => Ok(connection),
            reply => Err(failed(unexpected(&reply))),
        }
    }

    /// Keeps why a start failed. A container that was to be removed at its exit goes now.
    async fn failed_start(&self, container: &Arc<Container>, error: &Error) {
        let message = orlop_proto::error::chain(error);
        let code = match error {
            Error::Start { failure, .. } => exit_code(*failure),
            _ => exit_code(Failure::System),
        };
        let kept = container.update(|record| {
            let status = super::state::next(record.state.status, Action::FailStart);
            record.state.status = status.unwrap_or(record.state.status);
            record.state.pid = 0;
            record.state.exit_code = code;
            record.state.error = message;
            record.attachment = None;
            record.cgroups.clear();
            record.ids = None;
        });
        self.parts().subids.release(&container.id);
        match kept.await {
            Ok(record) if record.config.auto_remove && !record.hidden => {
                self.remove_held(container, true).await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, id = container.id, "cannot keep why a start failed");
            }
        }
    }
}

/// The record of a container whose command is about to run.
fn running(record: &Record, launch: &Launch, restart_count: u32) -> Result<Record> {
    let mut record = record.clone();
    record.state.status = record.next(Action::Start, "start")?;
    debug_assert_eq!(record.state.status, Status::Running);
    record.state.pid = 0;
    record.state.exit_code = 0;
    record.state.oom_killed = false;
    record.state.error.clear();
    record.state.started = Some(Timestamp::now());
    record.state.finished = None;
    let restarts = policy::restarts_at(&record.state, restart_count);
    (record.state.restart_count, record.state.short_runs) = (restarts.count, restarts.short_runs);
    record.state.restarting = false;
    let checked = record.config.health.is_some();
    record.state.health = checked.then(Arc::default);
    record.state.stopped = false;
    record.attachment = Some(launch.attachment.clone());
    record.cgroups = launch.cgroups.clone();
    record.ids = launch.ids;
    Ok(record)
}

/// What the shim of a container that is about to run decides by itself.
fn away(record: &Record, restart_count: u32) -> Away {
    let restarts = policy::restarts_at(&record.state, restart_count);
    // Whoever stopped it wants it to run now.
    let mut record = record.clone();
    record.state.stopped = false;
    policy::away(&record, restarts)
}

fn start_failed(record: &Record, reply: Reply) -> Error {
    match reply {
        Reply::Failed { failure, message } => Error::Start {
            name: record.title().to_owned(),
            failure,
            message,
        },
        reply => Error::Shim {
            id: record.id.clone(),
            doing: "starting",
            source: unexpected(&reply),
        },
    }
}

/// Containers read these files as any user; their directory is closed to others on the host.
fn write_readable(path: &std::path::Path, content: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

/// Volumes are filled from the image before their container's first start only.
fn copy_up(record: &Record) -> Vec<(PathBuf, PathBuf)> {
    if record.state.started.is_some() {
        return Vec::new();
    }
    record
        .mounts
        .iter()
        .filter(|mount| matches!(mount.kind, MountKind::Volume { copy: true, .. }))
        .map(|mount| (mount.source.clone(), PathBuf::from(&mount.target)))
        .collect()
}

/// Disks of the host, as it has them now.
fn disks(config: &wire::CreateRequest) -> Result<Disks> {
    let limits = config.resources.as_ref();
    limits.map_or(Ok(Disks::new()), crate::devices::disks)
}

/// Devices of the host, as it has them now: all for a privileged container, else those asked for.
fn devices(config: &wire::CreateRequest) -> Result<Vec<HostDevice>> {
    let privileged = config
        .security
        .as_ref()
        .is_some_and(|security| security.privileged);
    let mut found = match privileged {
        true => crate::devices::all()?,
        false => Vec::new(),
    };
    for device in &config.devices {
        found.extend(crate::devices::requested(device)?);
    }
    Ok(found)
}
