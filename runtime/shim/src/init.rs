//! A first process of our own: it reaps orphans and passes signals on to the command, which is its
//! child. It is the shim's child that stays behind instead of executing anything, under the command's
//! own confinement and with nothing open.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use orlop_sys::process::{self as sys, Fork};

use crate::channel::Channel;
use crate::error::{Error, Result};

/// What it is called among the container's processes.
const NAME: &str = "init";
/// Its exit code if it cannot do its work.
const FAILED: i32 = 125;

fn setup(step: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Setup { step, source }
}

/// Forks. Returns in the child, which becomes the command; the caller stays, once `confine` confined it.
pub(crate) fn stay_behind(confine: impl FnOnce() -> Result<()>) -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| setup("reaping")(e.into()))?;
    // What comes from here on waits until it is asked for; the command unblocks its own.
    SigSet::all()
        .thread_block()
        .map_err(|e| setup("signals")(e.into()))?;
    let (ours, theirs) = Channel::pair().map_err(setup("channel"))?;
    match sys::fork(0, None).map_err(Error::Namespaces)? {
        Fork::Child => {
            drop(ours);
            become_command(&theirs)
        }
        Fork::Parent { pid, pidfd } => {
            drop((theirs, pidfd));
            match stay(pid, ours, confine)? {}
        }
    }
}

/// A process group of its own, in front of the terminal, once the first process has let go of
/// everything: a command that may trace finds nothing of the host in it.
fn become_command(init: &Channel) -> Result<()> {
    if !init.wait_go() {
        sys::exit_now(FAILED);
    }
    rustix::process::setpgid(None, None).map_err(|e| setup("process group")(e.into()))?;
    let stdin = rustix::stdio::stdin();
    if rustix::termios::isatty(stdin) {
        let own = rustix::process::getpid();
        rustix::termios::tcsetpgrp(stdin, own).map_err(|e| setup("terminal")(e.into()))?;
    }
    Ok(())
}

fn stay(
    command: i32,
    channel: Channel,
    confine: impl FnOnce() -> Result<()>,
) -> Result<Infallible> {
    sys::rename(NAME).map_err(setup("name"))?;
    confine()?;
    let signals = hold_signals().map_err(setup("signals"))?;
    let mut keep = [channel.as_fd().as_raw_fd(), signals.as_raw_fd()];
    sys::close_others(&mut keep).map_err(setup("descriptors"))?;
    if channel.go().is_err() {
        sys::exit_now(FAILED);
    }
    drop(channel);
    sys::exit_now(serve(command, &signals))
}

/// Signals come to be read from now on.
pub(crate) fn hold_signals() -> io::Result<SignalFd> {
    let all = SigSet::all();
    all.thread_block()?;
    Ok(SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC)?)
}

/// Passes signals on until the command ends; its exit code.
pub(crate) fn serve(command: i32, signals: &SignalFd) -> i32 {
    loop {
        match signals.read_signal() {
            Ok(Some(info)) if info.ssi_signo == Signal::SIGCHLD as u32 => {
                if let Some(code) = reap(command) {
                    return code;
                }
            }
            Ok(Some(info)) => {
                // A command that is gone by now is reaped next.
                drop(sys::kill(
                    command,
                    i32::try_from(info.ssi_signo).unwrap_or(0),
                ));
            }
            Ok(None) | Err(Errno::EINTR) => {}
            Err(_) => return FAILED,
        }
    }
}

/// Reaps all that ended; the exit code of the command, if it is among them.
fn reap(command: i32) -> Option<i32> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == Pid::from_raw(command) => {
                ended = Some(code)
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == Pid::from_raw(command) => {
                ended = Some(128 + signal as i32);
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}
