//! A host for each test, hosts outside of it, and servers and clients in any of them.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::net::netlink;

use crate::network::netlink::{Message, NLM_F_DUMP, Socket};
use crate::network::route::{Routes, Veth};
use crate::network::subnet::Subnet;
use crate::network::{Attachment, Network, PortRequest, Protocol, Publishing};

/// The host's address on the cable to `Place::neighbour(100)`.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// That neighbour's.
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(super) const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
pub(super) const ANYWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// How long an answer is waited for that has to come: a slow machine, or three silent name servers.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long one is waited for that must not come.
pub(super) const BRIEFLY: Duration = Duration::from_millis(400);

/// Runs a test in a host of its own, where `lo` is up.
pub(super) fn on_a_host<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    let host = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Routes::open().unwrap().set_up(1).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(body());
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a test in a host of its own that has an instance.
pub(super) fn with_a_network(body: impl AsyncFnOnce(Network) + Send + 'static) {
    with_a_network_that(Publishing::Forward, body);
}

/// The same where ports are published in some way.
pub(super) fn with_a_network_that(
    publishing: Publishing,
    body: impl AsyncFnOnce(Network) + Send + 'static,
) {
    on_a_host(move || async move {
        let root = tempfile::tempdir().unwrap();
        let network = instance_that(root.path(), publishing);
        body(network.clone()).await;
        network.release_pool().await.unwrap();
    });
}

/// A network namespace, from outside of it.
#[derive(Clone, Debug)]
pub(super) struct Place(Arc<OwnedFd>);

impl Place {
    /// The one that the calling thread is in.
    pub(super) fn here() -> Self {
        Self(Arc::new(
            File::open("/proc/thread-self/ns/net").unwrap().into(),
        ))
    }

    /// A container's.
    pub(super) fn of(attachment: &Attachment) -> Self {
        let file = File::open(attachment.netns.as_ref().unwrap()).unwrap();
        Self(Arc::new(file.into()))
    }

    /// The namespace itself.
    pub(super) fn handle(&self) -> OwnedFd {
        self.0.try_clone().unwrap()
    }

    /// Does something in it.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Lets a client in it work while the network's own tasks go on.
    pub(super) async fn meanwhile<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let place = self.clone();
        let worked = tokio::task::spawn_blocking(move || work(&place));
        worked.await.unwrap()
    }

    /// A neighbour of the calling thread's host, on a cable of their own: `198.51.NET.1` is the host,
    /// `.2` the neighbour, which sends everything to the host; by IPv6 `2001:db8:NET::1` and `::2`.
    pub(super) fn neighbour(net: u8) -> Self {
        let place = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            Self::here()
        });
        let place = place.join().unwrap();
        let subnet = Subnet::new(Ipv4Addr::new(198, 51, net, 0), 24).unwrap();
        let cable = format!("wan{net}");
        let mut host = Routes::open().unwrap();
        host.add_veth(&Veth {
            host: &cable,
            bridge: 0,
            inside: "eth0",
            inside_mac: [2, 0, 0, 0, 1, net],
            isolated: false,
            mtu: None,
            namespace: place.0.as_fd(),
        })
        .unwrap();
        let index = host.link(&cable).unwrap().unwrap().index;
        host.add_address(index, subnet.host(1), subnet).unwrap();
        let with_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, net.into(), 0, 0, 0, 0, 0);
        let ipv6 = Subnet::new(prefix, 64).unwrap();
        if with_ipv6 {
            host.add_address(index, ipv6.host(1), ipv6).unwrap();
        }
        place.run(|| {
            let mut routes = Routes::open().unwrap();
            routes.set_up(1).unwrap();
            let index = routes.link("eth0").unwrap().unwrap().index;
            routes.add_address(index, subnet.host(2), subnet).unwrap();
            routes.add_default_route(index, subnet.host(1)).unwrap();
            if with_ipv6 {
                routes.add_address(index, ipv6.host(2), ipv6).unwrap();
                routes.add_default_route(index, ipv6.host(1)).unwrap();
            }
        });
        place
    }

    /// A TCP server in it that tells every client the client's address and `name`.
    pub(super) fn serve(&self, port: u16, name: &str) -> Server {
        let listener = self.run(|| {
            let both = TcpListener::bind(("::", port));
            both.or_else(|_| TcpListener::bind(("0.0.0.0", port)))
                .unwrap()
        });
        listener.set_nonblocking(true).unwrap();
        let name = name.to_owned();
        Server::start(move || {
            if let Ok((mut stream, peer)) = listener.accept() {
                write!(stream, "{} {name}", peer.ip().to_canonical()).ok();
            }
        })
    }

    /// The same by UDP.
    pub(super) fn serve_udp(&self, address: (Ipv4Addr, u16), name: &str) -> Server {
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        socket.set_nonblocking(true).unwrap();
        let name = name.to_owned();
        Server::start(move || {
            if let Ok((_, peer)) = socket.recv_from(&mut [0; 16]) {
                socket
                    .send_to(format!("{} {name}", peer.ip()).as_bytes(), peer)
                    .ok();
            }
        })
    }

    /// What a TCP server says to a client in it.
    #[track_caller]
    pub(super) fn ask(&self, address: impl Into<IpAddr>, port: u16) -> String {
        self.try_ask(address.into(), port, PATIENCE).unwrap()
    }

    /// Whether a TCP server answers a client in it.
    pub(super) fn reaches(&self, address: impl Into<IpAddr>, port: u16) -> bool {
        self.try_ask(address.into(), port, PATIENCE).is_ok()
    }

    /// Whether none does.
    pub(super) fn cannot_reach(&self, address: impl Into<IpAddr>, port: u16) -> bool {
        self.try_ask(address.into(), port, BRIEFLY).is_err()
    }

    /// Waits until one does.
    pub(super) async fn comes_to_reach(&self, address: impl Into<IpAddr>, port: u16) -> bool {
        let (address, deadline) = (address.into(), Instant::now() + PATIENCE);
        while self
            .meanwhile(move |place| place.cannot_reach(address, port))
            .await
        {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    pub(super) fn try_ask(
        &self,
        address: IpAddr,
        port: u16,
        patience: Duration,
    ) -> io::Result<String> {
        let address = SocketAddr::new(address, port);
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            match text.is_empty() {
                true => Err(io::ErrorKind::UnexpectedEof.into()),
                false => Ok(text),
            }
        })
    }

    /// One message there and one back by UDP.
    pub(super) fn exchange_udp(
        &self,
        address: Ipv4Addr,
        port: u16,
        message: &[u8],
        patience: Duration,
    ) -> io::Result<Vec<u8>> {
        self.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect((address, port))?;
            socket.set_read_timeout(Some(patience))?;
            socket.send(message)?;
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer)?;
            Ok(buffer[..length].to_vec())
        })
    }

    /// The same by TCP, with lengths as in DNS.
    pub(super) fn exchange_tcp(
        &self,
        address: Ipv4Addr,
        port: u16,
        message: &[u8],
    ) -> io::Result<Vec<u8>> {
        self.run(|| {
            let mut stream = TcpStream::connect((address, port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let length = u16::try_from(message.len()).unwrap();
            stream.write_all(&length.to_be_bytes())?;
            stream.write_all(message)?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        })
    }

    /// A name server in it that has an empty answer for everything; how many questions it heard.
    pub(super) fn answer_names(&self) -> Arc<AtomicUsize> {
        let heard = Arc::new(AtomicUsize::new(0));
        let socket = self.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        let listener = self.run(|| TcpListener::bind("0.0.0.0:53").unwrap());
        let count = heard.clone();
        let empty = |message: &mut [u8]| message[2] |= 0x80;
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                empty(&mut buffer);
                socket.send_to(&buffer[..length], peer).ok();
            }
        });
        let count = heard.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let mut buffer = [0; 512];
                let length = stream.read(&mut buffer).unwrap_or(0);
                empty(&mut buffer[2..]);
                stream.write_all(&buffer[..length]).ok();
            }
        });
        heard
    }

    /// What a UDP server says to a client in it.
    pub(super) fn ask_udp(
        &self,
        address: Ipv4Addr,
        port: u16,
        patience: Duration,
    ) -> io::Result<String> {
        let said = self.exchange_udp(address, port, b"?", patience)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Sends what goes to loopback addresses out of it, as an attacker does.
    pub(super) fn route_loopback_out(&self) {
        self.run(|| {
            let mut routes = Routes::open().unwrap();
            let loopback = Subnet::new(LOCALHOST, 8).unwrap();
            routes.delete_address(1, LOCALHOST, loopback).unwrap();
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
        });
    }

    /// Whether a service on the loopback address of the thread's host hears what a container sends there.
    pub(super) fn is_heard_by_loopback(&self, own: Ipv4Addr) -> bool {
        let secret = UdpSocket::bind("127.0.0.1:4242").unwrap();
        secret.set_read_timeout(Some(BRIEFLY)).unwrap();
        self.route_loopback_out();
        self.run(|| {
            let socket = UdpSocket::bind((own, 0)).unwrap();
            socket.send_to(b"attack", (LOCALHOST, 4242)).unwrap();
        });
        secret.recv_from(&mut [0; 16]).is_ok()
    }
}

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(mut serve_one: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                serve_one();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Does something in an earlier life of the service, which ends as if by SIGKILL: nothing is detached,
/// its threads and files are gone.
pub(super) fn in_a_life_before<T: Send>(
    root: &Path,
    body: impl AsyncFnOnce(Network) -> T + Send,
) -> T {
    in_a_life_before_that(root, Publishing::Forward, body)
}

/// The same, of a service that published ports in some way.
pub(super) fn in_a_life_before_that<T: Send>(
    root: &Path,
    publishing: Publishing,
    body: impl AsyncFnOnce(Network) -> T + Send,
) -> T {
    let life = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async { body(instance_that(root, publishing)).await })
    };
    std::thread::scope(|scope| scope.spawn(life).join().unwrap())
}

/// An instance with a root of its own.
pub(super) fn instance(root: &Path) -> Network {
    instance_that(root, Publishing::Forward)
}

/// One that publishes ports in some way.
pub(super) fn instance_that(root: &Path, publishing: Publishing) -> Network {
    Network::open(root, &root.join("networks"), 2, publishing).unwrap()
}

pub(super) fn port(
    host_address: impl Into<IpAddr>,
    host_port: u16,
    container_port: u16,
) -> PortRequest {
    PortRequest {
        protocol: Protocol::Tcp,
        container_port,
        host_address: Some(host_address.into()),
        host_port,
    }
}

/// Everything in the host's kernel that an instance could leave: interfaces and tables.
pub(super) fn kernel_state() -> Vec<String> {
    const GET_TABLE: u16 = 10 << 8 | 1;
    let links = Routes::open().unwrap().links().unwrap();
    let mut names: Vec<_> = links.into_iter().map(|link| link.name).collect();
    let mut socket = Socket::open(Some(netlink::NETFILTER)).unwrap();
    let tables = Message::new(GET_TABLE, NLM_F_DUMP).fixed(&[0; 4]);
    for table in socket.dump(tables).unwrap() {
        let name = table.attribute(4, 1).unwrap();
        names.push(
            String::from_utf8_lossy(name)
                .trim_end_matches('\0')
                .to_owned(),
        );
    }
    names.sort();
    names
}

/// Waits until the kernel has nothing but this: it removes namespaces in its own time.
pub(super) async fn wait_for_kernel_state(expected: &[String]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while kernel_state() != expected && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(kernel_state(), expected);
}
