//! Programs of others that are told of a container's state.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use oci_spec::runtime::{Hook, Spec, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Error, Result};

/// What is kept of a hook's complaints; one that says more is told that nobody listens (row D12).
const SAID_BYTES_MAX: u64 = 16 * 1024;

/// What hooks are told, but for the container's process.
pub(crate) fn state(spec: &Spec, id: &str, bundle: &Path) -> State {
    let mut state = State::default();
    state
        .set_version(spec.version().clone())
        .set_id(id.to_owned())
        .set_bundle(bundle.into())
        .set_annotations(Some(spec.annotations().clone().unwrap_or_default()));
    state
}

/// Runs hooks in order, up to the first that fails.
pub(crate) fn run(hooks: Option<&Vec<Hook>>, state: &State) -> Result<()> {
    let mut hooks = hooks.into_iter().flatten();
    hooks.try_for_each(|hook| run_one(hook, state))
}

/// Runs all hooks, whatever becomes of those before; the first failure.
pub(crate) fn run_all(hooks: Option<&Vec<Hook>>, state: &State) -> Result<()> {
    let hooks = hooks.into_iter().flatten();
    let ended: Vec<Result<()>> = hooks.map(|hook| run_one(hook, state)).collect();
    ended.into_iter().collect()
}

fn run_one(hook: &Hook, state: &State) -> Result<()> {
    let told = serde_json::to_vec(state).map_err(io::Error::from);
    let ended = told.and_then(|told| tell(hook, &told));
    let failed = |message| Error::Hook {
        path: hook.path().clone(),
        message,
    };
    match ended {
        Ok(None) => Ok(()),
        Ok(Some(message)) => Err(failed(message)),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Starts it and waits; what it says if it fails.
fn tell(hook: &Hook, state: &[u8]) -> io::Result<Option<String>> {
    let mut command = Command::new(hook.path());
    let args = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    let env = hook.env().iter().flatten();
    command.env_clear();
    command.envs(env.filter_map(|variable| variable.split_once('=')));
    // No null device either: in a container that is a file of the container's.
    command.stdin(readable(state)?).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    if let Some(seconds) = hook.timeout()
        && !ends_within(&child, seconds)?
    {
        child.kill()?;
        child.wait()?;
        return Ok(Some(format!("not done in {seconds} s")));
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(SAID_BYTES_MAX).read_to_end(&mut said)?;
    }
    let status = child.wait()?;
    let said = String::from_utf8_lossy(&said);
    let failed = !status.success();
    Ok(failed.then(|| format!("{status}: {}", said.trim())))
}

/// A file, which a hook need not read, as it would have to read a pipe.
fn readable(text: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("state", MemfdFlags::CLOEXEC)?);
    file.write_all(text)?;
    file.rewind()?;
    Ok(file)
}

fn ends_within(child: &Child, seconds: i64) -> io::Result<bool> {
    let pid = Pid::from_child(child);
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let patience = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let mut ended = [PollFd::new(&handle, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| poll(&mut ended, Some(&patience)))? > 0)
}
