//! Whose user and group ids a container has.

use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use orlop_proto::runtime::CreateRequest;

use super::namespaces::{self, Mode};
use crate::error::{Error, Result};
use crate::subids::IdRange;

/// Ids of a container that says no number: what images are made with.
pub const SIZE: u32 = 65536;
/// More are of no use: no image has so many.
const SIZE_MAX: u32 = 1 << 24;

/// How many ids of its own a container asks for; `None`: it has the host's.
pub fn size(userns: &str) -> Result<Option<u32>> {
    let sized = userns.strip_prefix("auto:size=");
    match (userns, sized) {
        ("" | "host", _) => Ok(None),
        ("private" | "auto", _) => Ok(Some(SIZE)),
        (_, Some(number)) => match number.parse() {
            Ok(size @ 1..=SIZE_MAX) => Ok(Some(size)),
            _ => Err(invalid(userns, "expected a size of 1 to 16777216")),
        },
        _ => Err(invalid(
            userns,
            "expected host, private, auto or auto:size=N",
        )),
    }
}

fn invalid(userns: &str, problem: &str) -> Error {
    let shown: String = userns.chars().take(64).collect();
    Error::invalid("namespace", format!("--userns {shown:?}: {problem}"))
}

/// A user namespace goes with namespaces of its own: nobody in it has rights over others.
pub(super) fn check(config: &CreateRequest) -> Result<()> {
    if size(&config.userns)?.is_none() {
        return Ok(());
    }
    if !config.runtime.is_empty() {
        return Err(Error::invalid(
            "namespace",
            "--runtime and a user namespace exclude one another: give --userns host".to_owned(),
        ));
    }
    let others = [
        ("--network", !namespaces::own_network(config)),
        ("--pid", namespaces::pid(config)? != Mode::Own),
        ("--ipc", namespaces::ipc(config)? != Mode::Own),
    ];
    match others.iter().find(|(_, foreign)| *foreign) {
        Some((option, _)) => Err(Error::invalid(
            "namespace",
            format!(
                "{option} of the host or of another container and a user namespace exclude one \
                 another: give --userns host"
            ),
        )),
        None => Ok(()),
    }
}

/// The range, as the document has it: root is its first id.
pub(super) fn mappings(ids: IdRange) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    let mapping = LinuxIdMappingBuilder::default()
        .container_id(0u32)
        .host_id(ids.first)
        .size(ids.size)
        .build();
    mapping.map(|mapping| vec![mapping])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_that_are_known_give_ids_of_ones_own() {
        for host in ["", "host"] {
            assert_eq!(size(host).unwrap(), None);
        }
        for own in ["private", "auto", "auto:size=65536"] {
            assert_eq!(size(own).unwrap(), Some(SIZE), "{own}");
        }
        assert_eq!(size("auto:size=1").unwrap(), Some(1));
        let bad = [
            "keep-id",
            "auto:",
            "auto:size=",
            "auto:size=0",
            "auto:size=16777217",
            "Host",
        ];
        for bad in bad {
            let error = size(bad).unwrap_err().to_string();
            assert!(error.contains("--userns") && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn what_belongs_to_others_is_refused_with_ids_of_ones_own() {
        let config = |network: &str, pid: &str, ipc: &str| CreateRequest {
            userns: "auto".to_owned(),
            network: network.to_owned(),
            pid_mode: pid.to_owned(),
            ipc_mode: ipc.to_owned(),
            ..CreateRequest::default()
        };
        check(&config("", "", "private")).unwrap();
        for (config, option) in [
            (config("host", "", ""), "--network"),
            (config("container:a", "", ""), "--network"),
            (config("", "host", ""), "--pid"),
            (config("", "", "container:a"), "--ipc"),
        ] {
            let error = check(&config).unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
            let host = CreateRequest {
                userns: "host".to_owned(),
                ..config
            };
            check(&host).unwrap();
        }
    }
}
