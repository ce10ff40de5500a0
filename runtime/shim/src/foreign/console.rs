//! The socket on which a runtime hands over a terminal (`--console-socket`).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::devices;
use crate::error::{Error, Result};
use crate::stdio::Streams;
use crate::supervise::listen;

/// The socket in the bundle.
pub(super) const NAME: &str = "console";
/// The longest message that comes with the terminal: its name.
const MESSAGE_BYTES_MAX: usize = 4096;

fn fail<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Terminal {
        step,
        source: error.into(),
    }
}

/// Where the terminal comes.
#[derive(Debug)]
pub(super) struct Console(UnixListener);

impl Console {
    /// Opens the socket, for one terminal.
    pub(super) fn listen(bundle: &Path) -> Result<Self> {
        listen(&bundle.join(NAME)).map(Self).map_err(fail("listen"))
    }

    /// The terminal of a runtime that has done its work, hence has sent it.
    pub(super) fn receive(&self, window: Option<(u16, u16)>) -> Result<Streams> {
        let (socket, _) = self.0.accept().map_err(fail("wait for the runtime's"))?;
        let mut message = [0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut message)],
            &mut control,
            flags,
        )
        .map_err(fail("receive the runtime's"))?;
        let master = control.drain().find_map(descriptor);
        let missing = io::Error::from(io::ErrorKind::UnexpectedEof);
        let master = master
            .ok_or(missing)
            .map_err(fail("receive the runtime's"))?;
        if let Some((rows, columns)) = window {
            devices::resize(&master, rows, columns).map_err(fail("set the window size"))?;
        }
        Streams::terminal(master)
    }
}

fn descriptor(message: RecvAncillaryMessage<'_>) -> Option<OwnedFd> {
    match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }
}
