//! Networks with IPv6, by command.
#![allow(clippy::unwrap_used, reason = "test code")]

use orlop_tests::{Instance, PAGE, eventually, http};

/// An instance with a network `front` of both families; `None` on a host without IPv6.
fn orlop(subnet: &str) -> Option<Instance> {
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        return None;
    }
    let orlop = Instance::with_busybox();
    let create = ["network", "create", "--ipv6", "--subnet", subnet, "front"];
    orlop.run(&create).success();
    Some(orlop)
}

fn fact(orlop: &Instance, container: &str, network: &str, field: &str) -> String {
    let form = format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}");
    orlop.inspect(container, &form)
}

#[test]
fn a_network_with_ipv6_is_told_as_docker_tells_it() {
    let Some(orlop) = orlop("fd0f:1::/64") else {
        return;
    };
    let inspect = |form: &str| {
        let inspect = ["network", "inspect", "-f", form, "front"];
        orlop.run(&inspect).success().line()
    };
    assert_eq!(inspect("{{.EnableIPv6}}"), "true");
    let config = inspect("{{json .IPAM.Config}}");
    let ipv6 = r#"{"Gateway":"fd0f:1::1","Subnet":"fd0f:1::/64"}"#;
    assert!(config.contains(ipv6), "{config}");
    let list = ["network", "ls", "--format", "{{.Name}} {{.IPv6}}"];
    orlop
        .run(&list)
        .success()
        .stdout_has("front true")
        .stdout_has("bridge false");
    let refused = |options: &[&str], problem: &str| {
        let create = [&["network", "create"], options, &["back"]].concat();
        let code = orlop.run(&create).stderr_has(problem).code();
        assert_ne!(code, 0);
    };
    refused(&["--subnet", "fd0f:2::/64"], "--ipv6");
    refused(&["--ipv6", "--subnet", "fd0f:1::/80"], "fd0f:1::/80");
    refused(&["--ipv6", "--subnet", "fe80::/64"], "fe80::/64");
    refused(&["--ipv6", "--gateway", "fd0f::1"], "needs a subnet");
    let twice = ["--ipv6", "--subnet", "fd01::/64", "--subnet", "fd02::/64"];
    refused(&twice, "one of IPv6");
    orlop
        .run(&["network", "create", "--ipv6", "back"])
        .success();
    orlop
        .run(&["network", "inspect", "back"])
        .success()
        .stdout_has("\"Subnet\": \"fd");
}

#[test]
fn containers_meet_by_ipv6_and_by_name_and_those_of_other_networks_do_not() {
    let Some(orlop) = orlop("fd0f:3::/64") else {
        return;
    };
    orlop
        .run(&["network", "create", "--ipv6", "back"])
        .success();
    orlop.serve("web", &["--network", "front", "--ip6", "fd0f:3::9"]);
    let limit = "net.ipv6.conf.eth0.hop_limit=33";
    orlop.serve("other", &["--network", "front", "--sysctl", limit]);
    orlop.serve("apart", &["--network", "back"]);
    let web = |field: &str| fact(&orlop, "web", "front", field);
    assert_eq!(web("GlobalIPv6Address"), "fd0f:3::9");
    assert_eq!(web("GlobalIPv6PrefixLen"), "64");
    assert_eq!(web("IPv6Gateway"), "fd0f:3::1");
    eventually("one container reaches another", || {
        orlop.reaches("other", "[fd0f:3::9]")
    });
    assert!(orlop.cannot_reach("apart", "[fd0f:3::9]"));
    orlop
        .run(&["exec", "other", "nslookup", "web"])
        .stdout_has("fd0f:3::9");
    orlop
        .run(&["exec", "web", "cat", "/etc/hosts"])
        .success()
        .stdout_has("fd0f:3::9\t");
    let limit = "/proc/sys/net/ipv6/conf/eth0/hop_limit";
    orlop
        .run(&["exec", "other", "cat", limit])
        .success()
        .stdout_is("33\n");
    orlop
        .run(&["network", "inspect", "front"])
        .success()
        .stdout_has("\"IPv6Address\": \"fd0f:3::9/64\"");
    let again = ["run", "--network", "front", "--ip6", "fd0f:3::9", "busybox"];
    orlop.run(&again).exits(125).stderr_has("fd0f:3::9");
    orlop.run(&["restart", "-t", "0", "web"]).success();
    assert_eq!(web("GlobalIPv6Address"), "fd0f:3::9");
    let connect = |address: &str, network: &str| {
        let connect = ["network", "connect", "--ip6", address, network, "apart"];
        orlop.run(&connect)
    };
    connect("fd0f:4::9", "front")
        .exits(1)
        .stderr_has("fd0f:4::9");
    connect("fd0f:3::77", "front").success();
    eventually("a connected container reaches the network", || {
        orlop.reaches("apart", "[fd0f:3::9]")
    });
    orlop.run(&["network", "create", "plain"]).success();
    connect("fd0f:3::77", "plain")
        .exits(1)
        .stderr_has("has no IPv6");
}

#[test]
fn a_published_port_answers_on_both_families() {
    let Some(orlop) = orlop("fd0f:5::/64") else {
        return;
    };
    orlop.serve("web", &["--network", "front", "-p", "80"]);
    let told = orlop.published("web", "80");
    let mut addresses: Vec<_> = told.lines().collect();
    addresses.sort_unstable();
    let [ipv4, ipv6] = addresses[..] else {
        unreachable!("{told}");
    };
    let port = ipv4.strip_prefix("0.0.0.0:").unwrap();
    assert_eq!(ipv6, format!("[::]:{port}"));
    for host in ["127.0.0.1", "[::1]", "[fd0f:5::1]"] {
        let at = format!("{host}:{port}");
        eventually(&format!("{at} answers"), || http::serves(&at, PAGE));
    }
    orlop
        .run(&["ps"])
        .success()
        .stdout_has(&format!("[::]:{port}->80/tcp"));
    orlop.serve("plain", &[]);
    let from_another = format!("[fd0f:5::1]:{port}");
    assert!(orlop.cannot_reach("plain", &from_another), "it has no IPv6");
    orlop.run(&["kill", "web"]).success();
    assert!(http::get(ipv6.replace("::", "::1").as_str(), "/").is_none());
    let own = |options: &[&str]| {
        let run = [&["run", "--rm"], options, &["busybox", "true"]].concat();
        orlop.run(&run)
    };
    own(&["-p", "[::1]::80"]).exits(125).stderr_has("has IPv6");
    own(&["--network", "front", "-p", "[::1]::80/udp"])
        .exits(125)
        .stderr_has("udp port on ::1");
    own(&["--network", "front", "-p", "[::1]::80"]).success();
}
