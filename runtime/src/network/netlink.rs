//! Netlink messages and the socket that carries them: what links, addresses and routes ([`super::route`])
//! and the packet filter ([`super::nft`]) have in common. Formats: `include/uapi/linux/netlink.h`.
//!
//! Calls block for as long as the kernel works on them (micro- to milliseconds); they belong on threads
//! that may block.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt,
};

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;

/// The kernel answers dumps in pieces of at most 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
/// The locks behind netlink can be held long on a host with thousands of interfaces, but not this long.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One message being written.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

/// One message of a dump, without its header.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) payload: Vec<u8>,
}

/// One message that nobody asked for.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) kind: u16,
    pub(crate) body: Answer,
}

/// Sockets that hear of changes, in the network namespace of the thread that opened them. They do not
/// block.
#[derive(Debug)]
pub(crate) enum Subscription {}

/// A socket to one subsystem of the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    /// Of the next message; answers to earlier ones, left over after a refusal, are told by it.
    sequence: u32,
}

// === impl Message ===

impl Message {
    /// A message of this type; `NLM_F_REQUEST` is implied.
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        Self { bytes }
    }

    /// The fixed part that follows the header, padded as the format wants.
    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// An attribute.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
        self
    }

    /// An attribute that is a text with its terminating NUL.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// An attribute in network byte order, as netfilter has them all.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// An attribute in the host's byte order, as routing has them.
    pub(crate) fn ne32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// An attribute that holds attributes.
    pub(crate) fn nest(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let start = self.open(kind | NLA_F_NESTED);
        self = inside(self);
        self.close(start);
        self
    }

    /// A nested attribute of which each item writes a part.
    pub(crate) fn nest_each<T>(
        self,
        kind: u16,
        items: impl IntoIterator<Item = T>,
        write: impl Fn(Self, T) -> Self,
    ) -> Self {
        self.nest(kind, |message| items.into_iter().fold(message, write))
    }

    /// The message with its length, and a sequence number, filled in.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.bytes[6], self.bytes[7]])
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    /// The length of an attribute excludes its padding.
    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

// === impl Answer ===

impl Answer {
    /// The first attribute of this type after `fixed` bytes.
    pub(crate) fn attribute(&self, fixed: usize, kind: u16) -> Option<&[u8]> {
        attributes(self.payload.get(fixed..)?)
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }
}

/// The attributes in `bytes`; ends at the first that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

// === impl Socket ===

impl Subscription {
    /// Opens a socket that hears these groups: a bit each, the first for group 1.
    pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(fd)
    }

    /// The notices of one datagram. WouldBlock without any; another error when some were lost.
    pub(crate) fn read(fd: BorrowedFd<'_>) -> io::Result<Vec<Notice>> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let (length, _) = rustix::net::recv(fd, &mut buffer[..], RecvFlags::empty())?;
        let messages = messages_in(buffer.get(..length).unwrap_or_default());
        let notice = |(kind, _, payload): (u16, u32, &[u8])| Notice {
            kind,
            body: Answer {
                payload: payload.to_vec(),
            },
        };
        Ok(messages.map(notice).collect())
    }
}

impl Socket {
    /// Opens a socket in the network namespace of this thread, to which it belongs for good. No
    /// protocol is rtnetlink, whose number is 0.
    pub(crate) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self { fd, sequence: 1 })
    }

    /// Sends messages in one call and waits for the acknowledgement of each that asks for one
    /// (`NLM_F_ACK`). The first refusal is the result; the rest is discarded.
    pub(crate) fn request(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let first = self.sequence;
        let mut bytes = Vec::new();
        let mut waiting = 0_usize;
        for message in messages {
            waiting += usize::from(message.flags() & NLM_F_ACK != 0);
            bytes.extend(message.finish(self.sequence));
            self.sequence += 1;
        }
        let ours = first..self.sequence;
        self.send(&bytes)?;
        while waiting > 0 {
            for (kind, sequence, payload) in messages_in(&self.receive()?) {
                if kind == NLMSG_ERROR && ours.contains(&sequence) {
                    error_of(payload).map_or(Ok(()), Err)?;
                    waiting = waiting.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    /// Sends a dump request and reads all of its answer.
    pub(crate) fn dump(&mut self, message: Message) -> io::Result<Vec<Answer>> {
        let sequence = self.sequence;
        self.sequence += 1;
        self.send(&message.finish(sequence))?;
        let mut answers = Vec::new();
        loop {
            for (kind, answers_to, payload) in messages_in(&self.receive()?) {
                match kind {
                    _ if answers_to != sequence => {}
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => return error_of(payload).map_or(Ok(answers), Err),
                    _ => answers.push(Answer {
                        payload: payload.to_vec(),
                    }),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let (length, _) = loop {
            match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// Type, sequence number and payload of each message in what one receive returned.
fn messages_in(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.get(..HEADER)?;
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let sequence = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, payload))
    })
}

/// The refusal in an `NLMSG_ERROR`; `None` for an acknowledgement.
fn error_of(payload: &[u8]) -> Option<io::Error> {
    let code = payload
        .get(..4)
        .map_or(i32::MIN, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    (code != 0).then(|| io::Error::from_raw_os_error(code.saturating_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_nest_and_are_padded_to_four() {
        let bytes = Message::new(0x10, 0)
            .text(1, "ab")
            .nest(2, |m| m.be32(3, 5))
            .finish(7);
        let expected: &[u8] = &[
            36, 0, 0, 0, 0x10, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, // header
            7, 0, 1, 0, b'a', b'b', 0, 0, // text, one byte of padding
            12, 0, 2, 0x80, 8, 0, 3, 0, 0, 0, 0, 5, // nest
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn reading_ends_at_what_does_not_fit() {
        let good = [8, 0, 1, 0, 9, 9, 9, 9];
        assert_eq!(attributes(&good).count(), 1);
        assert_eq!(attributes(&[200, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0, 9]).count(), 0);
        assert_eq!(messages_in(&[255; 20]).count(), 0);
    }

    #[test]
    fn a_refusal_is_an_error_and_an_acknowledgement_is_none() {
        assert!(error_of(&0_i32.to_ne_bytes()).is_none());
        let refused = error_of(&(-libc_enoent()).to_ne_bytes()).unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    }

    fn libc_enoent() -> i32 {
        rustix::io::Errno::NOENT.raw_os_error()
    }
}
