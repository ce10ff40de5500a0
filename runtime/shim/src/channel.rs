//! What the shim and a child of its say to each other between fork and exec: the child that it is
//! ready or why not, with its terminal; the shim when to go on. The `exec` closes the child's end.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use orlop_shim::protocol::Failure;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// The longest message.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// How long a child may take for its steps; only a hostile file system takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// From a child. A descriptor may come with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// All is prepared; the terminal's master comes with it, if there is one.
    Ready,
    /// It left its place to a process inside of the container, whose handle comes with this.
    Replaced { pid: i32 },
    /// It did not work.
    Failed { failure: Failure, message: String },
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Both ends, close-on-exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (ours, theirs) = socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
        rustix::net::sockopt::set_socket_timeout(
            &ours,
            rustix::net::sockopt::Timeout::Recv,
            Some(PATIENCE),
        )?;
        Ok((Self { socket: ours }, Self { socket: theirs }))
    }

    /// The descriptor, to be kept while others are closed.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The child's report, with a descriptor: the terminal's master, or its successor's handle.
    pub(crate) fn report(&self, report: &Report, fd: Option<&OwnedFd>) -> io::Result<()> {
        let mut message = serde_json::to_vec(report)?;
        message.truncate(MESSAGE_BYTES_MAX);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<BorrowedFd<'_>> = fd.iter().map(|fd| fd.as_fd()).collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        sendmsg(
            &self.socket,
            &[IoSlice::new(&message)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Waits for the child's report; `None` if its end was closed: by its `exec`, or by its death.
    pub(crate) fn wait(&self) -> io::Result<Option<(Report, Option<OwnedFd>)>> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received =
            rustix::io::retry_on_intr(|| recvmsg(&self.socket, &mut slices, &mut control, flags))?;
        let master = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if received.bytes == 0 {
            return Ok(None);
        }
        Ok(Some((
            serde_json::from_slice(&buffer[..received.bytes])?,
            master,
        )))
    }

    /// Lets the child go on to its next step.
    pub(crate) fn go(&self) -> io::Result<()> {
        rustix::net::send(&self.socket, &[1], SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// In the child: waits to be let on; false if the shim is gone.
    pub(crate) fn wait_go(&self) -> bool {
        let mut byte = [0; 1];
        let receive = || rustix::net::recv(&self.socket, &mut byte[..], RecvFlags::empty());
        matches!(rustix::io::retry_on_intr(receive), Ok((1, _)))
    }
}
