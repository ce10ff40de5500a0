//! Programs of others that are told of a container's state.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use oci_spec::runtime::{Hook, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{Error, Result};

/// What is kept of a hook's complaints; one that says more is told that nobody listens (row D12).
const SAID_BYTES_MAX: u64 = 16 * 1024;

/// Runs hooks in order, up to the first that fails.
pub(crate) fn run(hooks: Option<&Vec<Hook>>, state: &State) -> Result<()> {
    for hook in hooks.into_iter().flatten() {
        let told = serde_json::to_vec(state).map_err(io::Error::from);
        let ended = told.and_then(|told| run_one(hook, &told));
        let failed = |message| Error::Hook {
            path: hook.path().clone(),
            message,
        };
        match ended {
            Ok(None) => {}
            Ok(Some(message)) => return Err(failed(message)),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Ok(())
}

/// Runs one; what it says if it fails.
fn run_one(hook: &Hook, state: &[u8]) -> io::Result<Option<String>> {
    let mut command = Command::new(hook.path());
    let args = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    let env = hook.env().iter().flatten();
    command.env_clear();
    command.envs(env.filter_map(|variable| variable.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        drop(stdin.write_all(state));
    }
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
