//! A container in Docker's shape (Docker Engine API, `ContainerInspect`).

use orlop_proto::runtime::{
    Container, ContainerState, ContainerStatus, CreateRequest, DeviceLimit, Health, HealthCheck,
    Mount, MountKind, PortBinding, Resources, Security,
};
use serde_json::{Map, Value, json};

use crate::ui::time;

/// Docker's word for a status.
pub(crate) fn status_word(status: ContainerStatus) -> &'static str {
    match status {
        ContainerStatus::Created => "created",
        ContainerStatus::Running => "running",
        ContainerStatus::Paused => "paused",
        ContainerStatus::Exited => "exited",
        ContainerStatus::Dead => "dead",
        ContainerStatus::Restarting => "restarting",
        ContainerStatus::Unspecified => "unknown",
    }
}

/// `80/tcp` of a binding.
pub(crate) fn port_key(port: &PortBinding) -> String {
    let protocol = if port.protocol.is_empty() {
        "tcp"
    } else {
        &port.protocol
    };
    format!("{}/{protocol}", port.container_port)
}

/// The whole container.
pub(crate) fn describe(container: &Container) -> Value {
    let config = container.config.clone().unwrap_or_default();
    let process = container.process.clone().unwrap_or_default();
    let (path, args) = match process.args.split_first() {
        Some((path, args)) => (path.clone(), args.to_vec()),
        None => (String::new(), Vec::new()),
    };
    let mut described = json!({
        "Id": container.id,
        "Created": time::rfc3339(container.created.as_ref()),
        "Path": path,
        "Args": args,
        "State": state(container.state.as_ref()),
        "Image": container.image_id,
        "LogPath": container.log_path,
        "Name": format!("/{}", container.name),
        "RestartCount": container.state.as_ref().map_or(0, |state| state.restart_count),
        "Driver": "overlay",
        "Platform": "linux",
        "HostConfig": host_config(&config),
        "Mounts": container.mounts.iter().map(mount).collect::<Vec<_>>(),
        "Config": own_config(container, &config),
        "NetworkSettings": networks(container),
        "Snapshot": container.snapshot,
    });
    if let (Value::Object(all), Some(size)) = (&mut described, &container.size) {
        all.insert("SizeRw".to_owned(), size.writable.into());
        all.insert("SizeRootFs".to_owned(), size.total.into());
    }
    described
}

fn state(state: Option<&ContainerState>) -> Value {
    let state = state.cloned().unwrap_or_default();
    let status = state.status();
    let mut shown = json!({
        "Status": status_word(status),
        "Running": matches!(
            status,
            ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting
        ),
        "Paused": status == ContainerStatus::Paused,
        "Restarting": status == ContainerStatus::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": status == ContainerStatus::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time::rfc3339(state.started.as_ref()),
        "FinishedAt": time::rfc3339(state.finished.as_ref()),
    });
    if let (Value::Object(shown), Some(health)) = (&mut shown, &state.health) {
        shown.insert("Health".to_owned(), self::health(health));
    }
    shown
}

fn health(health: &Health) -> Value {
    let results = health.results.iter().map(|result| {
        json!({
            "Start": time::rfc3339(result.started.as_ref()),
            "End": time::rfc3339(result.ended.as_ref()),
            "ExitCode": result.exit_code,
            "Output": result.output,
        })
    });
    json!({
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": results.collect::<Vec<_>>(),
    })
}

/// As Docker shows it: what was not said is not there.
fn health_check(check: &HealthCheck) -> Value {
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries.into()),
    ];
    let times = times.into_iter().filter(|(_, number)| *number != 0);
    let times = times.map(|(name, number)| (name.to_owned(), json!(number)));
    let test = ("Test".to_owned(), json!(check.test));
    Value::Object(times.chain([test]).collect())
}

fn own_config(container: &Container, config: &CreateRequest) -> Value {
    let process = container.process.clone().unwrap_or_default();
    let exposed: Map<String, Value> = container
        .exposed
        .iter()
        .map(|port| (port.clone(), json!({})))
        .collect();
    // Where nothing was given in their place, what really runs is the image's own command.
    let cmd = if config.command.is_empty() && !config.entrypoint_set {
        &process.args
    } else {
        &config.command
    };
    let mut shown = json!({
        "Hostname": hostname(container, config),
        "Domainname": config.domainname,
        "User": process.user,
        "AttachStdin": config.open_stdin,
        "Tty": process.tty,
        "OpenStdin": config.open_stdin,
        "Env": process.env,
        "Cmd": cmd,
        "Entrypoint": if config.entrypoint.is_empty() { Value::Null } else { json!(config.entrypoint) },
        "Image": container.image,
        "WorkingDir": process.cwd,
        "ExposedPorts": exposed,
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout,
    });
    if let (Value::Object(shown), Some(check)) = (&mut shown, &config.health) {
        shown.insert("Healthcheck".to_owned(), health_check(check));
    }
    shown
}

fn hostname(container: &Container, config: &CreateRequest) -> String {
    if config.hostname.is_empty() {
        container.id.chars().take(12).collect()
    } else {
        config.hostname.clone()
    }
}

fn host_config(config: &CreateRequest) -> Value {
    let resources: Resources = config.resources.clone().unwrap_or_default();
    let security: Security = config.security.clone().unwrap_or_default();
    let restart = config.restart.clone().unwrap_or_default();
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    if !security.seccomp.is_empty() {
        options.push(format!("seccomp={}", security.seccomp));
    }
    if !security.apparmor.is_empty() {
        options.push(format!("apparmor={}", security.apparmor));
    }
    if security.system_paths {
        options.push("systempaths=unconfined".to_owned());
    }
    options.extend(security.labels.iter().map(|label| format!("label={label}")));
    let restart_name = if restart.name.is_empty() {
        "no"
    } else {
        &restart.name
    };
    let network = if config.network.is_empty() {
        "bridge"
    } else {
        &config.network
    };
    let on_failure = config.health.as_ref().map(|check| &check.on_failure);
    let mut described = json!({
        "Binds": config.mounts.iter().filter_map(bind).collect::<Vec<_>>(),
        "VolumesFrom": config.volumes_from,
        "LogConfig": log_config(config),
        "NetworkMode": network,
        "PortBindings": bindings(&config.ports),
        "RestartPolicy": { "Name": restart_name, "MaximumRetryCount": restart.maximum_retries },
        "AutoRemove": config.auto_remove,
        "HealthOnFailure": on_failure.map_or("", String::as_str),
        "Privileged": security.privileged,
        "PublishAllPorts": config.publish_all,
        "ReadonlyRootfs": config.read_only,
        "CapAdd": security.capabilities_add,
        "CapDrop": security.capabilities_drop,
        "SecurityOpt": options,
        "Dns": config.dns,
        "DnsSearch": config.dns_search,
        "DnsOptions": config.dns_options,
        "ExtraHosts": config.extra_hosts,
        "Memory": resources.memory,
        "MemorySwap": resources.memory_swap,
        "MemoryReservation": resources.memory_reservation,
        "NanoCpus": resources.nano_cpus,
        "CpuQuota": resources.cpu_quota,
        "CpuPeriod": resources.cpu_period,
        "BlkioWeight": resources.blkio_weight,
        "BlkioWeightDevice": on_devices(&resources.blkio_weight_device, "Weight"),
        "BlkioDeviceReadBps": on_devices(&resources.device_read_bps, "Rate"),
        "BlkioDeviceWriteBps": on_devices(&resources.device_write_bps, "Rate"),
        "BlkioDeviceReadIOps": on_devices(&resources.device_read_iops, "Rate"),
        "BlkioDeviceWriteIOps": on_devices(&resources.device_write_iops, "Rate"),
        "CpuShares": resources.cpu_shares,
        "CpusetCpus": resources.cpuset_cpus,
        "CpusetMems": resources.cpuset_mems,
        "PidsLimit": resources.pids,
        "ShmSize": resources.shm_size,
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut described, isolation(config)) {
        all.extend(more);
    }
    described
}

/// Docker's options are all text; what was not said is not there.
fn log_config(config: &CreateRequest) -> Value {
    let driver = match config.log_driver.as_str() {
        "" => "json-file",
        driver => driver,
    };
    let given = |number: i64| (number != 0).then(|| number.to_string());
    let options = [
        ("max-size", given(config.log_max_size)),
        ("max-file", given(config.log_max_file.into())),
        ("labels", Some(config.log_labels.join(","))),
        ("env", Some(config.log_env.join(","))),
    ];
    let options = options.into_iter().filter_map(|(name, value)| {
        let value = value.filter(|value| !value.is_empty())?;
        Some((name.to_owned(), Value::String(value)))
    });
    json!({ "Type": driver, "Config": options.collect::<Map<_, _>>() })
}

fn on_devices(limits: &[DeviceLimit], kind: &str) -> Vec<Value> {
    let one = |limit: &DeviceLimit| json!({ "Path": limit.path, kind: limit.limit });
    limits.iter().map(one).collect()
}

/// Namespaces, devices and limits of processes, with Docker's defaults where nothing was asked.
fn isolation(config: &CreateRequest) -> Value {
    let resources = config.resources.clone().unwrap_or_default();
    let or_private = |mode: &str| {
        if mode.is_empty() {
            "private".to_owned()
        } else {
            mode.to_owned()
        }
    };
    let devices = config.devices.iter().map(|device| {
        let or = |text: &str, other: &str| {
            if text.is_empty() {
                other.to_owned()
            } else {
                text.to_owned()
            }
        };
        json!({
            "PathOnHost": device.path,
            "PathInContainer": or(&device.target, &device.path),
            "CgroupPermissions": or(&device.permissions, "rwm"),
        })
    });
    let ulimits = config
        .ulimits
        .iter()
        .map(|ulimit| json!({ "Name": ulimit.name, "Soft": ulimit.soft, "Hard": ulimit.hard }));
    json!({
        "PidMode": config.pid_mode,
        "IpcMode": or_private(&config.ipc_mode),
        "UTSMode": config.uts_mode,
        "UsernsMode": config.userns,
        "CgroupnsMode": or_private(&config.cgroupns_mode),
        "Devices": devices.collect::<Vec<_>>(),
        "DeviceCgroupRules": config.device_cgroup_rules,
        "Ulimits": ulimits.collect::<Vec<_>>(),
        "Sysctls": config.sysctls,
        "Init": config.init,
        "Runtime": if config.runtime.is_empty() { "orlop" } else { &config.runtime },
        "CgroupParent": config.cgroup_parent,
        "Annotations": config.annotations,
        "MemorySwappiness": resources.memory_swappiness,
        "OomKillDisable": resources.oom_kill_disable,
        "OomScoreAdj": config.oom_score_adj.unwrap_or_default(),
        "GroupAdd": config.groups,
    })
}

/// `source:target[:ro]`, for bind mounts and named volumes.
fn bind(mount: &Mount) -> Option<String> {
    let named = !mount.source.is_empty();
    let kind = matches!(mount.kind(), MountKind::Bind | MountKind::Volume);
    let suffix = if mount.read_only { ":ro" } else { "" };
    (named && kind).then(|| format!("{}:{}{suffix}", mount.source, mount.target))
}

fn mount(mount: &Mount) -> Value {
    let kind = match mount.kind() {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Unspecified => "unknown",
    };
    let name = if mount.kind() == MountKind::Volume {
        mount.source.as_str()
    } else {
        ""
    };
    json!({
        "Type": kind,
        "Name": name,
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": if mount.read_only { "ro" } else { "" },
        "RW": !mount.read_only,
        "Propagation": mount.propagation,
    })
}

fn bindings(ports: &[PortBinding]) -> Map<String, Value> {
    let mut bound: Map<String, Value> = Map::new();
    for port in ports {
        let address = if port.host_address.is_empty() {
            "0.0.0.0"
        } else {
            &port.host_address
        };
        let entry = json!({ "HostIp": address, "HostPort": port.host_port.to_string() });
        match bound.entry(port_key(port)).or_insert_with(|| json!([])) {
            Value::Array(entries) => entries.push(entry),
            other => *other = json!([entry]),
        }
    }
    bound
}

fn networks(container: &Container) -> Value {
    let mut ports = bindings(&container.ports);
    for exposed in &container.exposed {
        ports.entry(exposed.clone()).or_insert(Value::Null);
    }
    let first = container.endpoints.first().cloned().unwrap_or_default();
    let each: Map<String, Value> = container
        .endpoints
        .iter()
        .map(|endpoint| {
            let facts = json!({
                "IPAddress": endpoint.address,
                "IPPrefixLen": endpoint.prefix_length,
                "Gateway": endpoint.gateway,
                "GlobalIPv6Address": endpoint.ipv6_address,
                "GlobalIPv6PrefixLen": endpoint.ipv6_prefix_length,
                "IPv6Gateway": endpoint.ipv6_gateway,
                "MacAddress": endpoint.mac,
                "NetworkID": endpoint.network_id,
                "Aliases": endpoint.aliases,
                "Links": endpoint.links,
            });
            (endpoint.network.clone(), facts)
        })
        .collect();
    json!({
        "Ports": ports,
        "IPAddress": first.address,
        "IPPrefixLen": first.prefix_length,
        "Gateway": first.gateway,
        "GlobalIPv6Address": first.ipv6_address,
        "GlobalIPv6PrefixLen": first.ipv6_prefix_length,
        "IPv6Gateway": first.ipv6_gateway,
        "MacAddress": first.mac,
        "Networks": each,
    })
}

#[cfg(test)]
mod tests {
    use orlop_proto::runtime::Endpoint;

    use super::*;

    #[test]
    fn what_scripts_ask_for_is_where_docker_has_it() {
        let container = Container {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            state: Some(ContainerState {
                status: ContainerStatus::Running.into(),
                pid: 42,
                ..ContainerState::default()
            }),
            endpoints: vec![Endpoint {
                network: "bridge".to_owned(),
                address: "172.18.0.2".to_owned(),
                ..Endpoint::default()
            }],
            ports: vec![PortBinding {
                container_port: 80,
                host_port: 8080,
                ..PortBinding::default()
            }],
            exposed: vec!["80/tcp".to_owned(), "90/udp".to_owned()],
            ..Container::default()
        };
        let shown = describe(&container);
        assert_eq!(shown["Name"], "/web");
        assert_eq!(shown["State"]["Status"], "running");
        assert_eq!(shown["State"]["Pid"], 42);
        assert_eq!(shown["NetworkSettings"]["IPAddress"], "172.18.0.2");
        assert_eq!(
            shown["NetworkSettings"]["Networks"]["bridge"]["IPAddress"],
            "172.18.0.2"
        );
        assert_eq!(
            shown["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"],
            "8080"
        );
        assert_eq!(shown["NetworkSettings"]["Ports"]["90/udp"], Value::Null);
        assert_eq!(shown["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
    }
}
