//! Records as the contract says them.

use jiff::Timestamp;
use orlop_proto::runtime as wire;
use orlop_shim::config::LOG_FILE;
use orlop_shim::health::Health;

use crate::clients::{Change, ChangeKind};
use crate::containers::Container;
use crate::containers::record::{Below, Mount, MountKind, Record, State};
use crate::containers::size::Size;
use crate::containers::state::Status;
use crate::error::Error;
use crate::logs::{Line, Stream};
use crate::network::{Attachment, EndpointInfo, NetworkInfo};
use crate::volumes::{Volume, Volumes};

pub(super) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

/// `None` for a time that is none.
pub(super) fn time(timestamp: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(timestamp.seconds, timestamp.nanos).ok()
}

pub(super) fn volume(volumes: &Volumes, volume: Volume) -> wire::Volume {
    wire::Volume {
        path: volumes.place(&volume).to_string_lossy().into_owned(),
        name: volume.name,
        created: Some(timestamp(volume.created)),
        labels: volume.labels,
        anonymous: volume.anonymous,
        bytes: None,
        containers: 0,
        options: volume
            .options
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
    }
}

/// A network as lists and inspections show it.
pub(super) fn network(info: NetworkInfo) -> wire::Network {
    let member =
        |(container, name, endpoint): (String, String, EndpointInfo)| wire::NetworkMember {
            container,
            name,
            address: endpoint.address.to_string(),
            prefix_length: endpoint.prefix.into(),
            mac: endpoint.mac,
            ipv6_address: endpoint
                .ipv6
                .map(|ipv6| ipv6.address.to_string())
                .unwrap_or_default(),
            ipv6_prefix_length: endpoint.ipv6.map_or(0, |ipv6| ipv6.prefix.into()),
        };
    wire::Network {
        name: info.name,
        driver: info.driver.to_owned(),
        subnet: info.subnet,
        gateway: info.gateway,
        interface: info.interface,
        labels: info.labels.into_iter().collect(),
        id: info.id,
        created: info.created.map(timestamp),
        ip_range: info.ip_range,
        internal: info.internal,
        options: info.options.into_iter().collect(),
        members: info.members.into_iter().map(member).collect(),
        ipv6_subnet: info.ipv6_subnet,
        ipv6_gateway: info.ipv6_gateway,
        ipv6_range: info.ipv6_range,
        aux_addresses: info
            .aux_addresses
            .into_iter()
            .map(|(name, address)| (name, address.to_string()))
            .collect(),
        attachable: info.attachable,
    }
}

/// `label` filters: a key, and the value if one is asked for.
pub(super) fn labels(filters: Vec<wire::Filter>) -> Result<Vec<(String, Option<String>)>, Error> {
    let label = |filter: wire::Filter| match filter.key.as_str() {
        "label" => Ok(match filter.value.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (filter.value, None),
        }),
        _ => Err(Error::invalid("filter", "expected label")),
    };
    filters.into_iter().map(label).collect()
}

/// A container as lists and inspections show it.
pub(super) fn container(container: &Container) -> wire::Container {
    let record = container.record();
    let log = container.directory.join(LOG_FILE);
    from_record(&record, log.to_string_lossy().into_owned())
}

pub(super) fn from_record(record: &Record, log_path: String) -> wire::Container {
    let attachment = record.attachment.as_ref();
    wire::Container {
        id: record.id.clone(),
        name: record.name.clone(),
        config: Some(record.config.clone()),
        image: record.image.clone(),
        image_id: record.image_id.clone(),
        created: Some(timestamp(record.created)),
        state: Some(state(&record.state)),
        process: Some(process(record)),
        endpoints: attachment.map_or_else(|| places(record), Attachment::endpoints),
        ports: attachment
            .map(|a| a.ports.iter().map(Into::into).collect())
            .unwrap_or_default(),
        mounts: record.mounts.iter().map(mount).collect(),
        log_path: match record.config.log_driver.as_str() {
            "none" => String::new(),
            _ => log_path,
        },
        snapshot: record.snapshot.clone(),
        exposed: record.exposed.clone(),
        size: None,
    }
}

pub(super) fn size(size: Size) -> wire::ContainerSize {
    wire::ContainerSize {
        writable: size.writable,
        total: size.total,
    }
}

/// The networks of a container that does not run.
fn places(record: &Record) -> Vec<wire::Endpoint> {
    let memberships = record.memberships.iter();
    memberships
        .map(|membership| wire::Endpoint {
            network: membership.network.clone(),
            aliases: membership.aliases.clone(),
            ..wire::Endpoint::default()
        })
        .collect()
}

fn state(state: &State) -> wire::ContainerState {
    let status = match state.status {
        _ if state.restarting => wire::ContainerStatus::Restarting,
        Status::Created => wire::ContainerStatus::Created,
        Status::Running => wire::ContainerStatus::Running,
        Status::Paused => wire::ContainerStatus::Paused,
        Status::Exited => wire::ContainerStatus::Exited,
        Status::Dead => wire::ContainerStatus::Dead,
    };
    wire::ContainerState {
        status: status.into(),
        pid: state.pid.into(),
        exit_code: state.exit_code,
        oom_killed: state.oom_killed,
        started: state.started.map(timestamp),
        finished: state.finished.map(timestamp),
        error: state.error.clone(),
        restart_count: state.restart_count,
        health: state.health.as_deref().map(health),
    }
}

fn health(health: &Health) -> wire::Health {
    let results = health.results.iter().map(|result| wire::HealthResult {
        started: nanoseconds(result.started_at),
        ended: nanoseconds(result.ended_at),
        exit_code: result.exit_code,
        output: result.output.clone(),
    });
    wire::Health {
        status: health.status.as_str().to_owned(),
        failing_streak: health.failing_streak,
        results: results.collect(),
    }
}

fn nanoseconds(time: i64) -> Option<prost_types::Timestamp> {
    let time = Timestamp::from_nanosecond(time.into()).ok();
    time.map(timestamp)
}

fn process(record: &Record) -> wire::Process {
    let process = &record.process;
    wire::Process {
        args: process.args.clone(),
        env: process.env.clone(),
        cwd: process.cwd.clone(),
        user: process.user.clone(),
        tty: process.tty,
        size: process.window.map(|(rows, columns)| wire::WindowSize {
            rows: rows.into(),
            columns: columns.into(),
        }),
    }
}

fn mount(mount: &Mount) -> wire::Mount {
    let (kind, source) = match &mount.kind {
        MountKind::Bind => (
            wire::MountKind::Bind,
            mount.source.to_string_lossy().into_owned(),
        ),
        MountKind::Volume { name, .. } => (wire::MountKind::Volume, name.clone()),
        MountKind::Tmpfs => (wire::MountKind::Tmpfs, String::new()),
    };
    wire::Mount {
        kind: kind.into(),
        source,
        target: mount.target.clone(),
        read_only: mount.read_only,
        propagation: mount.propagation.clone(),
        size: mount.size,
        mode: mount.mode,
        below: match mount.below {
            Below::Alike => wire::BelowBind::Unspecified,
            Below::LeftOut => wire::BelowBind::LeftOut,
            Below::Writable => wire::BelowBind::Writable,
        }
        .into(),
        subpath: mount.subpath.clone(),
        exec: mount.exec,
        ..wire::Mount::default()
    }
}

pub(super) fn log_line(line: Line) -> wire::LogsResponse {
    let stream = match line.stream {
        Stream::Stdout => wire::StreamKind::Stdout,
        Stream::Stderr => wire::StreamKind::Stderr,
    };
    wire::LogsResponse {
        stream: stream.into(),
        data: line.data,
        time: Some(timestamp(line.time)),
    }
}

/// A path that a container changed, with Docker's letter.
pub(super) fn change(change: Change) -> wire::DiffContainerResponse {
    let kind = match change.kind {
        ChangeKind::Modified => "C",
        ChangeKind::Added => "A",
        ChangeKind::Deleted => "D",
    };
    wire::DiffContainerResponse {
        path: change.path.into(),
        kind: kind.to_owned(),
    }
}
