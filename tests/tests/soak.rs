//! A short soak: everything at once for twenty seconds, and all that was acknowledged is whole. The long one is
//! `make soak`, which also looks at lock waits: a test asserts no time.

use std::time::Duration;

use orlop_tests::soak::{self, Plan};

#[test]
fn what_is_acknowledged_stays_whole_while_everything_happens_at_once() {
    let report = soak::run(Plan {
        duration: Duration::from_secs(20),
        workers: 6,
        seed: 20,
    });
    assert!(report.failures().is_empty(), "{report}");
    for kind in [
        "load", "import", "tag", "untag", "push", "pull", "run", "verify", "collect",
    ] {
        assert!(report.count(kind) > 0, "no {kind} was done\n{report}");
    }
    assert!(report.count("last verify") > 0, "{report}");
}
