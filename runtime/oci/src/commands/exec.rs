//! `exec`.

use std::os::fd::AsFd as _;
use std::path::Path;

use oci_spec::runtime::{Process, Spec, User};
use orlop_shim::oci;

use super::write_pid;
use crate::args::Exec;
use crate::bundle::{self, unsupported_of_process};
use crate::console;
use crate::error::{Error, Result};
use crate::inherited::Descriptors;
use crate::state::{Container, Status};

/// Starts one more process and, unless it is to be detached, waits for its end.
pub(super) fn exec(root: &Path, args: &Exec) -> Result<u8> {
    let kept = Descriptors::preserved(args.files.preserve_fds)?;
    let container = &Container::open(root, &args.id)?;
    let first = match container.status() {
        Status::Created | Status::Running => container.first(),
        other => return Err(Error::NoExec(other.word())),
    };
    let first = first.ok_or(Error::NoExec(Status::Stopped.word()))?;
    let spec = container.spec()?;
    let process = process(&spec, args)?;
    if let Some(what) = unsupported_of_process(&process) {
        return Err(Error::Unsupported(what));
    }
    let socket = args.files.console_socket.as_deref();
    let console = console::connect(socket, process.terminal().unwrap_or(false))?;
    let wait = (!args.detach).then(oci::Wait::prepare).transpose()?;
    let record = &container.record;
    let target = oci::Container {
        spec: &spec,
        rootfs: &record.rootfs,
        cgroups: &record.cgroups,
        directory: &container.directory,
    };
    let started = target.exec(first.as_fd(), &process, kept.count())?;
    if let (Some(stream), Some(master)) = (&console, &started.terminal) {
        let path = socket.unwrap_or(Path::new(""));
        console::send(stream, master).map_err(Error::file("send the terminal to", path))?;
    }
    write_pid(args.files.pid_file.as_deref(), started.pid())?;
    Ok(wait.map_or(0, |wait| wait.until_end(started.pid())))
}

/// The process of the file, or the container's own with what the options change.
fn process(spec: &Spec, args: &Exec) -> Result<Process> {
    if let Some(path) = &args.process {
        return bundle::read(path);
    }
    let own = spec.process().as_ref().ok_or(Error::Lacks("a process"))?;
    let mut process = own.clone();
    process.set_terminal(Some(args.tty));
    process.set_args(Some(args.args.clone()));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(args.env.iter().cloned());
    process.set_env(Some(env));
    if let Some(text) = &args.user {
        process.set_user(user(text)?);
    }
    Ok(process)
}

/// `UID[:GID]`.
fn user(text: &str) -> Result<User> {
    let wrong = || Error::User(text.to_owned());
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let mut user = User::default();
    user.set_uid(uid.parse().map_err(|_| wrong())?);
    user.set_gid(gid.parse().map_err(|_| wrong())?);
    Ok(user)
}
