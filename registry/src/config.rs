//! The options of the service: the only place that reads them.

use std::net::SocketAddr;
use std::str::FromStr;

use orlop_wire::{Endpoint, ServiceArgs};

/// Where `/v2/` listens when nothing was said: the port that everyone expects a registry at.
const HTTP_DEFAULT: &str = "127.0.0.1:5000";

/// The registry service: push, pull, and our own OCI distribution endpoint.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "orlop-registry", version)]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    pub service: ServiceArgs,

    /// The store to keep bytes in [default: the store's socket in the run directory]
    #[arg(long, env = "ORLOP_STORE", value_name = "ENDPOINT")]
    pub store: Option<Endpoint>,

    /// Where to serve `/v2/`: `address:port` (port 0 for any), or `none` [default: 127.0.0.1:5000]
    #[arg(long, env = "ORLOP_REGISTRY_HTTP", value_name = "ADDRESS")]
    pub registry_http: Option<HttpAddress>,

    /// Serve `/v2/` without authentication even where other hosts can reach it
    #[arg(long)]
    pub registry_http_anonymous: bool,
}

/// A value of `--registry-http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// Do not serve `/v2/`.
    None,
    /// Serve it here.
    At(SocketAddr),
}

/// A value of `--registry-http` that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("malformed address {0:?}: expected address:port, for example 127.0.0.1:5000, or `none`")]
pub struct HttpAddressError(String);

impl FromStr for HttpAddress {
    type Err = HttpAddressError;

    fn from_str(text: &str) -> Result<Self, HttpAddressError> {
        if text == "none" {
            return Ok(Self::None);
        }
        let port = text.strip_prefix("localhost:");
        let text_or_local = port.map_or_else(|| text.to_owned(), |p| format!("127.0.0.1:{p}"));
        text_or_local
            .parse()
            .map(Self::At)
            .map_err(|_| HttpAddressError(text.to_owned()))
    }
}

impl Config {
    /// The store's endpoint.
    pub fn store(&self) -> Endpoint {
        self.store
            .clone()
            .unwrap_or_else(|| self.service.paths.resolve().endpoint("store"))
    }

    /// Our own endpoint.
    pub fn listen(&self) -> Endpoint {
        self.service
            .listen
            .clone()
            .unwrap_or_else(|| self.service.paths.resolve().endpoint("registry"))
    }

    /// Where `/v2/` is to listen, and whether somebody asked for exactly that.
    pub fn http(&self) -> (HttpAddress, bool) {
        match self.registry_http {
            Some(address) => (address, true),
            None => (HTTP_DEFAULT.parse().unwrap_or(HttpAddress::None), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_localhost_or_none() {
        assert_eq!("none".parse::<HttpAddress>().unwrap(), HttpAddress::None);
        assert_eq!(
            "localhost:0".parse::<HttpAddress>().unwrap(),
            HttpAddress::At(([127, 0, 0, 1], 0).into())
        );
        assert!(HTTP_DEFAULT.parse::<HttpAddress>().is_ok());
        for bad in ["", "5000", "example.com:80", "127.0.0.1"] {
            assert!(bad.parse::<HttpAddress>().is_err(), "{bad}");
        }
    }
}
