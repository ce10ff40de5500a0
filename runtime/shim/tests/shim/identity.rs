//! Who the processes are: users, groups, capabilities.

use orlop_shim::protocol::{Failure, Reply};
use serde_json::json;

use crate::lifecycle::wait_for;
use crate::support::Box;

#[test]
fn c1_a_number_is_not_looked_up_as_a_name() {
    let mut container = Box::new(&["id", "-u"]);
    container.config.user = "1000".to_owned();
    assert_eq!(container.run(), (0, "1000\n".to_owned()));
}

#[test]
fn c2_a_number_out_of_range_is_refused() {
    for user in ["4294967296", "-1", "0x0", "+0"] {
        let mut container = Box::new(&["id"]);
        container.config.user = user.to_owned();
        let reply = container.start_fails();
        assert!(
            matches!(
                reply,
                Reply::Failed {
                    failure: Failure::Invalid,
                    ..
                }
            ),
            "{reply:?}"
        );
    }
}

/// A line of `/proc/self/status`.
fn status<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("{name} in {text}")).trim()
}

#[test]
fn c6_nothing_is_inheritable_or_ambient() {
    let mut container = Box::shell("cat /proc/self/status; sleep 100");
    container.spec["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    container.spec["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]);
    container.start();
    let (_, text) = container.exec("", &["cat", "/proc/self/status"]);
    wait_for(|| container.output().contains("Seccomp_filters"));
    for text in [text, container.output()] {
        assert_eq!(status(&text, "CapInh"), "0000000000000000");
        assert_eq!(status(&text, "CapAmb"), "0000000000000000");
        assert_eq!(status(&text, "CapBnd"), "00000000800405fb");
        assert_eq!(status(&text, "CapEff"), "00000000800405fb");
        assert_eq!(status(&text, "Seccomp"), "2");
        assert_eq!(status(&text, "NoNewPrivs"), "0");
    }
}

#[test]
fn c7_a_user_that_is_not_root_has_no_capability() {
    let mut container = Box::new(&["cat", "/proc/self/status"]);
    container.config.user = "1000".to_owned();
    container.spec["process"]["noNewPrivileges"] = json!(true);
    let (_, text) = container.run();
    for set in ["CapEff", "CapPrm", "CapAmb", "CapInh"] {
        assert_eq!(status(&text, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(&text, "NoNewPrivs"), "1");
    assert_eq!(status(&text, "Seccomp"), "2");
}

#[test]
fn c8_the_primary_group_is_a_supplementary_one() {
    let mut container = Box::new(&["grep", "Groups", "/proc/self/status"]);
    container.config.user = "1234:1234".to_owned();
    assert_eq!(container.run().1.trim(), "Groups:\t1234");
}
