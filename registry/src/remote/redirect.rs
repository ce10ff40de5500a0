//! Redirects: which ones are followed, and what they may see (`SECURITY` row G3).

use std::net::IpAddr;

use reqwest::{StatusCode, Url};

use super::is_loopback;

/// Redirects that one request follows.
pub(super) const HOPS_MAX: usize = 10;

pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Scheme, host and port are the same: what one may see the other may.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// The next address, or why it is not followed.
pub(super) fn next(from: &Url, target: &str, hop: usize) -> Result<Url, &'static str> {
    if hop >= HOPS_MAX {
        return Err("there were 10 redirects before it");
    }
    let url = from.join(target).map_err(|_| "it is not an address")?;
    match url.scheme() {
        "https" => {}
        "http" if from.scheme() == "http" => {}
        "http" => return Err("it leads from HTTPS to plain HTTP"),
        _ => return Err("it is neither HTTP nor HTTPS"),
    }
    let host = url.host_str().unwrap_or_default();
    if is_private(host) && !is_private(from.host_str().unwrap_or_default()) {
        return Err("it leads from a public host into a private network");
    }
    Ok(url)
}

/// Whether a host is an address literal (or `localhost`) that no public server has.
pub(super) fn is_private(host: &str) -> bool {
    if is_loopback(host) {
        return true;
    }
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => is_private_v4(ip),
        Ok(IpAddr::V6(ip)) => {
            ip.to_ipv4_mapped().is_some_and(is_private_v4)
                || ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
        Err(_) => false,
    }
}

fn is_private_v4(ip: std::net::Ipv4Addr) -> bool {
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn g3_origins_differ_by_scheme_host_and_port() {
        let home = url("https://r.io/v2/");
        assert!(same_origin(&home, &url("https://r.io:443/x")));
        for other in [
            "http://r.io/",
            "https://r.io:444/",
            "https://r.io.evil.org/",
        ] {
            assert!(!same_origin(&home, &url(other)), "{other}");
        }
    }

    #[test]
    fn g3_redirects_never_lead_to_less() {
        let from = url("https://r.io/v2/a/blobs/x");
        assert_eq!(next(&from, "/y", 0).unwrap().as_str(), "https://r.io/y");
        assert!(next(&from, "https://cdn.example.com/x?sig=1", 9).is_ok());
        assert!(next(&from, "https://cdn.example.com/x", 10).is_err());
        for bad in [
            "http://r.io/x",
            "file:///etc/passwd",
            "https://127.0.0.1/x",
            "https://169.254.169.254/latest",
            "https://[::ffff:10.0.0.1]/x",
            "https://[fd00::1]/x",
            "https://localhost/x",
        ] {
            assert!(next(&from, bad, 0).is_err(), "{bad}");
        }
    }
}
