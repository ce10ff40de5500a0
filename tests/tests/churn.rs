//! A short churn: containers come and go, some run at once, and nothing of them stays. The thousands are `make churn`.

use orlop_tests::churn::{self, Plan};

#[test]
fn nothing_stays_of_containers_that_came_and_went() {
    let report = churn::run(Plan {
        cycles: 24,
        at_once: 24,
        workers: 4,
    });
    println!("{report}");
    assert!(report.remains().is_empty(), "{report}");
    assert_eq!(report.count("cycle"), 24, "{report}");
    // Beside a container that does nothing.
    let shim = report.shim_kib().unwrap();
    assert!((1..1024).contains(&shim), "{report}");
}
