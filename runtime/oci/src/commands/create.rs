//! `create`: everything but the command itself.

use std::path::Path;

use oci_spec::runtime::{ContainerState, Hook, LinuxNamespaceType, Spec};
use orlop_shim::oci;

use super::write_pid;
use crate::args::Create;
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::groups::Groups;
use crate::inherited::Descriptors;
use crate::state::{Container, Record, reserve};
use crate::{console, hooks};

/// Makes a container, whose command gets `kept` as well. On error nothing is left of it.
pub(super) fn create(
    root: &Path,
    args: &Create,
    by_systemd: bool,
    kept: Descriptors,
) -> Result<Container> {
    let mut bundle = Bundle::read(&args.bundle)?;
    kept.announce(&mut bundle.spec);
    let directory = reserve(root, &args.id)?;
    let groups = Groups::create(&bundle.spec, &args.id, by_systemd);
    let made = groups.and_then(|groups| in_groups(&directory, &bundle, args, groups, kept.count()));
    if made.is_err() {
        drop(std::fs::remove_dir_all(&directory));
    }
    made.and_then(|()| Container::open(root, &args.id))
}

fn in_groups(
    directory: &Path,
    bundle: &Bundle,
    args: &Create,
    groups: Groups,
    kept: u32,
) -> Result<()> {
    let making = Making {
        directory,
        bundle,
        args,
        groups: &groups,
    };
    let made = making.start(kept);
    if made.is_err() {
        groups.abandon();
    }
    made
}

/// Whether it is to be among the processes of another container: what has files of the host must not be
/// seen there, so that the hooks of the host come later.
fn joins_processes(spec: &Spec) -> bool {
    let namespaces = spec.linux().iter().flat_map(|linux| linux.namespaces());
    let mut namespaces = namespaces.flatten();
    namespaces.any(|one| one.typ() == LinuxNamespaceType::Pid && one.path().is_some())
}

/// A container that is being made.
#[derive(Debug)]
struct Making<'a> {
    directory: &'a Path,
    bundle: &'a Bundle,
    args: &'a Create,
    groups: &'a Groups,
}

impl Making<'_> {
    fn start(&self, kept: u32) -> Result<()> {
        let process = self.bundle.spec.process().as_ref();
        let terminal = process.and_then(|process| process.terminal());
        let files = &self.args.process;
        let socket = files.console_socket.as_deref();
        let console = console::connect(socket, terminal.unwrap_or(false))?;
        let container = oci::Container {
            spec: &self.bundle.spec,
            rootfs: &self.bundle.rootfs,
            cgroups: &self.groups.all,
            directory: self.directory,
        };
        let started = container.create(self, kept)?;
        let sent = match (&console, &started.terminal) {
            (Some(stream), Some(master)) => {
                let path = socket.unwrap_or(Path::new(""));
                console::send(stream, master).map_err(Error::file("send the terminal to", path))
            }
            _ => Ok(()),
        };
        let told = sent.and_then(|()| write_pid(files.pid_file.as_deref(), started.pid()));
        if told.is_err() {
            started.abandon();
        }
        told
    }

    /// What is to be kept of it.
    fn container(&self, pid: i32) -> Result<Container> {
        let stat = format!("/proc/{pid}/stat");
        Ok(Container {
            directory: self.directory.into(),
            record: Record {
                id: self.args.id.clone(),
                pid,
                started: oci::start_time(pid).map_err(Error::file("read", stat))?,
                bundle: self.bundle.path.clone(),
                rootfs: self.bundle.rootfs.clone(),
                created: jiff::Timestamp::now(),
                cgroups: self.groups.all.clone(),
                scope: self.groups.scope.clone(),
                annotations: self.bundle.spec.annotations().clone().unwrap_or_default(),
            },
        })
    }

    /// Writes it down, and lets the hooks of the host take part in it.
    fn keep(&self, pid: i32) -> Result<()> {
        let spec = &self.bundle.spec;
        let container = self.container(pid)?;
        container.keep(spec)?;
        let state = container.state(ContainerState::Creating, spec);
        let all = spec.hooks().as_ref();
        hooks::run(all.and_then(|all| all.prestart().as_ref()), &state)?;
        hooks::run(all.and_then(|all| all.create_runtime().as_ref()), &state)
    }

    /// Runs hooks in the container, which knows itself by another number.
    fn run_inside(&self, hooks: Option<&Vec<Hook>>, status: ContainerState) -> Result<()> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let mut state = hooks::state(&self.bundle.spec, &self.args.id, &self.bundle.path);
        state.set_status(status).set_pid(Some(own));
        hooks::run(hooks, &state)
    }
}

impl oci::Hooks for Making<'_> {
    fn early(&self) -> bool {
        let Some(all) = self.bundle.spec.hooks() else {
            return false;
        };
        let given = |hooks: &Option<Vec<Hook>>| hooks.iter().flatten().next().is_some();
        let of_host = given(all.prestart()) || given(all.create_runtime());
        given(all.create_container()) || (of_host && !joins_processes(&self.bundle.spec))
    }

    fn create_runtime(&self, pid: i32) -> std::result::Result<(), String> {
        self.keep(pid).map_err(|error| error.message())
    }

    fn create_container(&self) -> std::result::Result<(), String> {
        let hooks = self.bundle.spec.hooks().as_ref();
        let hooks = hooks.and_then(|all| all.create_container().as_ref());
        let ended = self.run_inside(hooks, ContainerState::Creating);
        ended.map_err(|error| error.message())
    }

    fn start_container(&self) -> std::result::Result<(), String> {
        let hooks = self.bundle.spec.hooks().as_ref();
        let hooks = hooks.and_then(|all| all.start_container().as_ref());
        let ended = self.run_inside(hooks, ContainerState::Created);
        ended.map_err(|error| error.message())
    }
}
