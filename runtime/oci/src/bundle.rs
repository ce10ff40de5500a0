//! A bundle: the directory with a container's specification, and what of it is not supported.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::sysctls;

/// File name of the specification.
pub(crate) const SPEC_FILE: &str = "config.json";
/// The largest document that is read.
const DOCUMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is to become a container.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) spec: Spec,
}

impl Bundle {
    /// Reads and checks it.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(Error::file("find", path))?;
        let spec: Spec = read(&path.join(SPEC_FILE))?;
        let root = spec.root().as_ref().ok_or(Error::Lacks("a root"))?;
        let rootfs = path.join(root.path());
        let rootfs = rootfs.canonicalize().map_err(Error::file("find", rootfs))?;
        if let Some(what) = unsupported(&spec)? {
            return Err(Error::Unsupported(what));
        }
        spec.linux().as_ref().map_or(Ok(()), sysctls::check)?;
        Ok(Self { path, rootfs, spec })
    }
}

/// Reads a document.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    let reader = BufReader::new(file.take(DOCUMENT_BYTES_MAX));
    serde_json::from_reader(reader).map_err(|source| Error::Json {
        path: path.into(),
        source,
    })
}

fn first(found: &[(&str, bool)]) -> Option<String> {
    let mut found = found.iter().filter(|(_, given)| *given);
    found.next().map(|(name, _)| (*name).to_owned())
}

fn named(text: Option<&String>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

/// The first thing in a specification that this runtime does not do.
fn unsupported(spec: &Spec) -> Result<Option<String>> {
    let process = spec.process().as_ref().ok_or(Error::Lacks("a process"))?;
    let linux = spec.linux().as_ref();
    let linux = linux.ok_or(Error::Lacks("a section for linux"))?;
    let mounts = spec.mounts().iter().flatten();
    let mapped = |mount: &oci_spec::runtime::Mount| {
        mount.uid_mappings().is_some() || mount.gid_mappings().is_some()
    };
    let own = first(&[
        ("domainname", named(spec.domainname().as_ref())),
        ("mounts.uidMappings", mounts.into_iter().any(mapped)),
    ]);
    Ok(own
        .or_else(|| unsupported_of_process(process))
        .or_else(|| unsupported_of_linux(linux)))
}

/// The same of a process.
pub(crate) fn unsupported_of_process(process: &Process) -> Option<String> {
    let ambient = process.capabilities().as_ref();
    let ambient = ambient.and_then(|sets| sets.ambient().as_ref());
    first(&[
        (
            // Root has them without.
            "process.capabilities.ambient",
            process.user().uid() != 0 && ambient.is_some_and(|set| !set.is_empty()),
        ),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        (
            "process.execCPUAffinity",
            process.exec_cpu_affinity().is_some(),
        ),
    ])
}

fn unsupported_of_linux(linux: &Linux) -> Option<String> {
    let propagation = linux.rootfs_propagation().as_deref();
    let shared = propagation.is_some_and(|word| word.ends_with("shared"));
    let maps = [linux.uid_mappings(), linux.gid_mappings()];
    let mapped = maps.into_iter().flatten().any(|maps| !maps.is_empty());
    let mut namespaces = linux.namespaces().iter().flatten();
    let user = namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::User);
    let resources = linux.resources().as_ref();
    first(&[
        (
            "linux.uidMappings without a user namespace",
            mapped && !user,
        ),
        ("linux.rootfsPropagation shared", shared),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.personality", linux.personality().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.netDevices", linux.net_devices().is_some()),
        ("linux.timeOffsets", linux.time_offsets().is_some()),
    ])
    .or_else(|| resources.and_then(unsupported_of_resources))
}

/// The same of limits.
pub(crate) fn unsupported_of_resources(resources: &LinuxResources) -> Option<String> {
    let json = serde_json::to_value(resources).unwrap_or_default();
    let given = |section: &str, name: &str| {
        let value = &json[section][name];
        let nothing = [0.into(), false.into(), serde_json::json!([])];
        !value.is_null() && !nothing.contains(value)
    };
    let fields = [
        ("memory", "kernel"),
        ("memory", "kernelTCP"),
        ("memory", "swappiness"),
        ("memory", "disableOOMKiller"),
        ("cpu", "realtimeRuntime"),
        ("cpu", "realtimePeriod"),
        ("cpu", "idle"),
        ("cpu", "burst"),
        ("blockIO", "leafWeight"),
        ("network", "classID"),
        ("network", "priorities"),
    ];
    let mut fields = fields.iter();
    let field = fields.find(|(section, name)| given(section, name));
    let sections = ["rdma", "unified"];
    let is_empty = |value: &serde_json::Value| {
        value.as_array().is_none_or(Vec::is_empty)
            && value.as_object().is_none_or(serde_json::Map::is_empty)
    };
    let section = sections.into_iter().find(|name| !is_empty(&json[*name]));
    let field = field.map(|(section, name)| format!("linux.resources.{section}.{name}"));
    field
        .or_else(|| section.map(|name| format!("linux.resources.{name}")))
        .or_else(|| unknown_page_size(resources))
}

/// A size is part of a file's name (row B28): it is as the specification has it, `64KB`, `2MB`, `1GB`.
fn unknown_page_size(resources: &LinuxResources) -> Option<String> {
    let is_size = |text: &str| {
        let units = ["KB", "MB", "GB"].into_iter();
        let mut numbers = units.filter_map(|unit| text.strip_suffix(unit));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        numbers.any(is_number)
    };
    let mut limits = resources.hugepage_limits().iter().flatten();
    let odd = limits.find(|limit| !is_size(limit.page_size()))?;
    let size = odd.page_size();
    Some(format!("linux.resources.hugepageLimits.pageSize {size:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(resources: &str) -> Option<String> {
        unsupported_of_resources(&serde_json::from_str(resources).unwrap())
    }

    #[test]
    fn what_docker_always_sends_is_no_limit() {
        let sent = r#"{"devices": [], "memory": {"disableOOMKiller": false}, "cpu": {"shares": 0},
                       "pids": {"limit": 0}, "blockIO": {"weight": 0}}"#;
        assert_eq!(refused(sent), None);
    }

    #[test]
    fn b28_a_page_size_is_a_number_with_its_unit() {
        for size in ["../../x", "2MB/../x", "", "MB", "2", "2TB", "-2MB"] {
            let sent = serde_json::json!({"hugepageLimits": [{"pageSize": size, "limit": 1}]});
            let said = refused(&sent.to_string()).unwrap_or_default();
            assert!(said.contains("hugepageLimits"), "{size}: {said}");
        }
    }

    #[test]
    fn limits_of_disks_and_huge_pages_are_set() {
        let sent = r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]},
                       "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}"#;
        assert_eq!(refused(sent), None);
    }

    #[test]
    fn a_limit_that_is_not_set_is_named() {
        let name = refused(r#"{"memory": {"swappiness": 10}}"#).unwrap();
        assert_eq!(name, "linux.resources.memory.swappiness");
        let name = refused(r#"{"unified": {"memory.high": "1"}}"#).unwrap();
        assert_eq!(name, "linux.resources.unified");
    }
}
