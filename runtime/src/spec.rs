//! From an image's configuration and a request to an OCI runtime-spec document. Everything below here
//! is pure: no file is opened and nothing is made, so all of a request is judged before anything exists.

pub mod defaults;
pub mod from_image;
pub mod mounts;
pub mod resources;
pub mod to_image;
pub mod validate;

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceType, Process, ProcessBuilder, Root, Spec,
    SpecBuilder, User,
};

use crate::containers::record::{self, Record};
use crate::error::Result;

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
    /// The most open files that this host's hard limit allows.
    pub open_files_max: u64,
}

/// The document for a container that is about to start.
pub fn build(record: &Record, around: &Surroundings) -> Result<Spec> {
    let security = record.config.security.clone().unwrap_or_default();
    let process = process(
        record,
        &record.process,
        &defaults::capabilities(&security)?,
        security.no_new_privileges || around.no_new_privileges,
        around.open_files_max,
    )?;
    let mut root = Root::default();
    root.set_path("rootfs".into())
        .set_readonly(Some(record.config.read_only));
    let seccomp = match security.seccomp.as_str() {
        SECCOMP_UNCONFINED => SECCOMP_UNCONFINED,
        _ => SECCOMP_DEFAULT,
    };
    let annotations = HashMap::from([(SECCOMP_ANNOTATION.to_owned(), seccomp.to_owned())]);
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

/// The process of an exec: the container's own confinement, with another command.
pub fn exec_process(
    record: &Record,
    process: &record::Process,
    no_new_privileges: bool,
    open_files_max: u64,
) -> Result<Process> {
    let security = record.config.security.clone().unwrap_or_default();
    self::process(
        record,
        process,
        &defaults::capabilities(&security)?,
        security.no_new_privileges || no_new_privileges,
        open_files_max,
    )
}

fn process(
    record: &Record,
    process: &record::Process,
    capabilities: &oci_spec::runtime::LinuxCapabilities,
    no_new_privileges: bool,
    open_files_max: u64,
) -> Result<Process> {
    Ok(ProcessBuilder::default()
        .terminal(process.tty)
        .user(User::default())
        .args(process.args.clone())
        .env(environment(record, process))
        .cwd(&process.cwd)
        .capabilities(capabilities.clone())
        .rlimits(defaults::rlimits(open_files_max)?)
        .no_new_privileges(no_new_privileges)
        .build()?)
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
    Ok(LinuxBuilder::default()
        .namespaces(namespaces(around))
        .resources(resources::limits(
            &record.config.resources.clone().unwrap_or_default(),
        )?)
        .cgroups_path(&around.cgroup)
        .masked_paths(defaults::masked_paths(defaults::possible_cpus()))
        .readonly_paths(defaults::readonly_paths())
        .rootfs_propagation("rprivate")
        .build()?)
}

fn namespaces(around: &Surroundings) -> Vec<LinuxNamespace> {
    let of = |kind, path: Option<PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path);
        namespace
    };
    let mut all: Vec<LinuxNamespace> = [
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Cgroup,
    ]
    .map(|kind| of(kind, None))
    .into();
    if let Some(path) = &around.netns {
        all.push(of(LinuxNamespaceType::Network, Some(path.clone())));
    }
    all
}
