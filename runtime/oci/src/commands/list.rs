//! `state`, `list` and `ps`.

use std::path::Path;

use orlop_shim::oci;

use super::say;
use crate::args::Format;
use crate::error::Result;
use crate::state::Container;

/// Tells what became of a container.
pub(super) fn state(container: &Container) -> Result<()> {
    say(&format!("{:#}", container.describe(&container.spec()?)))
}

/// Lists all containers.
pub(super) fn list(root: &Path, format: Format) -> Result<()> {
    let all = Container::all(root);
    if format == Format::Json {
        let described = all.iter().map(|one| Ok(one.describe(&one.spec()?)));
        let described: Vec<_> = described.collect::<Result<_>>()?;
        return say(&serde_json::Value::from(described).to_string());
    }
    say(&format!("{:<20} {:<8} {:<8} BUNDLE", "ID", "PID", "STATUS"))?;
    for container in all {
        let (record, status) = (&container.record, container.status().word());
        let bundle = record.bundle.display();
        say(&format!(
            "{:<20} {:<8} {status:<8} {bundle}",
            record.id, record.pid
        ))?;
    }
    Ok(())
}

/// Lists the ids of all containers.
pub(super) fn ids(root: &Path) -> Result<()> {
    let all = Container::all(root);
    all.iter().try_for_each(|one| say(&one.record.id))
}

/// Lists the numbers of a container's processes.
pub(super) fn ps(container: &Container, format: Format) -> Result<()> {
    let members = oci::members(&container.record.cgroups);
    if format == Format::Json {
        return say(&serde_json::Value::from(members).to_string());
    }
    say("PID")?;
    members.iter().try_for_each(|pid| say(&pid.to_string()))
}
