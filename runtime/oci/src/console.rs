//! The terminal of a process, handed over to whoever listens at a socket.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::error::{Error, Result};

/// What accompanies the descriptor: its name, as runc has it.
const NAME: &[u8] = b"/dev/ptmx";

/// Connects to the socket, if the process is to have a terminal.
pub(crate) fn connect(socket: Option<&Path>, terminal: bool) -> Result<Option<UnixStream>> {
    match (socket, terminal) {
        (None, false) => Ok(None),
        (None, true) => Err(Error::NoConsole),
        (Some(_), false) => Err(Error::NoTerminal),
        (Some(path), true) => {
            let stream = UnixStream::connect(path);
            stream.map(Some).map_err(Error::file("connect to", path))
        }
    }
}

/// Sends the master.
pub(crate) fn send(stream: &UnixStream, master: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [master.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let slices = [IoSlice::new(NAME)];
    sendmsg(stream, &slices, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
