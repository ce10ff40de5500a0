//! Which token server may see a credential (`SECURITY` row G2). A registry names its token server
//! itself, so a hostile answer could name any.

use std::net::IpAddr;

use reqwest::Url;

use super::redirect::is_private;
use super::{host_name, is_loopback};

/// Registries whose token server is of another domain, known from their documentation.
const PAIRS: [(&str, &str); 2] = [
    // LinuxServer's and Docker's names for what others serve.
    ("lscr.io", "ghcr.io"),
    ("dhi.io", "docker.io"),
];

/// The realm as an address, or why the credential is not sent there. `home` is how we speak to the
/// registry.
pub(super) fn check(home: &Url, realm: &str) -> Result<Url, &'static str> {
    let url = Url::parse(realm).map_err(|_| "it is not an address")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it is neither HTTP nor HTTPS");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has a user name in it");
    }
    let (registry, host) = (
        home.host_str().unwrap_or_default(),
        url.host_str().unwrap_or_default(),
    );
    let plain_allowed = home.scheme() == "http" && (registry == host || is_loopback(host));
    if url.scheme() == "http" && !plain_allowed {
        return Err("it is plain HTTP");
    }
    if registry == host || (is_loopback(registry) && is_loopback(host)) {
        return Ok(url);
    }
    if is_private(host) {
        return Err("it is inside a private network");
    }
    if same_domain(registry, host) {
        return Ok(url);
    }
    Err("it is of another domain than the registry")
}

fn same_domain(registry: &str, host: &str) -> bool {
    let (Some(registry), Some(host)) = (domain(registry), domain(host)) else {
        return false;
    };
    registry == host || PAIRS.contains(&(registry.as_str(), host.as_str()))
}

/// The domain that somebody registered: one label more than the public suffix.
fn domain(host: &str) -> Option<String> {
    let name = host_name(host).trim_end_matches('.').to_ascii_lowercase();
    if name.parse::<IpAddr>().is_ok() {
        return None;
    }
    psl::domain_str(&name).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(home: &str, realm: &str) -> bool {
        check(&home.parse().unwrap(), realm).is_ok()
    }

    #[test]
    fn g2_token_servers_of_real_registries_pass() {
        for (home, realm) in [
            (
                "https://registry-1.docker.io/",
                "https://auth.docker.io/token",
            ),
            ("https://ghcr.io/", "https://ghcr.io/token"),
            (
                "https://registry.gitlab.com/",
                "https://gitlab.com/jwt/auth",
            ),
            ("https://lscr.io/", "https://ghcr.io/token"),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5001/token"),
            ("https://10.0.0.5:5000/", "https://10.0.0.5:5001/token"),
        ] {
            assert!(allowed(home, realm), "{home} {realm}");
        }
    }

    #[test]
    fn g2_a_realm_elsewhere_does_not_see_the_credential() {
        for (home, realm) in [
            ("https://r.example.com/", "http://auth.example.com/token"),
            ("https://r.example.com/", "https://evil.org/token"),
            (
                "https://r.example.com/",
                "https://example.com.evil.org/token",
            ),
            ("https://a.co.uk/", "https://b.co.uk/token"),
            ("https://a.github.io/", "https://b.github.io/token"),
            ("https://r.example.com/", "https://127.0.0.1/token"),
            ("https://r.example.com/", "https://169.254.169.254/token"),
            ("https://r.example.com/", "https://[::1]/token"),
            (
                "https://r.example.com/",
                "https://u:p@auth.example.com/token",
            ),
            ("https://r.example.com/", "file:///etc/passwd"),
            ("https://r.example.com/", "token"),
            ("http://127.0.0.1:5000/", "https://evil.org/token"),
            ("http://127.0.0.1:5000/", "http://10.0.0.1/token"),
            ("https://127.0.0.1:5000/", "http://127.0.0.1:80/token"),
            ("https://10.0.0.5/", "https://10.0.0.6/token"),
        ] {
            assert!(!allowed(home, realm), "{home} {realm}");
        }
    }
}
