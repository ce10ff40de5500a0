//! `create`: everything but the command itself.

use std::path::Path;

use oci_spec::runtime::ContainerState;
use orlop_shim::config::Cgroup;
use orlop_shim::oci::{self, Started};

use super::write_pid;
use crate::args::Create;
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::state::{Container, Record, reserve};
use crate::{console, groups, hooks};

/// Makes a container. On error nothing is left of it.
pub(super) fn create(root: &Path, args: &Create) -> Result<Container> {
    let bundle = Bundle::read(&args.bundle)?;
    let directory = reserve(root, &args.id)?;
    let made = in_groups(&directory, &bundle, args);
    if made.is_err() {
        drop(std::fs::remove_dir_all(&directory));
    }
    made
}

fn in_groups(directory: &Path, bundle: &Bundle, args: &Create) -> Result<Container> {
    let cgroups = groups::create(&bundle.spec, &args.id)?;
    let made = start(directory, bundle, args, &cgroups);
    if made.is_err() {
        oci::kill_all(&cgroups);
        drop(groups::remove(&cgroups));
    }
    made
}

fn start(
    directory: &Path,
    bundle: &Bundle,
    args: &Create,
    cgroups: &[Cgroup],
) -> Result<Container> {
    let process = bundle.spec.process().as_ref();
    let terminal = process.and_then(|process| process.terminal());
    let socket = args.process.console_socket.as_deref();
    let console = console::connect(socket, terminal.unwrap_or(false))?;
    let container = oci::Container {
        spec: &bundle.spec,
        rootfs: &bundle.rootfs,
        cgroups,
        directory,
    };
    let started = container.create()?;
    let kept = keep(directory, bundle, args, cgroups, &started);
    let told = kept.and_then(|container| {
        if let (Some(stream), Some(master)) = (&console, &started.terminal) {
            let path = socket.unwrap_or(Path::new(""));
            console::send(stream, master).map_err(Error::file("send the terminal to", path))?;
        }
        write_pid(args.process.pid_file.as_deref(), started.pid())?;
        Ok(container)
    });
    if told.is_err() {
        started.abandon();
    }
    told
}

/// Writes down what there is now, and lets hooks take part in it.
fn keep(
    directory: &Path,
    bundle: &Bundle,
    args: &Create,
    cgroups: &[Cgroup],
    started: &Started,
) -> Result<Container> {
    let pid = started.pid();
    let began = oci::start_time(pid).map_err(Error::file("read", format!("/proc/{pid}/stat")))?;
    let container = Container {
        directory: directory.into(),
        record: Record {
            id: args.id.clone(),
            pid,
            started: began,
            bundle: bundle.path.clone(),
            rootfs: bundle.rootfs.clone(),
            created: jiff::Timestamp::now(),
            cgroups: cgroups.to_vec(),
            annotations: bundle.spec.annotations().clone().unwrap_or_default(),
        },
    };
    container.keep(&bundle.spec)?;
    if let Some(all) = bundle.spec.hooks() {
        let state = container.state(ContainerState::Creating, &bundle.spec);
        hooks::run(all.prestart().as_ref(), &state)?;
        hooks::run(all.create_runtime().as_ref(), &state)?;
    }
    Ok(container)
}
