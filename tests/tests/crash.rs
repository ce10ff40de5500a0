//! SECURITY section 4.3 and rows 1, 2 and 8 of section 5.2: what the store has acknowledged outlives
//! `kill -9` at any moment and loss of power. `make crash` does the same for longer.
#![allow(clippy::print_stdout, reason = "test code")]

use std::time::Duration;

use orlop_tests::crash::{Plan, failpoints, run};

#[test]
fn nothing_acknowledged_is_lost_at_any_named_moment_nor_at_any_other_nor_with_the_power() {
    let tally = run(&Plan {
        rounds: 1,
        kills: 20,
        power_cuts: 4,
        time: Duration::from_secs(120),
        seed: 7,
        lanes: 4,
        options: Vec::new(),
    });
    println!("{tally}");
    assert!(tally.violations.is_empty(), "{tally}");
    assert!(tally.missed().is_empty(), "never met: {:?}", tally.missed());
    assert_eq!(tally.failpoints.len(), failpoints().len());
    assert_eq!((tally.kills, tally.power_cuts), (20, 4));
}
