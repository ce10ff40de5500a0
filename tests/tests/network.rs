//! Networks of containers: published ports, each other, the host's, names.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use orlop_tests::{Instance, PAGE, Terminal, eventually, http};

#[test]
fn published_ports_answer_and_are_told() {
    let orlop = Instance::with_busybox();
    orlop.serve("web", &["-p", "127.0.0.1:0:80", "-p", "0:53/udp"]);
    let address = orlop.published("web", "80");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    eventually("the web server answers", || http::serves(&address, PAGE));
    orlop
        .run(&["port", "web"])
        .success()
        .stdout_has("80/tcp -> 127.0.0.1:")
        .stdout_has("53/udp -> ");
    orlop.run(&["ps"]).success().stdout_has("->80/tcp");

    let port = address.rsplit(':').next().unwrap();
    let clash = format!("127.0.0.1:{port}:80");
    orlop
        .run(&["run", "-d", "-p", &clash, "busybox", "true"])
        .exits(125)
        .stderr_has(port);
    orlop.run(&["rm", "-f", "web"]).success();
    assert!(
        http::get(address.as_str(), "/").is_none(),
        "the port is closed with the container"
    );
    orlop
        .run(&["run", "--rm", "-p", &clash, "busybox", "true"])
        .success();
}

#[test]
fn relayed_ports_are_back_with_the_service() {
    let orlop = Instance::with_busybox();
    let option = "com.orlop.published=input";
    orlop
        .run(&["network", "create", "-o", option, "behind"])
        .success();
    orlop.serve("web", &["--network", "behind", "-p", "127.0.0.1:0:80"]);
    let address = orlop.published("web", "80");
    let answers = || http::serves(&address, PAGE);
    eventually("the web server answers", answers);
    orlop.kill_service("runtime");
    assert!(!answers(), "nobody relays while the service is away");
    orlop.run(&["ps"]).success().stdout_has("web");
    eventually("it answers again", answers);
    orlop.run(&["rm", "-f", "web"]).success();
    assert!(!answers(), "the port is closed with the container");
    orlop
        .run(&["network", "create", "-o", "com.orlop.published=x", "other"])
        .exits(1)
        .stderr_has("com.orlop.published");
}

#[test]
fn a_person_is_told_to_whom_a_port_is_open() {
    let orlop = Instance::with_busybox();
    let ports = ["-p", "127.0.0.1:0:80", "-p", "0:81/udp"];
    let run = |network: &'static str| {
        let mut args = vec!["run", "--rm", "--network", network];
        args.extend(ports);
        args.extend(["busybox", "true"]);
        args
    };
    let mut terminal = Terminal::run(&orlop, &run("bridge"));
    terminal.shows("a free port of 127.0.0.1 -> 80/tcp: open to this host only");
    terminal.shows("a free port of 0.0.0.0 -> 81/udp: open to everyone who reaches this host; its");
    assert_eq!(terminal.ends(), 0);
    let said = orlop.run(&run("bridge")).success().stderr();
    assert_eq!(said, "", "scripts are told nothing");
    // Without a network of its own it publishes nothing.
    let mut terminal = Terminal::run(&orlop, &run("none"));
    terminal.shows("published ports are discarded");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn an_instance_can_be_told_to_ask_the_hosts_input_rules() {
    let orlop = Instance::stopped();
    let mut up = vec!["up", "--registry-http", orlop.registry()];
    up.extend(["--published-ports", "input"]);
    orlop.run(&up).success();
    orlop.import_busybox("busybox");
    let mut terminal = Terminal::run(&orlop, &["run", "--rm", "-p", "0:80", "busybox", "true"]);
    terminal.shows("open to everyone who reaches this host and whom its input rules");
    assert_eq!(terminal.ends(), 0);
}

/// Sends back what it gets by UDP. In Perl, the one language that every Debian has: its busybox does
/// not speak UDP.
const UDP_ECHO: &str = r#"
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(LocalPort => 9000, Proto => "udp") or die "bind: $!";
while (defined(my $peer = $socket->recv(my $datagram, 1500))) {
    $socket->send($datagram, 0, $peer);
}
"#;

#[test]
fn udp_ports_carry_both_ways() {
    let orlop = Instance::with_busybox();
    let mut args = vec!["run", "-d", "--name", "udp", "-p", "127.0.0.1:0:9000/udp"];
    args.extend(["-v", "/usr:/usr:ro"]);
    let libraries = ["lib", "lib64"].map(|name| format!("/usr/{name}:/{name}:ro"));
    for (mount, name) in libraries.iter().zip(["/usr/lib", "/usr/lib64"]) {
        if Path::new(name).exists() {
            args.extend(["-v", mount]);
        }
    }
    args.extend(["busybox", "/usr/bin/perl", "-e", UDP_ECHO]);
    orlop.run(&args).success();
    let address = orlop.published("udp", "9000/udp");
    eventually("an answer by UDP", || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        socket.send_to(b"ping", &*address).unwrap();
        let mut buffer = [0; 16];
        socket
            .recv(&mut buffer)
            .is_ok_and(|n| &buffer[..n] == b"ping")
    });
}

#[test]
fn containers_reach_each_other_and_the_host_network_is_the_hosts() {
    let orlop = Instance::with_busybox();
    orlop.serve("first", &[]);
    let address = orlop.inspect("first", "{{.NetworkSettings.IPAddress}}");
    let url = format!("http://{address}/");
    eventually("the other container answers", || {
        orlop
            .run(&["run", "--rm", "busybox", "wget", "-qO-", &url])
            .stdout()
            == PAGE
    });
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let show = ["readlink", "/proc/self/ns/net"];
    orlop
        .run(&[&["run", "--rm", "--network", "host", "busybox"], &show[..]].concat())
        .success()
        .stdout_is(&format!("{}\n", own.display()));
}

#[test]
fn names_are_resolved_as_on_the_host() {
    let orlop = Instance::with_busybox();
    let outcome = orlop
        .run(&[
            "run",
            "--rm",
            "--add-host",
            "db:10.1.2.3",
            "--dns",
            "9.9.9.9",
            "busybox",
            "cat",
            "/etc/hosts",
            "/etc/resolv.conf",
        ])
        .success();
    outcome
        .stdout_has("10.1.2.3")
        .stdout_has("127.0.0.1")
        .stdout_has("nameserver 9.9.9.9");
}

#[test]
fn k4_a_flushed_firewall_is_restored_while_the_service_runs() {
    let orlop = Instance::with_busybox();
    orlop.serve("web", &["-p", "127.0.0.1:0:80"]);
    let address = orlop.published("web", "80");
    let answers = || http::serves(&address, PAGE);
    eventually("the web server answers", answers);
    let table = format!("orlop-{}", orlop.name());
    let nft = |verb: &str| {
        let mut nft = Command::new("nft");
        nft.args([verb, "table", "ip", &table]).output().unwrap()
    };
    let rules = || String::from_utf8(nft("list").stdout).unwrap();
    let before = rules();
    for verb in ["flush", "delete"] {
        assert!(nft(verb).status.success(), "nft {verb} table");
        eventually("the table is back", || rules() == before);
        assert!(answers(), "the published port is back");
    }
}
