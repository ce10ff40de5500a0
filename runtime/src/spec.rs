//! From an image's configuration and a request to an OCI runtime-spec document. Everything below here
//! is pure: no file is opened and nothing is made, so all of a request is judged before anything exists.

pub mod defaults;
pub mod devices;
pub mod from_image;
pub mod health;
pub mod mounts;
pub mod namespaces;
pub mod resources;
mod seccomp;
mod sysctls;
pub mod to_image;
pub mod ulimits;
pub mod userns;
pub mod validate;

use std::path::PathBuf;

use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxSeccomp, Process, ProcessBuilder, Root, Spec, SpecBuilder, User,
};
use orlop_proto::runtime::Security;

use crate::containers::record::{self, Record};
use crate::devices::{Disks, HostDevice};
use crate::error::Result;
use crate::host::Host;

/// Annotation that chooses the shim's seccomp filter: [`SECCOMP_DEFAULT`] or [`SECCOMP_UNCONFINED`].
pub const SECCOMP_ANNOTATION: &str = "org.orlop.seccomp";
/// The shim's built-in profile.
pub const SECCOMP_DEFAULT: &str = "default";
/// No filter.
pub const SECCOMP_UNCONFINED: &str = "unconfined";

/// What the document needs and the record does not have.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The network namespace; `None`: the host's.
    pub netns: Option<PathBuf>,
    /// What the container calls itself.
    pub hostname: String,
    /// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`: file on the host, path in the container.
    pub files: Vec<(PathBuf, &'static str)>,
    /// Below the cgroup mounts.
    pub cgroup: String,
    /// Nobody in it gains privileges, whatever the request says.
    pub no_new_privileges: bool,
    /// Namespaces of other containers.
    pub joined: namespaces::Joined,
    /// Devices of the host that it is to have.
    pub devices: Vec<HostDevice>,
    /// Disks of the host whose use is limited.
    pub disks: Disks,
    /// What bounds all that can be given.
    pub host: Host,
}

/// The document for a container that is about to start.
pub fn build(record: &Record, around: &Surroundings) -> Result<Spec> {
    let security = record.config.security.clone().unwrap_or_default();
    let process = process(
        record,
        &record.process,
        &security,
        around.no_new_privileges,
        &around.host,
    )?;
    let mut root = Root::default();
    root.set_path("rootfs".into())
        .set_readonly(Some(record.config.read_only));
    let seccomp = match is_unconfined(&security) {
        true => SECCOMP_UNCONFINED,
        false => SECCOMP_DEFAULT,
    };
    let mut annotations = record.config.annotations.clone();
    annotations.insert(SECCOMP_ANNOTATION.to_owned(), seccomp.to_owned());
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .process(process)
        .root(root)
        .hostname(around.hostname.clone())
        .mounts(mounts::all(record, around)?)
        .annotations(annotations)
        .build()?;
    spec.set_linux(Some(linux(record, around)?));
    Ok(spec)
}

/// Whether no filter is wanted: said so, or privileged without a profile of its own.
fn is_unconfined(security: &Security) -> bool {
    security.seccomp == SECCOMP_UNCONFINED || (security.privileged && security.seccomp.is_empty())
}

/// The profile that a request brings; `None`: there is none, or the one that is built in is meant.
fn own_profile(security: &Security, host: &Host) -> Result<Option<LinuxSeccomp>> {
    if matches!(
        security.seccomp.as_str(),
        "" | SECCOMP_DEFAULT | SECCOMP_UNCONFINED
    ) {
        return Ok(None);
    }
    let sets = defaults::capabilities(security, &host.capabilities)?;
    let bounding = sets.bounding().clone().unwrap_or_default();
    seccomp::profile(&security.seccomp, &bounding, host.kernel).map(Some)
}

/// The process of an exec: the container's own confinement, with another command. A privileged one has
/// every capability instead.
pub fn exec_process(
    record: &Record,
    process: &record::Process,
    privileged: bool,
    no_new_privileges: bool,
    host: &Host,
) -> Result<Process> {
    let mut security = record.config.security.clone().unwrap_or_default();
    if privileged {
        security.privileged = true;
        security.capabilities_drop.clear();
    }
    self::process(record, process, &security, no_new_privileges, host)
}

fn process(
    record: &Record,
    process: &record::Process,
    security: &Security,
    no_new_privileges: bool,
    host: &Host,
) -> Result<Process> {
    let mut made = ProcessBuilder::default()
        .terminal(process.tty)
        .user(User::default())
        .args(process.args.clone())
        .env(environment(record, process))
        .cwd(&process.cwd)
        .capabilities(defaults::capabilities(security, &host.capabilities)?)
        .rlimits(ulimits::all(&record.config.ulimits, host)?)
        .no_new_privileges(security.no_new_privileges || no_new_privileges)
        .build()?;
    made.set_oom_score_adj(record.config.oom_score_adj);
    let profile = Some(&security.apparmor).filter(|name| !matches!(&name[..], "" | "unconfined"));
    made.set_apparmor_profile(profile.cloned());
    Ok(made)
}

/// The variables, with Docker's HOSTNAME where nothing else says it. A build's steps get none: the name
/// is another one each time, and what they write must not be.
fn environment(record: &Record, process: &record::Process) -> Vec<String> {
    let mut variables = process.env.clone();
    if !record.hidden
        && !variables
            .iter()
            .any(|variable| variable.starts_with("HOSTNAME="))
    {
        variables.push(format!("HOSTNAME={}", record.hostname()));
    }
    variables
}

fn linux(record: &Record, around: &Surroundings) -> Result<Linux> {
    let config = &record.config;
    let security = config.security.clone().unwrap_or_default();
    let asked = config.resources.clone().unwrap_or_default();
    let mut resources = resources::limits(&asked, &around.disks)?;
    resources.set_devices(Some(devices::rules(config, &around.devices)?));
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces::list(
            config,
            around.netns.as_deref(),
            &around.joined,
        )?)
        .resources(resources)
        .devices(devices::list(&around.devices)?)
        .sysctl(sysctls::all(
            config,
            around.joined.user.as_ref().map(|(_, ids)| *ids),
        ))
        .cgroups_path(&around.cgroup)
        .rootfs_propagation("rprivate")
        .build()?;
    let mappings = around.joined.user.as_ref();
    let mappings = mappings
        .map(|(_, ids)| userns::mappings(*ids))
        .transpose()?;
    linux.set_uid_mappings(mappings.clone());
    linux.set_gid_mappings(mappings);
    linux.set_seccomp(own_profile(&security, &around.host)?);
    let (masked, read_only) = match security.privileged || security.system_paths {
        true => (Vec::new(), Vec::new()),
        false => (
            defaults::masked_paths(defaults::possible_cpus()),
            defaults::readonly_paths(),
        ),
    };
    linux
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(read_only));
    Ok(linux)
}
