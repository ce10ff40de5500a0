//! `/etc/resolv.conf` and `/etc/hosts` of a container. Everything from a request is parsed and written
//! anew, so no line of a caller's gets in by a newline (C9).

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use orlop_proto::runtime::CreateRequest;

use super::error::{NetworkError, Result};
use super::request::{EndpointInfo, NetworkKind};

const HOST_FILE: &str = "/etc/resolv.conf";
/// What systemd-resolved asks itself: the host's file names its stub on a loopback address, which a
/// container has not.
const UPSTREAM_FILE: &str = "/run/systemd/resolve/resolv.conf";
/// A host's file is a few lines; more than this is no resolv.conf.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const SERVERS_MAX: usize = 16;
const SEARCH_MAX: usize = 64;
const OPTIONS_MAX: usize = 64;
/// The longest of resolv.conf(5) has 20.
const OPTION_BYTES_MAX: usize = 64;
const EXTRA_HOSTS_MAX: usize = 1024;
/// RFC 1123, section 2.1.
const HOSTNAME_BYTES_MAX: usize = 253;
/// What may stand for the host's address on the bridge in an extra host.
const HOST_GATEWAY: &str = "host-gateway";

const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                     fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\n\
                     ff02::2\tip6-allrouters\n";

/// What a container asks of `/etc/resolv.conf`; what is empty is as on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lookup {
    servers: Vec<IpAddr>,
    /// `.` alone: none.
    search: Vec<String>,
    options: Vec<String>,
}

impl TryFrom<&CreateRequest> for Lookup {
    type Error = NetworkError;

    fn try_from(request: &CreateRequest) -> Result<Self> {
        let bound = |what, number, most| match number > most {
            true => Err(NetworkError::TooMany { what, most }),
            false => Ok(()),
        };
        bound("name servers", request.dns.len(), SERVERS_MAX)?;
        bound("search domains", request.dns_search.len(), SEARCH_MAX)?;
        bound("resolver options", request.dns_options.len(), OPTIONS_MAX)?;
        request
            .dns_search
            .iter()
            .try_for_each(|domain| check_name(domain))?;
        request
            .dns_options
            .iter()
            .try_for_each(|option| check_option(option))?;
        Ok(Self {
            servers: request
                .dns
                .iter()
                .map(|text| server(text))
                .collect::<Result<_>>()?,
            search: request.dns_search.clone(),
            options: request.dns_options.clone(),
        })
    }
}

fn server(text: &str) -> Result<IpAddr> {
    let invalid = |_| NetworkError::InvalidDns(text.chars().take(64).collect());
    text.parse().map_err(invalid)
}

/// One word.
fn check_option(option: &str) -> Result<()> {
    let word = !option.is_empty() && option.bytes().all(|byte| byte.is_ascii_graphic());
    if word && option.len() <= OPTION_BYTES_MAX {
        return Ok(());
    }
    let shown = option.chars().take(OPTION_BYTES_MAX).collect();
    Err(NetworkError::InvalidDnsOption(shown))
}

/// A container's `/etc/resolv.conf`: the host's, with what `lookup` has in place of that, and without the
/// name servers that only the host itself can reach unless the container shares its network.
/// `embedded`: the name server of a network of a user's, which asks the others itself.
pub(crate) fn resolv_conf(
    kind: NetworkKind,
    embedded: Option<Ipv4Addr>,
    lookup: &Lookup,
) -> Result<String> {
    let host = read(Path::new(HOST_FILE)).map_err(NetworkError::file(HOST_FILE))?;
    if let Some(server) = embedded {
        return Ok(in_own_network(server, lookup, &host));
    }
    let upstream = || read(Path::new(UPSTREAM_FILE)).unwrap_or_default();
    Ok(merge(kind, lookup, &host, upstream))
}

/// As with Docker, a name without a dot is a container's first.
fn in_own_network(server: Ipv4Addr, lookup: &Lookup, host: &str) -> String {
    let mut lines = settings(lookup, host);
    if !lines.iter().any(|line| line.contains("ndots:")) {
        lines.push("options ndots:0".to_owned());
    }
    lines.push(format!("nameserver {server}"));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Search domains and options.
fn settings(lookup: &Lookup, host: &str) -> Vec<String> {
    let kept = |line: &&str| match line.split_whitespace().next() {
        Some("search" | "domain") => lookup.search.is_empty(),
        Some("options") => lookup.options.is_empty(),
        Some("sortlist") => true,
        _ => false,
    };
    let mut lines: Vec<_> = host.lines().filter(kept).map(str::to_owned).collect();
    for (word, asked) in [("search", &lookup.search), ("options", &lookup.options)] {
        if !asked.is_empty() && *asked != ["."] {
            lines.push(format!("{word} {}", asked.join(" ")));
        }
    }
    lines
}

/// Those that the host itself asks, one on a loopback address included.
pub(crate) fn servers_of_the_host() -> Vec<IpAddr> {
    read(Path::new(HOST_FILE))
        .inspect_err(|error| tracing::warn!(%error, "cannot read {HOST_FILE}"))
        .map(|text| name_servers(&text))
        .unwrap_or_default()
}

/// A missing file is an empty one.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn merge(
    kind: NetworkKind,
    lookup: &Lookup,
    host: &str,
    upstream: impl FnOnce() -> String,
) -> String {
    let reachable = |address: &IpAddr| kind == NetworkKind::Host || !address.is_loopback();
    let mut servers = lookup.servers.clone();
    if servers.is_empty() {
        servers = name_servers(host);
        servers.retain(&reachable);
    }
    if servers.is_empty() {
        servers = name_servers(&upstream());
        servers.retain(reachable);
    }
    if servers.is_empty() {
        tracing::warn!("the host has no name server that a container can reach; use --dns");
    }
    let servers = servers.iter().map(|server| format!("nameserver {server}"));
    let lines = settings(lookup, host).into_iter().chain(servers);
    lines.map(|line| line + "\n").collect()
}

fn name_servers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
        .take(SERVERS_MAX)
        .collect()
}

/// A container's `/etc/hosts`: the usual, then the extra hosts, then its own name. An extra host is
/// `name:address`; the address may be `host-gateway`.
pub(crate) fn hosts(
    hostname: &str,
    endpoints: &[EndpointInfo],
    extra: &[String],
) -> Result<String> {
    if extra.len() > EXTRA_HOSTS_MAX {
        return Err(NetworkError::TooMany {
            what: "extra hosts",
            most: EXTRA_HOSTS_MAX,
        });
    }
    let mut text = HOSTS.to_owned();
    for entry in extra {
        let (name, address) = extra_host(entry, endpoints)?;
        writeln!(text, "{address}\t{name}").ok();
    }
    check_hostname(hostname)?;
    let own = own_names(hostname);
    for endpoint in endpoints.iter().filter(|_| !hostname.is_empty()) {
        for address in endpoint.addresses() {
            writeln!(text, "{address}\t{own}").ok();
        }
    }
    Ok(text)
}

/// `web.example.org web`, `web`.
fn own_names(hostname: &str) -> String {
    match hostname.split_once('.') {
        Some((short, _)) => format!("{hostname} {short}"),
        None => hostname.to_owned(),
    }
}

fn extra_host<'a>(entry: &'a str, endpoints: &[EndpointInfo]) -> Result<(&'a str, IpAddr)> {
    let invalid = || NetworkError::InvalidExtraHost(entry.to_owned());
    let (name, address) = entry.split_once([':', '=']).ok_or_else(invalid)?;
    if name.is_empty() {
        return Err(invalid());
    }
    check_hostname(name)?;
    if address == HOST_GATEWAY {
        let routed = endpoints.iter().find(|endpoint| endpoint.routed);
        let gateway = routed.map(|endpoint| IpAddr::V4(endpoint.gateway));
        return Ok((name, gateway.unwrap_or(Ipv4Addr::LOCALHOST.into())));
    }
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Ok((name, address.parse().map_err(|_| invalid())?))
}

/// A name that others may call a container by.
pub(crate) fn check_name(name: &str) -> Result<()> {
    match name {
        "" => Err(NetworkError::InvalidHostname(String::new())),
        name => check_hostname(name),
    }
}

/// An empty name is allowed: it is left out.
fn check_hostname(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.len() <= HOSTNAME_BYTES_MAX && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(NetworkError::InvalidHostname(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::network::request::Ipv6Info;

    const STUB: &str = "# systemd\nnameserver 127.0.0.53\noptions edns0\nsearch example.org\n";

    fn endpoint() -> EndpointInfo {
        EndpointInfo {
            network: "bridge".to_owned(),
            network_id: String::new(),
            interface: "eth0".to_owned(),
            veth: String::new(),
            relayed: false,
            routed: true,
            names: Vec::new(),
            aliases: Vec::new(),
            links: Vec::new(),
            address: Ipv4Addr::new(172, 18, 0, 5),
            prefix: 16,
            gateway: Ipv4Addr::new(172, 18, 0, 1),
            ipv6: Some(Ipv6Info {
                address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5),
                prefix: 64,
                gateway: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
                routed: true,
            }),
            mac: "02:42:ac:12:00:05".to_owned(),
        }
    }

    #[test]
    fn a_stub_on_loopback_is_replaced_by_what_it_asks() {
        let upstream = || "nameserver 192.0.2.53\nnameserver ::1\n".to_owned();
        let text = merge(NetworkKind::Bridge, &Lookup::default(), STUB, upstream);
        assert_eq!(
            text,
            "options edns0\nsearch example.org\nnameserver 192.0.2.53\n"
        );
    }

    #[test]
    fn with_the_hosts_network_the_stub_is_reachable() {
        let text = merge(NetworkKind::Host, &Lookup::default(), STUB, String::new);
        assert!(text.contains("nameserver 127.0.0.53"));
    }

    #[test]
    fn in_a_users_network_its_name_server_is_the_only_one() {
        let server = Ipv4Addr::new(172, 20, 0, 1);
        let text = in_own_network(server, &Lookup::default(), STUB);
        assert_eq!(
            text,
            "options edns0\nsearch example.org\noptions ndots:0\nnameserver 172.20.0.1\n"
        );
    }

    #[test]
    fn servers_of_the_request_replace_the_hosts() {
        let dns = asking(&["9.9.9.9"], &[], &[]).unwrap();
        let text = merge(
            NetworkKind::Bridge,
            &dns,
            "nameserver 192.0.2.1\n",
            String::new,
        );
        assert_eq!(text, "nameserver 9.9.9.9\n");
    }

    fn asking(dns: &[&str], search: &[&str], options: &[&str]) -> Result<Lookup> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Lookup::try_from(&CreateRequest {
            dns: owned(dns),
            dns_search: owned(search),
            dns_options: owned(options),
            ..CreateRequest::default()
        })
    }

    #[test]
    fn search_domains_and_options_of_the_request_replace_the_hosts() {
        let asked = asking(&[], &["a.test", "b.test"], &["ndots:2", "rotate"]).unwrap();
        let text = in_own_network(Ipv4Addr::new(172, 20, 0, 1), &asked, STUB);
        assert_eq!(
            text,
            "search a.test b.test\noptions ndots:2 rotate\nnameserver 172.20.0.1\n"
        );
        let cleared = asking(&["9.9.9.9"], &["."], &[]).unwrap();
        let text = merge(NetworkKind::Host, &cleared, STUB, String::new);
        assert_eq!(text, "options edns0\nnameserver 9.9.9.9\n");
    }

    #[test]
    fn c9_a_newline_in_anything_of_resolv_conf_is_refused() {
        assert!(asking(&["9.9.9.9\nnameserver 6.6.6.6"], &[], &[]).is_err());
        assert!(asking(&["9.9.9.9"; 17], &[], &[]).is_err());
        for word in ["a\nnameserver 6.6.6.6", "a b", ""] {
            assert!(asking(&[], &[word], &[]).is_err(), "{word:?}");
            assert!(asking(&[], &[], &[word]).is_err(), "{word:?}");
        }
    }

    #[test]
    fn c9_a_newline_in_an_extra_host_or_a_host_name_is_refused() {
        let refused = |entry: &str| hosts("h", &[], &[entry.to_owned()]).is_err();
        assert!(refused("a:1.2.3.4\n6.6.6.6 bank"));
        assert!(refused("a b:1.2.3.4"));
        assert!(refused("a\nb:1.2.3.4"));
        assert!(refused(":1.2.3.4"));
        assert!(refused("a"));
        assert!(hosts("h\n6.6.6.6 bank", &[], &[]).is_err());
    }

    #[test]
    fn hosts_have_the_extra_ones_and_the_container_itself() {
        let extra = [
            "db:10.0.0.9".to_owned(),
            "gw:host-gateway".to_owned(),
            "six:::1".to_owned(),
        ];
        let text = hosts("web.test", &[endpoint()], &extra).unwrap();
        let lines: Vec<_> = text.lines().skip(6).collect();
        assert_eq!(
            lines,
            [
                "10.0.0.9\tdb",
                "172.18.0.1\tgw",
                "::1\tsix",
                "172.18.0.5\tweb.test web",
                "fd00::5\tweb.test web"
            ]
        );
    }
}
