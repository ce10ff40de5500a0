//! From options to the request.

use orlop_proto::runtime::create_request::Root;
use orlop_proto::runtime::{
    CreateRequest, Mount, NetworkMembership, PortBinding, Process, Resources, Security,
};

use super::ContainerOptions;
use crate::error::CliError;
use crate::ui::terminal;
use crate::values::{
    device, env, health, invalid, label, log, mount, network, port, quantity, security,
};

/// The request that the options describe.
pub(super) fn of(args: &ContainerOptions) -> Result<CreateRequest, CliError> {
    let (image, command) = args
        .image_and_command
        .split_first()
        .ok_or_else(|| CliError::Usage("an image is needed".to_owned()))?;
    let restart = args.restart.as_deref().map(security::restart).transpose()?;
    if args.rm && restart.as_ref().is_some_and(|policy| policy.name != "no") {
        return Err(CliError::Usage(
            "--rm and --restart exclude one another".to_owned(),
        ));
    }
    let entrypoint = args
        .entrypoint
        .clone()
        .filter(|program| !program.is_empty());
    let (network, memberships) = networks(args)?;
    let log = log::options(&args.log_opt)?;
    Ok(CreateRequest {
        name: args.name.clone().unwrap_or_default(),
        root: Some(Root::Image(image.clone())),
        process: Some(process(args)?),
        command: command.to_vec(),
        entrypoint: entrypoint.into_iter().collect(),
        entrypoint_set: args.entrypoint.is_some(),
        open_stdin: args.interactive,
        auto_remove: args.rm,
        read_only: args.read_only,
        resources: Some(resources(args)?),
        mounts: mounts(args)?,
        volumes_from: args.volumes_from.clone(),
        network,
        memberships,
        ports: ports(args)?,
        labels: label::collect(&args.label_file, &args.label)?,
        annotations: each(&args.annotation, label::annotation)?
            .into_iter()
            .collect(),
        stop_signal: args.stop_signal.clone().unwrap_or_default(),
        stop_timeout: args.stop_timeout,
        security: Some(confinement(args)?),
        expose: each(&args.expose, port::expose)?.concat(),
        restart,
        health: health::parse(&args.health)?,
        publish_all: args.publish_all,
        platform: args
            .platform
            .as_deref()
            .map(quantity::platform)
            .transpose()?,
        pid_mode: args.pid.clone().unwrap_or_default(),
        ipc_mode: args.ipc.clone().unwrap_or_default(),
        uts_mode: args.uts.clone().unwrap_or_default(),
        cgroupns_mode: args.cgroupns.clone().unwrap_or_default(),
        cgroup_parent: args.cgroup_parent.clone().unwrap_or_default(),
        devices: each(&args.device, device::device)?,
        device_cgroup_rules: args.device_cgroup_rule.clone(),
        ulimits: each(&args.ulimit, device::ulimit)?,
        sysctls: each(&args.sysctl, security::sysctl)?.into_iter().collect(),
        init: args.init,
        oom_score_adj: args.oom_score_adj,
        groups: args.group_add.clone(),
        runtime: args.runtime.clone().unwrap_or_default(),
        userns: args.userns.clone().unwrap_or_default(),
        log_driver: args.log_driver.clone().unwrap_or_default(),
        log_max_size: log.max_size,
        log_max_file: log.max_file,
        log_labels: log.labels,
        log_env: log.variables,
        ..names(args)
    })
}

/// Its own names, and how it finds those of others.
fn names(args: &ContainerOptions) -> CreateRequest {
    CreateRequest {
        hostname: args.hostname.clone().unwrap_or_default(),
        domainname: args.domainname.clone().unwrap_or_default(),
        dns: args.dns.clone(),
        dns_search: args.dns_search.clone(),
        dns_options: args.dns_option.clone(),
        extra_hosts: args.add_host.clone(),
        ..CreateRequest::default()
    }
}

fn each<T>(
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, CliError>,
) -> Result<Vec<T>, CliError> {
    texts.iter().map(|text| parse(text)).collect()
}

fn process(args: &ContainerOptions) -> Result<Process, CliError> {
    Ok(Process {
        args: Vec::new(),
        env: env::collect(&args.env_file, &args.env)?,
        cwd: args.workdir.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        tty: args.tty,
        size: if args.tty { terminal::size() } else { None },
    })
}

fn resources(args: &ContainerOptions) -> Result<Resources, CliError> {
    let shm_size = args.shm_size.as_deref();
    let mut resources = args.limits.resources()?;
    args.disks.apply(&mut resources)?;
    Ok(Resources {
        memory_swappiness: args.memory_swappiness.map_or(Ok(None), swappiness)?,
        oom_kill_disable: args.oom_kill_disable,
        shm_size: shm_size.map_or(Ok(0), |text| quantity::bytes("--shm-size", text))?,
        ..resources
    })
}

/// -1 is Docker's word for none.
fn swappiness(number: i64) -> Result<Option<u32>, CliError> {
    let fail = |_| {
        let problem = "expected 0 to 100, or -1";
        invalid("--memory-swappiness", &number.to_string(), problem)
    };
    match number {
        -1 => Ok(None),
        number => u32::try_from(number).map(Some).map_err(fail),
    }
}

fn mounts(args: &ContainerOptions) -> Result<Vec<Mount>, CliError> {
    let volumes = args.volume.iter().map(|text| mount::volume(text));
    let mounts = args.mount.iter().map(|text| mount::mount(text));
    let tmpfs = args.tmpfs.iter().map(|text| mount::tmpfs(text));
    volumes.chain(mounts).chain(tmpfs).collect()
}

/// The main network, and what is asked of it and of others.
fn networks(args: &ContainerOptions) -> Result<(String, Vec<NetworkMembership>), CliError> {
    let parsed: Result<Vec<_>, _> = args
        .network
        .iter()
        .map(|text| network::parse(text))
        .collect();
    let mut memberships = parsed?;
    if memberships.is_empty() {
        memberships.push(NetworkMembership::default());
    }
    let main = memberships[0].network.clone();
    if let Some(address) = &args.ip {
        memberships[0].address.clone_from(address);
    }
    if let Some(address) = &args.ip6 {
        memberships[0].ipv6_address.clone_from(address);
    }
    if let Some(address) = &args.mac_address {
        memberships[0].mac_address.clone_from(address);
    }
    memberships[0].links.extend(args.link.iter().cloned());
    memberships[0]
        .aliases
        .extend(args.network_alias.iter().cloned());
    let plain = memberships.len() == 1 && network::is_plain(&memberships[0]);
    Ok((main, if plain { Vec::new() } else { memberships }))
}

fn ports(args: &ContainerOptions) -> Result<Vec<PortBinding>, CliError> {
    let parsed: Result<Vec<_>, _> = args.publish.iter().map(|text| port::parse(text)).collect();
    Ok(parsed?.into_iter().flatten().collect())
}

fn confinement(args: &ContainerOptions) -> Result<Security, CliError> {
    let mut made = Security {
        privileged: args.privileged,
        capabilities_add: args.cap_add.clone(),
        capabilities_drop: args.cap_drop.clone(),
        ..Security::default()
    };
    for option in &args.security_opt {
        security::apply(&mut made, option)?;
    }
    Ok(made)
}
