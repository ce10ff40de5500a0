//! Networks of users, by command.
#![allow(clippy::unwrap_used, reason = "test code")]

use orlop_tests::{Instance, PAGE, eventually};

fn address(orlop: &Instance, container: &str, network: &str) -> String {
    let form = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
    orlop.inspect(container, &form)
}

/// A network with every option; its id. Not below 10.0.0.0, where instances take theirs from: others run.
fn create_front(orlop: &Instance, net: u8) -> String {
    let [subnet, gateway, range] =
        ["0/24", "7", "128/25"].map(|end| format!("192.168.{net}.{end}"));
    let create = [
        "network",
        "create",
        "--subnet",
        &subnet,
        "--gateway",
        &gateway,
        "--ip-range",
        &range,
        "--label",
        "tier=web",
        "front",
    ];
    let id = orlop.run(&create).success().line();
    orlop
        .run(&create)
        .exits(1)
        .stderr_has("front exists already");
    id
}

#[test]
fn a_network_is_made_told_and_removed() {
    let orlop = Instance::start();
    let id = create_front(&orlop, 213);
    assert_eq!(id.len(), 64, "{id}");
    let refused = |option: &str, value: &str| {
        let create = ["network", "create", option, value, "back"];
        orlop.run(&create).exits(1).stderr_has(value);
    };
    refused("--subnet", "192.168.213.128/25");
    refused("--subnet", "192.168.212.0/31");
    refused("--opt", "encrypted");
    refused("--driver", "macvlan");
    orlop
        .run(&["network", "ls", "--filter", "label=tier=web"])
        .success()
        .stdout_has(&id[..12])
        .stdout_lacks("host");
    orlop
        .run(&["network", "inspect", &id[..12]])
        .success()
        .stdout_has("\"Gateway\": \"192.168.213.7\"")
        .stdout_has("\"IPRange\": \"192.168.213.128/25\"");
    let rm = |name: &str| orlop.run(&["network", "rm", name]);
    rm("front").success().stdout_is("front\n");
    rm("front").exits(1).stderr_has("no such network: front");
    for name in ["bridge", "host", "none"] {
        rm(name).exits(1).stderr_has(name);
    }
}

#[test]
fn containers_of_a_network_have_addresses_of_it_and_keep_it_in_use() {
    let orlop = Instance::with_busybox();
    let id = create_front(&orlop, 214);
    let with = ["--network", "front", "--ip", "192.168.214.20"];
    orlop.serve("web", &with);
    orlop.serve("second", &["--network", &id[..12]]);
    assert_eq!(address(&orlop, "web", "front"), "192.168.214.20");
    assert_eq!(address(&orlop, "second", "front"), "192.168.214.128");
    let again = [&["run", "--name", "third"], &with[..], &["busybox", "true"]].concat();
    orlop.run(&again).exits(125).stderr_has("192.168.214.20");
    orlop
        .run(&["network", "inspect", "front"])
        .success()
        .stdout_has("\"IPv4Address\": \"192.168.214.20/24\"")
        .stdout_has("\"Name\": \"second\"");
    let names = "{{.Names}} {{.Networks}}";
    orlop
        .run(&["ps", "--filter", "network=front", "--format", names])
        .success()
        .stdout_is("second front\nweb front\n");
    eventually("one container reaches another", || {
        orlop.reaches("second", "192.168.214.20")
    });
    let rm = || orlop.run(&["network", "rm", "front"]);
    let prune = || orlop.run(&["network", "prune", "-f"]).success();
    rm().exits(1).stderr_has("in use by container");
    orlop.run(&["rm", "-f", "web", "second"]).success();
    // One that does not run would miss it at its next start.
    prune().stdout_is("");
    orlop.run(&["rm", "third"]).success();
    prune().stdout_is("Deleted Networks:\nfront\n\n");
    let start = ["run", "--network", "front", "busybox", "true"];
    orlop
        .run(&start)
        .exits(125)
        .stderr_has("no such network: front");
}

#[test]
fn a_running_container_is_connected_and_disconnected_and_a_stopped_one_for_its_next_start() {
    let orlop = Instance::with_busybox();
    orlop.run(&["network", "create", "front"]).success();
    orlop.run(&["network", "create", "back"]).success();
    orlop.serve("db", &["--network", "back"]);
    orlop.serve("web", &["--network", "front"]);
    let db = address(&orlop, "db", "back");
    assert!(orlop.cannot_reach("web", &db));
    orlop.run(&["network", "connect", "back", "web"]).success();
    eventually("a connected container reaches the network", || {
        orlop.reaches("web", &db)
    });
    orlop
        .run(&["network", "connect", "back", "web"])
        .exits(1)
        .stderr_has("web is in network back already");
    orlop.run(&["restart", "-t", "0", "web"]).success();
    eventually("it is in both networks after a restart", || {
        orlop.reaches("web", &db)
    });
    orlop
        .run(&["network", "disconnect", "back", "web"])
        .success();
    assert!(orlop.cannot_reach("web", &db));
    orlop
        .run(&["network", "disconnect", "back", "web"])
        .exits(1)
        .stderr_has("back");
    orlop
        .run(&["network", "disconnect", "-f", "back", "nobody"])
        .success();
    orlop.run(&["stop", "-t", "0", "web"]).success();
    orlop.run(&["network", "connect", "back", "web"]).success();
    orlop.run(&["start", "web"]).success();
    eventually("it has joined at its start", || orlop.reaches("web", &db));
    orlop.run_sleeper("hosted", &["--network", "host"]);
    orlop
        .run(&["network", "connect", "back", "hosted"])
        .exits(1)
        .stderr_has("host");
    orlop
        .run(&["network", "connect", "host", "web"])
        .exits(1)
        .stderr_has("host");
}

#[test]
fn a_container_that_was_taken_out_of_all_networks_stays_out() {
    let orlop = Instance::with_busybox();
    orlop.serve("web", &["-p", "127.0.0.1:0:80"]);
    let links = || {
        orlop
            .run(&["exec", "web", "ip", "-o", "link"])
            .success()
            .stdout()
    };
    assert!(links().contains("eth0"));
    let change = |verb: &str| orlop.run(&["network", verb, "bridge", "web"]).success();
    change("disconnect");
    assert!(!links().contains("eth0"));
    orlop.run(&["restart", "-t", "0", "web"]).success();
    assert!(!links().contains("eth0"), "{}", links());
    // One that does not run may be connected twice: the last word counts.
    orlop.run(&["stop", "-t", "0", "web"]).success();
    change("connect");
    change("connect");
    orlop.run(&["start", "web"]).success();
    assert!(links().contains("eth0"));
    orlop
        .run(&["network", "disconnect", "bridge", "web"])
        .success();
    orlop
        .run(&["network", "disconnect", "bridge", "web"])
        .exits(1);
    orlop
        .run(&["network", "disconnect", "-f", "bridge", "web"])
        .success();
}

#[test]
fn networks_and_who_is_in_them_survive_the_death_of_the_service() {
    let orlop = Instance::with_busybox();
    orlop.run(&["network", "create", "front"]).success();
    orlop.run(&["network", "create", "back"]).success();
    orlop.serve("web", &["--network", "front", "-p", "127.0.0.1:0:80"]);
    orlop.serve("other", &["--network", "front"]);
    let at = address(&orlop, "web", "front");
    orlop.kill_service("runtime");
    orlop.up();
    assert!(orlop.reaches("other", &at));
    orlop
        .run(&["network", "connect", "back", "other"])
        .success();
    orlop
        .run(&["network", "rm", "front"])
        .exits(1)
        .stderr_has("in use");
    orlop.run(&["rm", "-f", "web", "other"]).success();
    orlop
        .run(&["network", "prune", "-f"])
        .success()
        .stdout_has("front")
        .stdout_has("back");
}

#[test]
fn a_container_in_the_namespace_of_another_is_at_its_address() {
    let orlop = Instance::with_busybox();
    orlop.serve("web", &["--hostname", "shown"]);
    let beside = ["run", "--rm", "--network", "container:web", "busybox"];
    let ask = [&beside[..], &["wget", "-qO-", "http://127.0.0.1/"]].concat();
    eventually("the neighbour answers on the loopback address", || {
        orlop.run(&ask).stdout() == PAGE
    });
    orlop
        .run(&[&beside[..], &["hostname"]].concat())
        .success()
        .stdout_is("shown\n");
    for (option, value) in [("-p", "80"), ("--dns", "9.9.9.9"), ("--hostname", "mine")] {
        let mut args = beside.to_vec();
        args.splice(2..2, [option, value]);
        orlop.run(&args).exits(125);
    }
    orlop.run(&["stop", "-t", "0", "web"]).success();
    orlop.run(&ask).exits(125).stderr_has("does not run");
}

#[test]
fn the_mtu_of_a_network_is_that_of_its_interfaces() {
    let orlop = Instance::with_busybox();
    let mtu = "com.docker.network.driver.mtu=1400";
    orlop
        .run(&["network", "create", "-o", mtu, "small"])
        .success();
    let run = ["run", "--rm", "--network", "small", "busybox"];
    let show = [&run[..], &["ip", "link", "show", "eth0"]].concat();
    orlop.run(&show).success().stdout_has("mtu 1400");
}

#[test]
fn an_internal_network_lets_nothing_out() {
    let orlop = Instance::with_busybox();
    orlop
        .run(&["network", "create", "--internal", "closed"])
        .success();
    orlop.serve("first", &["--network", "closed"]);
    orlop
        .run(&["create", "--network", "closed", "-p", "80", "busybox"])
        .success()
        .stderr_has("published ports are discarded with --network closed");
    orlop.serve("second", &["--network", "closed"]);
    let first = address(&orlop, "first", "closed");
    eventually("those inside meet", || orlop.reaches("second", &first));
    let routes = orlop.run(&["exec", "second", "ip", "route"]).success();
    assert!(!routes.stdout().contains("default"), "{}", routes.stdout());
}

#[test]
fn containers_of_a_network_call_each_other_by_name() {
    let orlop = Instance::with_busybox();
    orlop.run(&["network", "create", "front"]).success();
    orlop.run(&["network", "create", "back"]).success();
    let options = [
        "--network",
        "front",
        "--network-alias",
        "www",
        "--hostname",
        "shown",
    ];
    orlop.serve("web", &options);
    orlop.serve("other", &["--network", "front"]);
    let id = orlop.inspect("web", "{{.Id}}");
    for name in ["web", "www", "shown", "web.front", &id[..12]] {
        eventually(&format!("{name} answers"), || orlop.reaches("other", name));
    }
    orlop.serve("apart", &["--network", "back"]);
    assert!(orlop.cannot_reach("apart", "web"));
    let connect = ["network", "connect", "--alias", "site", "back", "web"];
    orlop.run(&connect).success();
    assert!(orlop.reaches("apart", "site"));
    orlop
        .run(&["network", "disconnect", "front", "web"])
        .success();
    assert!(orlop.cannot_reach("other", "www"));
    assert!(
        orlop.reaches("web", "apart"),
        "its name server is the one of the other network"
    );
    orlop.kill_service("runtime");
    orlop.up();
    assert!(orlop.reaches("apart", "site"));
    assert!(orlop.reaches("web", "apart"));
}

#[test]
fn a_container_that_is_renamed_is_called_by_its_new_name_only_and_stays_so() {
    let orlop = Instance::with_busybox();
    orlop.run(&["network", "create", "front"]).success();
    orlop.serve("web", &["--network", "front"]);
    orlop.serve("other", &["--network", "front"]);
    orlop.run(&["rename", "web", "site"]).success();
    eventually("it answers", || orlop.reaches("other", "site"));
    assert!(orlop.cannot_reach("other", "web"));
    orlop.kill_service("runtime");
    orlop.up();
    assert!(orlop.reaches("other", "site"));
    assert!(orlop.cannot_reach("other", "web"));
}

#[test]
fn an_address_that_is_kept_is_no_containers() {
    let orlop = Instance::with_busybox();
    let create = |options: &[&str]| {
        let args = [&["network", "create"], options, &["kept"]];
        orlop.run(&args.concat())
    };
    let subnet = ["--subnet", "192.168.215.0/24"];
    create(&[&subnet[..], &["--aux-address", "router=192.168.216.2"]].concat())
        .exits(1)
        .stderr_has("192.168.216.2");
    create(&[&subnet[..], &["--scope", "swarm"]].concat())
        .exits(125)
        .stderr_has("swarm");
    create(&[&subnet[..], &["--ipam-driver", "other"]].concat())
        .exits(125)
        .stderr_has("other");
    let keep = ["--aux-address", "router=192.168.215.2", "--attachable"];
    create(&[&subnet[..], &keep[..]].concat()).success();
    orlop
        .run(&["network", "inspect", "kept"])
        .success()
        .stdout_has("\"router\": \"192.168.215.2\"")
        .stdout_has("\"Attachable\": true");
    let check = || {
        orlop.serve("web", &["--network", "kept"]);
        assert_eq!(address(&orlop, "web", "kept"), "192.168.215.3");
        orlop.run(&["rm", "-f", "web"]).success();
        let ip = ["run", "--rm", "--network", "kept", "--ip", "192.168.215.2"];
        let ip = [&ip[..], &["busybox", "true"]].concat();
        orlop.run(&ip).exits(125).stderr_has("192.168.215.2");
    };
    check();
    orlop.kill_service("runtime");
    check();
}
