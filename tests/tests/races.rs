//! Two things done to one container at once (row 31 of the fault matrix): one of them wins, the other is told so, and
//! what is left is one of the states that one after the other could have led to.
#![allow(clippy::print_stdout, reason = "tests that tell how often")]

use orlop_tests::churn::left;
use orlop_tests::churn::trace::Trace;
use orlop_tests::crash::chance::Chance;
use orlop_tests::{Instance, Outcome};

const ROUNDS: u32 = 15;
/// What a loser may be told.
const TOLD: [&str; 6] = [
    "no such container",
    "is being removed",
    "is running",
    "is not running",
    "is in use by container",
    "ended",
];

fn orlop() -> Instance {
    let orlop = Instance::with_busybox();
    orlop.run(&["run", "--rm", "busybox", "true"]).success();
    orlop
}

/// Both at once, with luck in who is first.
fn race(orlop: &Instance, chance: &mut Chance, one: &[&str], other: &[&str]) -> (Outcome, Outcome) {
    let (first, second) = (chance.below(15), chance.below(15));
    let run = |late, command: &[&str]| {
        std::thread::sleep(std::time::Duration::from_millis(late));
        orlop.run(command)
    };
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| run(second, other));
        (run(first, one), beside.join().expect("a command runs"))
    })
}

/// It succeeded, or said why not.
#[track_caller]
fn won(outcome: &Outcome) -> bool {
    let said = outcome.stderr();
    let good = outcome.code() == 0;
    assert!(
        good || TOLD.iter().any(|told| said.contains(told)),
        "{}: {said}",
        outcome.code()
    );
    good
}

fn exists(orlop: &Instance, name: &str) -> bool {
    orlop.run(&["inspect", name]).code() == 0
}

#[test]
fn removing_against_starting() {
    let (orlop, mut chance) = (orlop(), Chance::new(31));
    let before = Trace::at_rest(&orlop);
    let mut removed = 0;
    for _ in 0..ROUNDS {
        orlop
            .run(&["create", "--name", "box", "busybox", "sleep", "1000"])
            .success();
        let (rm, start) = race(&orlop, &mut chance, &["rm", "box"], &["start", "box"]);
        assert!(
            won(&rm) != won(&start),
            "one of both: {} {}",
            rm.stderr(),
            start.stderr()
        );
        removed += u32::from(won(&rm));
        assert_eq!(exists(&orlop, "box"), won(&start));
        if won(&start) {
            orlop.run(&["exec", "box", "true"]).success();
            orlop.run(&["rm", "-f", "box"]).success();
        }
    }
    println!("{ROUNDS} rounds, removed {removed} times");
    assert_eq!(left(&orlop, &before), [""; 0]);
}

#[test]
fn entering_against_stopping() {
    let (orlop, mut chance) = (orlop(), Chance::new(32));
    let before = Trace::at_rest(&orlop);
    let mut entered = 0;
    orlop
        .run(&["create", "--name", "box", "busybox", "sleep", "1000"])
        .success();
    for _ in 0..ROUNDS {
        orlop.run(&["start", "box"]).success();
        let (exec, stop) = race(
            &orlop,
            &mut chance,
            &["exec", "box", "true"],
            &["stop", "-t", "0", "box"],
        );
        assert!(won(&stop));
        // A command that was let in and then killed with all the others has a killed one's code.
        entered += u32::from(exec.code() == 137 || won(&exec));
        assert_eq!(orlop.status("box"), "exited");
    }
    println!("{ROUNDS} rounds, entered {entered} times");
    orlop.run(&["rm", "box"]).success();
    assert_eq!(left(&orlop, &before), [""; 0]);
}

#[test]
fn removing_against_removing() {
    let (orlop, mut chance) = (orlop(), Chance::new(33));
    let before = Trace::at_rest(&orlop);
    for round in 0..ROUNDS {
        orlop.run_script("box", "sleep 1000");
        let rm = ["rm", "-f", "box"];
        let (one, other) = race(&orlop, &mut chance, &rm, &rm);
        // As with Docker, `rm -f` of what is not there is no error.
        assert!(won(&one) && won(&other), "{round}");
        assert!(!exists(&orlop, "box"));
        orlop.run(&["create", "--name", "box", "busybox"]).success();
        let (one, other) = race(&orlop, &mut chance, &["rm", "box"], &["rm", "box"]);
        assert!(
            won(&one) != won(&other),
            "{round}: {} {}",
            one.stderr(),
            other.stderr()
        );
        assert!(!exists(&orlop, "box"));
    }
    println!("{} rounds", 2 * ROUNDS);
    assert_eq!(left(&orlop, &before), [""; 0]);
}

#[test]
fn a_name_is_given_once() {
    let (orlop, mut chance) = (orlop(), Chance::new(34));
    let before = Trace::at_rest(&orlop);
    let run = ["run", "-d", "--name", "box", "busybox", "sleep", "1000"];
    for round in 0..ROUNDS {
        let (one, other) = race(&orlop, &mut chance, &run, &run);
        assert!(won(&one) != won(&other), "{round}");
        assert_eq!(
            orlop.run(&["ps", "-aq"]).success().stdout().lines().count(),
            1
        );
        orlop.run(&["rm", "-f", "box"]).success();
    }
    println!("{ROUNDS} rounds");
    assert_eq!(left(&orlop, &before), [""; 0]);
}

/// Everything against everything: no command hangs, none breaks another, nothing is left.
#[test]
fn eight_people_on_one_container() {
    const PEOPLE: u64 = 8;
    const DEEDS: u64 = 25;
    let orlop = orlop();
    let before = Trace::at_rest(&orlop);
    let deeds: [&[&str]; 9] = [
        &["run", "-d", "--name", "box", "busybox", "sleep", "1000"],
        &["start", "box"],
        &["stop", "-t", "0", "box"],
        &["restart", "-t", "0", "box"],
        &["exec", "box", "true"],
        &["pause", "box"],
        &["unpause", "box"],
        &["kill", "box"],
        &["rm", "-f", "box"],
    ];
    std::thread::scope(|scope| {
        for person in 0..PEOPLE {
            let (orlop, deeds) = (&orlop, &deeds);
            scope.spawn(move || {
                let mut chance = Chance::new(person);
                for _ in 0..DEEDS {
                    let deed = chance.pick(deeds).expect("there are some");
                    let outcome = orlop.run(deed);
                    let internal = ["panic", "internal", "transport error", "left something"];
                    let said = outcome.stderr();
                    assert!(
                        !internal.iter().any(|word| said.contains(word)),
                        "{deed:?}: {said}"
                    );
                }
            });
        }
    });
    println!("{} deeds", PEOPLE * DEEDS);
    orlop.run(&["rm", "-f", "box"]).success();
    orlop.run(&["run", "--rm", "busybox", "true"]).success();
    assert_eq!(orlop.run(&["ps", "-aq"]).success().stdout(), "");
    assert_eq!(left(&orlop, &before), [""; 0]);
}
