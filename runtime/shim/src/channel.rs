//! What the shim and a child of its say to each other between fork and exec: the child that it is
//! ready or why not, with its terminal; the shim when to go on. The `exec` closes the child's end.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use crate::protocol::Failure;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, recvmsg,
    sendmsg, socketpair, sockopt::Timeout,
};
use serde::{Deserialize, Serialize};

/// The longest message.
const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// How long a child may take for its steps; only a hostile file system takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// From a child. A descriptor may come with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It has its namespaces and mounts, and waits for the hooks of the host.
    Made,
    /// All is prepared; the terminal's master comes with it, if there is one.
    Ready,
    /// It left its place to a process inside of the container, whose handle comes with this.
    Replaced { pid: i32 },
    /// It did not work.
    Failed { failure: Failure, message: String },
}

/// Where a container waits for whoever lets it begin: a socket with a path.
#[derive(Debug)]
pub(crate) struct Gate {
    listener: OwnedFd,
}

impl Gate {
    /// A new one at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let listener = seqpacket()?;
        with_short_path(path, |address| rustix::net::bind(&listener, &address))?;
        rustix::net::listen(&listener, 1)?;
        Ok(Self { listener })
    }

    /// The descriptor, to be kept while others are closed.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Waits for whoever comes; one who goes away again without a word does not count.
    pub(crate) fn wait(&self) -> io::Result<Channel> {
        loop {
            let accept = || accept_with(&self.listener, SocketFlags::CLOEXEC);
            let socket = rustix::io::retry_on_intr(accept)?;
            let channel = Channel { socket };
            if channel.wait_go() {
                return Ok(channel);
            }
        }
    }
}

fn seqpacket() -> rustix::io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
}

/// Does something with the address of `path`, however long that is: by a handle of its directory.
fn with_short_path<T>(
    path: &Path,
    act: impl FnOnce(SocketAddrUnix) -> rustix::io::Result<T>,
) -> io::Result<T> {
    let parent = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let name = Path::new(path.file_name().unwrap_or_default());
    let short = Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name);
    Ok(act(SocketAddrUnix::new(short)?)?)
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
        rustix::net::sockopt::set_socket_timeout(&ours, Timeout::Recv, Some(PATIENCE))?;
        Ok((Self { socket: ours }, Self { socket: theirs }))
    }

    /// As the one who lets a container begin, at the gate with this path.
    pub(crate) fn at_gate(path: &Path) -> io::Result<Self> {
        let socket = seqpacket()?;
        with_short_path(path, |address| rustix::net::connect(&socket, &address))?;
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// The descriptor, to be kept while others are closed.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Waits for ever from now on: programs of others take their time.
    pub(crate) fn be_patient(&self) -> io::Result<()> {
        Ok(rustix::net::sockopt::set_socket_timeout(
            &self.socket,
            Timeout::Recv,
            None,
        )?)
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

    /// In the child: from now on [`Channel::is_deserted`] can be asked.
    pub(crate) fn stop_waiting(&self) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.socket)? | OFlags::NONBLOCK;
        Ok(rustix::fs::fcntl_setfl(&self.socket, flags)?)
    }

    /// In the child: whether the shim is gone. It asks by reading, which every filter lets through.
    pub(crate) fn is_deserted(&self) -> bool {
        let read = rustix::io::read(&self.socket, &mut [0; 1]);
        matches!(read, Ok(0) | Err(Errno::CONNRESET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_knows_whether_its_shim_is_gone() {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.go().unwrap();
        assert!(theirs.wait_go());
        theirs.stop_waiting().unwrap();
        assert!(!theirs.is_deserted());
        theirs.report(&Report::Ready, None).unwrap();
        drop(ours);
        assert!(theirs.is_deserted());
    }
}
