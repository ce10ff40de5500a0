//! Where a service can be reached.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A Unix socket, or a TCP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `unix:///run/orlop/store.sock`, or just the absolute path.
    Unix(PathBuf),
    /// `tcp://127.0.0.1:7001`. Plain TCP: loopback only, and only if the operator says so.
    Tcp(SocketAddr),
}

/// An endpoint that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("malformed endpoint {0:?}: expected unix:///path/to.sock or tcp://address:port")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let malformed = || EndpointError(text.to_owned());
        if let Some(address) = text.strip_prefix("tcp://") {
            return address.parse().map(Self::Tcp).map_err(|_| malformed());
        }
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') {
            Ok(Self::Unix(path.into()))
        } else {
            Err(malformed())
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_round_trip_and_the_rest_is_refused() {
        for text in [
            "unix:///run/orlop/store.sock",
            "tcp://127.0.0.1:7001",
            "tcp://[::1]:80",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for bad in ["", "store.sock", "http://x", "tcp://host", "unix://rel"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
