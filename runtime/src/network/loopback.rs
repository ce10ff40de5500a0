//! Published TCP ports on `::1`. The kernel takes no answer for that address from another interface, so
//! that, unlike 127.0.0.1, it cannot be translated: the socket that reserves the port answers, and hands
//! on what is said. Every other address of the host is the firewall's, which comes before any socket.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::error::{NetworkError, Result};
use super::ports::Reservation;
use super::request::Protocol;
use super::{Inner, Network};

/// Connections of one port at once.
const CONNECTIONS_MAX: usize = 1024;
/// A socket that fails is left alone for a moment.
const PAUSE: Duration = Duration::from_millis(100);

/// The relay of one port, until this is dropped. Connections that are open go on.
#[derive(Debug)]
pub(crate) struct LoopbackPort(AbortHandle);

/// Where connections go.
#[derive(Clone, Debug)]
struct Target {
    network: Weak<Inner>,
    container: String,
    port: u16,
}

impl Drop for LoopbackPort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Network {
    /// Answers on those of a container's ports that need it.
    pub(super) fn answer_on_loopback(
        &self,
        container: &str,
        reservations: &[Reservation],
    ) -> Result<Vec<LoopbackPort>> {
        let needed = reservations.iter().filter(|reserved| is_needed(reserved));
        let ports = needed.map(|reserved| self.answer(container, reserved));
        let failed = NetworkError::kernel("answer published ports on ::1");
        ports.collect::<io::Result<_>>().map_err(failed)
    }

    fn answer(&self, container: &str, reserved: &Reservation) -> io::Result<LoopbackPort> {
        let socket = std::net::TcpListener::from(reserved.socket()?);
        let listener = TcpListener::from_std(socket)?;
        let target = Target {
            network: Arc::downgrade(&self.inner),
            container: container.to_owned(),
            port: reserved.binding.container_port,
        };
        let task = tokio::spawn(serve(listener, target));
        Ok(LoopbackPort(task.abort_handle()))
    }
}

fn is_needed(reserved: &Reservation) -> bool {
    let on_loopback = match reserved.binding.host_address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address == Ipv6Addr::LOCALHOST || address.is_unspecified(),
    };
    on_loopback && reserved.binding.protocol == Protocol::Tcp
}

async fn serve(listener: TcpListener, target: Target) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((client, from)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // While somebody has the firewall flushed, those outside reach this socket too.
        if !from.ip().is_loopback() {
            continue;
        }
        let Ok(turn) = Arc::clone(&connections).try_acquire_owned() else {
            continue;
        };
        let target = target.clone();
        tokio::spawn(async move {
            if let Err(error) = target.relay(client).await {
                tracing::debug!(%error, %from, "a connection to a published port ended");
            }
            drop(turn);
        });
    }
}

impl Target {
    async fn relay(&self, mut client: TcpStream) -> io::Result<()> {
        let address = self.address().ok_or(io::ErrorKind::HostUnreachable)?;
        let mut server = TcpStream::connect(address).await?;
        tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        Ok(())
    }

    /// The container's address now: its way in may have changed.
    fn address(&self) -> Option<SocketAddr> {
        let inner = self.network.upgrade()?;
        let network = Network { inner };
        let held = network.held();
        let (_, ipv6) = held.get(&self.container)?.attachment.routed_by_ipv6()?;
        Some(SocketAddr::new(ipv6.address.into(), self.port))
    }
}
