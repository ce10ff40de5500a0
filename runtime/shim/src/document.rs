//! Documents of the OCI runtime-spec, read without what a shim has no use for. `oci-spec` verifies
//! `execCPUAffinity` with regular expressions; with their tables relocated, a shim would have twice as much
//! memory to itself.

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    Hooks, Linux, LinuxCapabilities, LinuxIOPriority, Mount, PosixRlimit, Process, Root, Scheduler,
    Spec, User,
};
use serde::{Deserialize, Deserializer};

/// [`Spec`] for Linux.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecFields {
    #[serde(default)]
    oci_version: String,
    root: Option<Root>,
    mounts: Option<Vec<Mount>>,
    process: Option<ProcessFields>,
    hostname: Option<String>,
    domainname: Option<String>,
    hooks: Option<Hooks>,
    annotations: Option<HashMap<String, String>>,
    linux: Option<Linux>,
}

/// [`Process`] for Linux.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProcessFields {
    terminal: Option<bool>,
    user: User,
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    cwd: PathBuf,
    capabilities: Option<LinuxCapabilities>,
    rlimits: Option<Vec<PosixRlimit>>,
    no_new_privileges: Option<bool>,
    apparmor_profile: Option<String>,
    oom_score_adj: Option<i32>,
    selinux_label: Option<String>,
    io_priority: Option<LinuxIOPriority>,
    scheduler: Option<Scheduler>,
}

/// Reads a whole document.
pub(crate) fn spec<'a, D: Deserializer<'a>>(from: D) -> Result<Spec, D::Error> {
    SpecFields::deserialize(from).map(Spec::from)
}

/// Reads its `process`.
pub(crate) fn process<'a, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'a>,
    T: From<Process>,
{
    let process = ProcessFields::deserialize(from).map(Process::from);
    process.map(T::from)
}

impl From<SpecFields> for Spec {
    fn from(fields: SpecFields) -> Self {
        let mut spec = Self::default();
        spec.set_version(fields.oci_version)
            .set_root(fields.root)
            .set_mounts(fields.mounts)
            .set_process(fields.process.map(Process::from))
            .set_hostname(fields.hostname)
            .set_domainname(fields.domainname)
            .set_hooks(fields.hooks)
            .set_annotations(fields.annotations)
            .set_linux(fields.linux);
        spec
    }
}

impl From<ProcessFields> for Process {
    fn from(fields: ProcessFields) -> Self {
        let mut process = Self::default();
        process
            .set_terminal(fields.terminal)
            .set_user(fields.user)
            .set_args(fields.args)
            .set_env(fields.env)
            .set_cwd(fields.cwd)
            .set_capabilities(fields.capabilities)
            .set_rlimits(fields.rlimits)
            .set_no_new_privileges(fields.no_new_privileges)
            .set_apparmor_profile(fields.apparmor_profile)
            .set_oom_score_adj(fields.oom_score_adj)
            .set_selinux_label(fields.selinux_label)
            .set_io_priority(fields.io_priority)
            .set_scheduler(fields.scheduler);
        process
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{
        LinuxIOPriorityBuilder, LinuxSchedulerPolicy, ProcessBuilder, SchedulerBuilder,
    };

    use super::*;

    fn read(text: &str) -> serde_json::Result<Spec> {
        spec(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn nothing_of_a_document_for_linux_is_lost() {
        let scheduler = SchedulerBuilder::default().policy(LinuxSchedulerPolicy::SchedBatch);
        let priority = LinuxIOPriorityBuilder::default().priority(3);
        let process = ProcessBuilder::default()
            .apparmor_profile("profile")
            .selinux_label("label")
            .oom_score_adj(7)
            .scheduler(scheduler.build().unwrap())
            .io_priority(priority.build().unwrap())
            .build();
        let mut whole = Spec::default();
        whole
            .set_process(Some(process.unwrap()))
            .set_domainname(Some("domain".to_owned()))
            .set_hooks(Some(Hooks::default()))
            .set_annotations(Some([("a".to_owned(), "b".to_owned())].into()));
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(read(&text).unwrap(), whole);
    }

    #[test]
    fn what_a_document_leaves_out_stays_out() {
        let text = r#"{"process":{"user":{"uid":1,"gid":2},"cwd":"/"}}"#;
        let usual = serde_json::from_str::<Spec>(text).unwrap();
        assert_eq!(read(text).unwrap(), usual);
    }
}
