//! `--network`.

use orlop_proto::runtime::NetworkMembership;

use super::invalid;
use crate::error::CliError;

const GATEWAY_PRIORITY: &str =
    "gw-priority is not known: the first network that leads out is the way out, so name it first";

/// A network's name, or `name=NETWORK,ip=ADDRESS,ip6=ADDRESS,mac-address=ADDRESS,alias=NAME`.
pub(crate) fn parse(text: &str) -> Result<NetworkMembership, CliError> {
    let mut membership = NetworkMembership::default();
    if !text.contains('=') {
        text.clone_into(&mut membership.network);
        return Ok(membership);
    }
    for part in text.split(',') {
        let fail = || invalid("--network", text, format!("{part:?} means nothing in it"));
        let (key, value) = part.split_once('=').ok_or_else(fail)?;
        match key {
            "name" => value.clone_into(&mut membership.network),
            "ip" => value.clone_into(&mut membership.address),
            "ip6" => value.clone_into(&mut membership.ipv6_address),
            "mac-address" => value.clone_into(&mut membership.mac_address),
            "alias" => membership.aliases.push(value.to_owned()),
            "gw-priority" => return Err(invalid("--network", text, GATEWAY_PRIORITY)),
            _ => return Err(fail()),
        }
    }
    Ok(membership)
}

/// Whether nothing is asked but the network.
pub(crate) fn is_plain(membership: &NetworkMembership) -> bool {
    let network = membership.network.clone();
    *membership
        == NetworkMembership {
            network,
            ..NetworkMembership::default()
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_or_with_what_is_asked_of_it() {
        assert_eq!(parse("front").unwrap().network, "front");
        assert_eq!(parse("container:web").unwrap().network, "container:web");
        let long = parse(
            "name=front,ip=10.0.0.9,ip6=fd00::9,mac-address=02:00:00:00:00:01,alias=a,alias=b",
        )
        .unwrap();
        assert_eq!(long.ipv6_address, "fd00::9");
        assert_eq!(long.mac_address, "02:00:00:00:00:01");
        assert_eq!((&*long.network, &*long.address), ("front", "10.0.0.9"));
        assert_eq!(long.aliases, ["a", "b"]);
        for unknown in ["name=front,gw-priority=1", "name=front,ip", "driver-opt=x"] {
            assert!(parse(unknown).is_err(), "{unknown}");
        }
        let error = parse("name=front,gw-priority=1").unwrap_err().to_string();
        assert!(error.contains("name it first"), "{error}");
    }
}
