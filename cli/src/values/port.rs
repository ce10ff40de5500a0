//! `--publish`: `[[host-address:][host-port[-last]]:]port[-last][/protocol]`.

use std::net::IpAddr;

use orlop_proto::runtime::PortBinding;

use super::invalid;
use crate::error::CliError;

const FORM: &str = "expected [[ADDRESS:]HOST_PORT:]PORT[/tcp|udp], for example 8080:80";

/// The bindings that one `-p` asks for.
pub(crate) fn parse(text: &str) -> Result<Vec<PortBinding>, CliError> {
    let fail = |reason: &str| invalid("--publish", text, reason);
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp") {
        return Err(fail("the protocol must be tcp or udp"));
    }
    let (rest, container) = match ports.rsplit_once(':') {
        Some((rest, container)) => (Some(rest), container),
        None => (None, ports),
    };
    let container = range(container).ok_or_else(|| fail(FORM))?;
    let (address, host) = rest
        .map_or(Ok((String::new(), "")), split_address)
        .map_err(fail)?;
    // Docker's `0`: any free port.
    let host = if matches!(host, "" | "0") {
        None
    } else {
        Some(range(host).ok_or_else(|| fail(FORM))?)
    };
    if host.is_some_and(|(first, last)| last - first != container.1 - container.0) {
        return Err(fail("the two ranges of ports must have the same length"));
    }
    let binding = |container_port| PortBinding {
        protocol: protocol.clone(),
        container_port,
        host_address: address.clone(),
        host_port: host.map_or(0, |(first, _)| first + (container_port - container.0)),
    };
    Ok((container.0..=container.1).map(binding).collect())
}

/// What stands before the container's port: an address (perhaps) and a host port (perhaps).
fn split_address(text: &str) -> Result<(String, &str), &'static str> {
    const ADDRESS: &str = "the host address must be an IP address (IPv6 in brackets)";
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(ADDRESS)?;
        let address: IpAddr = address.parse().map_err(|_| ADDRESS)?;
        let port = rest.strip_prefix(':').unwrap_or(rest);
        return Ok((address.to_string(), port));
    }
    match text.rsplit_once(':') {
        None if text.contains('.') => {
            Ok((text.parse::<IpAddr>().map_err(|_| ADDRESS)?.to_string(), ""))
        }
        None => Ok((String::new(), text)),
        Some((address, port)) => {
            let address: IpAddr = address.parse().map_err(|_| ADDRESS)?;
            Ok((address.to_string(), port))
        }
    }
}

/// The ports that one `--expose` names, `80/tcp`: `PORT[-LAST][/PROTOCOL]`.
pub(crate) fn expose(text: &str) -> Result<Vec<String>, CliError> {
    let fail = || invalid("--expose", text, "expected PORT[-LAST][/tcp|udp]");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp") {
        return Err(fail());
    }
    let (first, last) = range(ports).ok_or_else(fail)?;
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

/// `80` or `80-90`; ports are 1 to 65,535.
fn range(text: &str) -> Option<(u32, u32)> {
    let port = |text: &str| -> Option<u32> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>()
            .ok()
            .filter(|port| digits && *port > 0)
            .map(u32::from)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |b: PortBinding| {
            format!(
                "{}:{}->{}/{}",
                b.host_address, b.host_port, b.container_port, b.protocol
            )
        };
        parse(text).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn all_forms_are_understood() {
        assert_eq!(shown("80"), [":0->80/tcp"]);
        assert_eq!(shown("8080:80"), [":8080->80/tcp"]);
        assert_eq!(shown("8080:80/UDP"), [":8080->80/udp"]);
        assert_eq!(shown("127.0.0.1:8080:80"), ["127.0.0.1:8080->80/tcp"]);
        assert_eq!(shown("127.0.0.1::80"), ["127.0.0.1:0->80/tcp"]);
        assert_eq!(shown("[::1]:8080:80"), ["::1:8080->80/tcp"]);
        assert_eq!(
            shown("8000-8002:80-82/udp"),
            [":8000->80/udp", ":8001->81/udp", ":8002->82/udp"]
        );
    }

    #[test]
    fn the_rest_is_refused() {
        for bad in [
            "",
            ":",
            "0",
            "65536",
            "a:80",
            "80:a",
            "8080:80/sctp",
            "1.2.3:80:80",
            "host:1:2",
            "8000-8010:80",
            "90-80",
            "+80",
            "[::1:80:80",
            "-p",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exposed_ports_are_listed_one_by_one() {
        assert_eq!(expose("80").unwrap(), ["80/tcp"]);
        assert_eq!(expose("53-54/UDP").unwrap(), ["53/udp", "54/udp"]);
        for bad in ["", "8080:80", "80/sctp", "90-80", "0"] {
            assert!(expose(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9a-z:.\\[\\]/-]{0,40}") {
            drop(parse(&text));
        }
    }
}
