//! Links, addresses and routes: the part of rtnetlink(7) that containers need.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::bridge::Bridge;
use super::family::{Address, Family};
use super::netlink::{
    Answer, Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Notice, Socket,
};
use super::subnet::Subnet;

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_DELROUTE: u16 = 25;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const RT_SCOPE_HOST: u8 = 254;
/// Of `lo`, in every network namespace.
const LOOPBACK_INDEX: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTMSG_BYTES: usize = 12;
// linux/fib_rules.h; a rule's message begins with as many bytes as a route's.
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FR_ACT_TO_TBL: u8 = 1;
// linux/if_link.h, if_addr.h, veth.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const AF_INET6: u16 = 10;
/// There if the kernel has IPv6.
const IPV6: &str = "/proc/sys/net/ipv6";
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFINFOMSG_BYTES: usize = 16;
const IFADDRMSG_BYTES: usize = 8;
/// Use an address at once, without asking for one that has it too.
const IFA_F_NODAD: u8 = 2;
const IFF_UP: u32 = 1;
const IF_OPER_UP: u8 = 6;
const AF_UNSPEC: u8 = 0;

/// How often, and how long, the kernel is asked whether something is as it was wanted.
const PAUSE: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(2);

/// `RTNLGRP_LINK`, as a bit.
pub(crate) const LINK_CHANGES: u32 = 1;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Index of the bridge that it is a port of; 0: none.
    pub(crate) master: u32,
    /// Whether packets that are sent arrive.
    pub(crate) running: bool,
}

/// A veth pair: `host` is a port of `bridge` in this namespace, `eth0` is in the other one.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) host: &'a str,
    pub(crate) bridge: u32,
    pub(crate) inside: &'a str,
    pub(crate) inside_mac: Mac,
    /// Does not reach other isolated ports of the bridge.
    pub(crate) isolated: bool,
    /// Bytes; absent: the kernel's default.
    pub(crate) mtu: Option<u32>,
    pub(crate) namespace: BorrowedFd<'a>,
}

/// The routing side of one network namespace.
#[derive(Debug)]
pub(crate) struct Routes {
    socket: Socket,
}

impl Routes {
    /// Of the network namespace of this thread.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: Socket::open(None)?,
        })
    }

    /// All interfaces.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let message = Message::new(RTM_GETLINK, NLM_F_DUMP).fixed(&ifinfo(0, 0, 0));
        let answers = self.socket.dump(message)?;
        Ok(answers.iter().filter_map(link_of).collect())
    }

    /// The interface of this name.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let message = Message::new(RTM_GETLINK, NLM_F_ACK)
            .fixed(&ifinfo(0, 0, 0))
            .text(IFLA_IFNAME, name);
        match self.socket.dump(message) {
            Err(error) if is_gone(&error) => Ok(None),
            answers => Ok(answers?.first().and_then(link_of)),
        }
    }

    /// Waits until an interface carries packets, which it does some time after it was brought up: the
    /// kernel drops what is sent before, and an ARP request that was dropped costs a second.
    pub(crate) fn wait_until_running(&mut self, name: &str) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.link(name)? {
                Some(link) if link.running => return Ok(()),
                Some(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Some(_) => return Err(io::ErrorKind::TimedOut.into()),
                None => return Err(io::ErrorKind::NotFound.into()),
            }
        }
    }

    /// Makes a bridge that is down.
    pub(crate) fn add_bridge(&mut self, name: &str, mac: Mac, mtu: Option<u32>) -> io::Result<()> {
        let message = Message::new(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .fixed(&ifinfo(0, 0, 0))
            .text(IFLA_IFNAME, name);
        let message = with_mtu(message, mtu)
            .attribute(IFLA_ADDRESS, &mac)
            .nest(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"));
        self.socket.request(vec![message])
    }

    /// Makes a veth pair: the host's end up, the other end still down. With a bridge, the host's end is
    /// a port of it, in hairpin mode: with `bridge-nf-call-iptables`, what a container sends to a
    /// published port of its own comes back by the port that it came from.
    pub(crate) fn add_veth(&mut self, veth: &Veth<'_>) -> io::Result<()> {
        let namespace = u32::try_from(veth.namespace.as_raw_fd()).unwrap_or(u32::MAX);
        let message = Message::new(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .fixed(&ifinfo(0, 0, 0))
            .text(IFLA_IFNAME, veth.host)
            .ne32(IFLA_MASTER, veth.bridge);
        let message = with_mtu(message, veth.mtu).nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    with_mtu(m.fixed(&ifinfo(0, 0, 0)), veth.mtu)
                        .text(IFLA_IFNAME, veth.inside)
                        .attribute(IFLA_ADDRESS, &veth.inside_mac)
                        .ne32(IFLA_NET_NS_FD, namespace)
                })
            })
        });
        let mut messages = vec![message];
        if veth.bridge != 0 {
            messages.push(bridge_port(veth.host, veth.isolated));
        }
        if Path::new(IPV6).exists() {
            messages.push(without_ipv6(veth.host));
        }
        messages.push(up_by_name(veth.host));
        self.socket.request(messages)
    }

    /// Brings an interface up.
    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let message = Message::new(RTM_NEWLINK, NLM_F_ACK).fixed(&ifinfo(index, IFF_UP, IFF_UP));
        self.socket.request(vec![message])
    }

    /// Makes an interface a port of a bridge, as [`Routes::add_veth`] does.
    pub(crate) fn set_master(&mut self, link: &Link, bridge: &Bridge) -> io::Result<()> {
        let message = Message::new(RTM_NEWLINK, NLM_F_ACK)
            .fixed(&ifinfo(link.index, IFF_UP, IFF_UP))
            .ne32(IFLA_MASTER, bridge.index);
        let port = bridge_port(&link.name, !bridge.between);
        self.socket.request(vec![message, port])
    }

    /// Removes an interface by name; one that is not there is no error. Of a veth pair both ends go.
    pub(crate) fn delete(&mut self, name: &str) -> io::Result<()> {
        let message = Message::new(RTM_DELLINK, NLM_F_ACK)
            .fixed(&ifinfo(0, 0, 0))
            .text(IFLA_IFNAME, name);
        match self.socket.request(vec![message]) {
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    /// Removes interfaces together, which costs the kernel little more than one: it waits for every
    /// processor to let go of them, once. `group` is a number that no other interface has. Those that
    /// are not there are no error.
    pub(crate) fn delete_together(&mut self, names: &[&str], group: u32) -> io::Result<()> {
        if let [name] = names {
            return self.delete(name);
        }
        for name in names {
            let message = Message::new(RTM_NEWLINK, NLM_F_ACK)
                .fixed(&ifinfo(0, 0, 0))
                .text(IFLA_IFNAME, name)
                .ne32(IFLA_GROUP, group);
            match self.socket.request(vec![message]) {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        let message = Message::new(RTM_DELLINK, NLM_F_ACK)
            .fixed(&ifinfo(0, 0, 0))
            .ne32(IFLA_GROUP, group);
        match self.socket.request(vec![message]) {
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    /// Gives an interface an address and brings it up, in one exchange.
    pub(crate) fn add_address<A: Address>(
        &mut self,
        index: u32,
        address: A,
        subnet: Subnet<A>,
    ) -> io::Result<()> {
        self.socket.request(vec![
            address_message(RTM_NEWADDR, index, address, subnet),
            Message::new(RTM_NEWLINK, NLM_F_ACK).fixed(&ifinfo(index, IFF_UP, IFF_UP)),
        ])
    }

    /// Takes an address from an interface.
    pub(crate) fn delete_address<A: Address>(
        &mut self,
        index: u32,
        address: A,
        subnet: Subnet<A>,
    ) -> io::Result<()> {
        let message = address_message(RTM_DELADDR, index, address, subnet);
        self.socket.request(vec![message])
    }

    /// The default route of a family.
    pub(crate) fn add_default_route<A: Address>(
        &mut self,
        index: u32,
        gateway: A,
    ) -> io::Result<()> {
        let mut fixed = [0; RTMSG_BYTES];
        fixed[0] = A::FAMILY as u8;
        fixed[4] = RT_TABLE_MAIN;
        fixed[5] = RTPROT_STATIC;
        fixed[7] = RTN_UNICAST;
        let message = Message::new(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE)
            .fixed(&fixed)
            .attribute(RTA_GATEWAY, &gateway.bytes())
            .ne32(RTA_OIF, index);
        self.socket.request(vec![message])
    }

    /// Waits until the kernel answers for an IPv6 address, which it does some time after an interface was
    /// given it: a neighbour whose question was lost asks again a second later. A kernel that tells of
    /// no such moment is not waited for any longer.
    pub(crate) fn wait_until_answered(&mut self, address: Ipv6Addr) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.answers(address)? && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn answers(&mut self, address: Ipv6Addr) -> io::Result<bool> {
        let mut family = [0; RTMSG_BYTES];
        family[0] = Family::V6 as u8;
        let routes = Message::new(RTM_GETROUTE, NLM_F_DUMP).fixed(&family);
        let own = address.octets();
        let is_own = |route: &Answer| {
            let is_local = route.payload.get(7) == Some(&RTN_LOCAL);
            is_local && route.attribute(RTMSG_BYTES, RTA_DST) == Some(&own)
        };
        Ok(self.socket.dump(routes)?.iter().any(is_own))
    }

    /// Calls every address the host's own in packets with this mark. Idempotent.
    pub(crate) fn deliver_marked(&mut self, mark: u32) -> io::Result<()> {
        let create = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let route = marked_route(RTM_NEWROUTE, create, mark);
        let rule = marked_rule(RTM_NEWRULE, create, mark);
        // The route first: a table without it would send them on.
        for message in [route, rule] {
            match self.socket.request(vec![message]) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Takes that back; where it is not so is no error.
    pub(crate) fn forget_marked(&mut self, mark: u32) -> io::Result<()> {
        let rule = marked_rule(RTM_DELRULE, NLM_F_ACK, mark);
        let route = marked_route(RTM_DELROUTE, NLM_F_ACK, mark);
        for message in [rule, route] {
            match self.socket.request(vec![message]) {
                Err(error) if is_gone(&error) || is_no_route(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Every subnet of a family that an interface other than `except` has an address in or a route to.
    /// The default route is none.
    pub(crate) fn subnets<A: Address>(&mut self, except: u32) -> io::Result<Vec<Subnet<A>>> {
        let mut family = [0; IFADDRMSG_BYTES];
        family[0] = A::FAMILY as u8;
        let addresses = Message::new(RTM_GETADDR, NLM_F_DUMP).fixed(&family);
        let mut found: Vec<(u32, Subnet<A>)> = Vec::new();
        found.extend(
            self.socket
                .dump(addresses)?
                .iter()
                .filter_map(subnet_of_address),
        );
        let mut family = [0; RTMSG_BYTES];
        family[0] = A::FAMILY as u8;
        let routes = Message::new(RTM_GETROUTE, NLM_F_DUMP).fixed(&family);
        found.extend(self.socket.dump(routes)?.iter().filter_map(subnet_of_route));
        let others = found.into_iter().filter(|(index, _)| *index != except);
        Ok(others.map(|(_, subnet)| subnet).collect())
    }
}

/// The name of the interface that the kernel says is gone.
pub(crate) fn removed_link(notice: &Notice) -> Option<String> {
    let link = link_of(&notice.body).filter(|_| notice.kind == RTM_DELLINK)?;
    Some(link.name)
}

/// Whether the kernel says that there is no such interface.
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NODEV | Errno::NOENT | Errno::NXIO)
    )
}

/// Whether the kernel says that there is no such route.
fn is_no_route(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::SRCH)
}

/// A route in the table of this number: every address is the host's.
fn marked_route(kind: u16, flags: u16, table: u32) -> Message {
    let mut fixed = [0; RTMSG_BYTES];
    fixed[0] = Family::V4 as u8;
    fixed[5] = RTPROT_STATIC;
    fixed[6] = RT_SCOPE_HOST;
    fixed[7] = RTN_LOCAL;
    Message::new(kind, flags)
        .fixed(&fixed)
        .ne32(RTA_OIF, LOOPBACK_INDEX)
        .ne32(RTA_TABLE, table)
}

/// Packets with this mark are routed by the table of the same number.
fn marked_rule(kind: u16, flags: u16, mark: u32) -> Message {
    let mut fixed = [0; RTMSG_BYTES];
    fixed[0] = Family::V4 as u8;
    fixed[7] = FR_ACT_TO_TBL;
    Message::new(kind, flags)
        .fixed(&fixed)
        .ne32(FRA_FWMARK, mark)
        .ne32(FRA_FWMASK, u32::MAX)
        .ne32(FRA_TABLE, mark)
}

/// `struct ifinfomsg`.
fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG_BYTES] {
    let mut bytes = [0; IFINFOMSG_BYTES];
    bytes[0] = AF_UNSPEC;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn with_mtu(message: Message, mtu: Option<u32>) -> Message {
    match mtu {
        Some(mtu) => message.ne32(IFLA_MTU, mtu),
        None => message,
    }
}

/// A port of a bridge may send what it received; an isolated one reaches no other isolated one.
fn bridge_port(port: &str, isolated: bool) -> Message {
    Message::new(RTM_NEWLINK, NLM_F_ACK)
        .fixed(&ifinfo(0, 0, 0))
        .text(IFLA_IFNAME, port)
        .nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_SLAVE_KIND, "bridge")
                .nest(IFLA_INFO_SLAVE_DATA, |m| {
                    m.attribute(IFLA_BRPORT_MODE, &[1])
                        .attribute(IFLA_BRPORT_ISOLATED, &[u8::from(isolated)])
                })
        })
}

/// An interface that gives itself no IPv6 address when it comes up.
fn without_ipv6(name: &str) -> Message {
    Message::new(RTM_NEWLINK, NLM_F_ACK)
        .fixed(&ifinfo(0, 0, 0))
        .text(IFLA_IFNAME, name)
        .nest(IFLA_AF_SPEC, |m| {
            m.nest(AF_INET6, |m| {
                m.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE])
            })
        })
}

fn up_by_name(name: &str) -> Message {
    Message::new(RTM_NEWLINK, NLM_F_ACK)
        .fixed(&ifinfo(0, IFF_UP, IFF_UP))
        .text(IFLA_IFNAME, name)
}

fn address_message<A: Address>(kind: u16, index: u32, address: A, subnet: Subnet<A>) -> Message {
    // What is EXCL for a new one is BULK when one is deleted.
    let flags = match kind {
        RTM_NEWADDR => NLM_F_CREATE | NLM_F_EXCL,
        _ => 0,
    };
    let mut fixed = [0; IFADDRMSG_BYTES];
    fixed[0] = A::FAMILY as u8;
    fixed[1] = subnet.prefix();
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    if A::FAMILY == Family::V6 {
        fixed[2] = IFA_F_NODAD;
    }
    let message = Message::new(kind, NLM_F_ACK | flags)
        .fixed(&fixed)
        .attribute(IFA_LOCAL, &address.bytes())
        .attribute(IFA_ADDRESS, &address.bytes());
    match A::FAMILY {
        Family::V4 => message.attribute(IFA_BROADCAST, &subnet.last().bytes()),
        Family::V6 => message,
    }
}

fn link_of(answer: &Answer) -> Option<Link> {
    let name = answer.attribute(IFINFOMSG_BYTES, IFLA_IFNAME)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Link {
        index: u32_of(answer.payload.get(4..8)?)?,
        name: String::from_utf8_lossy(name).into_owned(),
        master: answer
            .attribute(IFINFOMSG_BYTES, IFLA_MASTER)
            .and_then(u32_of)
            .unwrap_or(0),
        running: answer.attribute(IFINFOMSG_BYTES, IFLA_OPERSTATE) == Some(&[IF_OPER_UP]),
    })
}

fn subnet_of_address<A: Address>(answer: &Answer) -> Option<(u32, Subnet<A>)> {
    let prefix = *answer.payload.get(1)?;
    let index = u32_of(answer.payload.get(4..8)?)?;
    let address = answer
        .attribute(IFADDRMSG_BYTES, IFA_LOCAL)
        .or_else(|| answer.attribute(IFADDRMSG_BYTES, IFA_ADDRESS))?;
    Some((index, Subnet::new(address_of(address)?, prefix)?))
}

/// Routes without a device (blackhole, several next hops) count as another interface's.
fn subnet_of_route<A: Address>(answer: &Answer) -> Option<(u32, Subnet<A>)> {
    let prefix = *answer.payload.get(1)?;
    let destination = answer.attribute(RTMSG_BYTES, RTA_DST)?;
    let index = answer.attribute(RTMSG_BYTES, RTA_OIF).and_then(u32_of);
    let subnet = Subnet::new(address_of(destination)?, prefix)?;
    (prefix > 0).then_some((index.unwrap_or(0), subnet))
}

fn u32_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn address_of<A: Address>(bytes: &[u8]) -> Option<A> {
    let length = usize::from(A::BITS / 8);
    let mut number = [0; 16];
    number[16 - length..].copy_from_slice(bytes.get(..length)?);
    Some(A::of_number(u128::from_be_bytes(number)))
}
