//! The parser on the Dockerfiles of `testdata/dockerfile`: each folder's `result` is what it must
//! say. `ORLOP_BLESS=1` writes the results anew, to be read before they are committed.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "test code")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use orlop_builder::dockerfile::{Dockerfile, parse};
use proptest::prelude::*;

fn shown(text: &str) -> String {
    let parsed = match parse(text, "Dockerfile") {
        Ok(parsed) => parsed,
        Err(error) => return format!("{error}\n"),
    };
    let mut out = String::new();
    for step in &parsed.global_args {
        writeln!(out, "{}: {}", step.span.line, step.instruction).unwrap();
    }
    for stage in &parsed.stages {
        writeln!(out, "{}: {}", stage.span.line, stage.from).unwrap();
        for step in &stage.steps {
            writeln!(out, "{}: {:?}", step.span.line, step.instruction).unwrap();
        }
    }
    for warning in &parsed.warnings {
        writeln!(out, "warning in line {}: {}", warning.line, warning.message).unwrap();
    }
    out
}

#[test]
fn each_case_gives_its_result() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/dockerfile");
    let mut cases = 0;
    for case in fs::read_dir(directory).unwrap() {
        let case = case.unwrap().path();
        let result = shown(&fs::read_to_string(case.join("Dockerfile")).unwrap());
        if std::env::var("ORLOP_BLESS").is_ok() {
            fs::write(case.join("result"), &result).unwrap();
        }
        let expected = fs::read_to_string(case.join("result")).unwrap();
        assert_eq!(result, expected, "{}", case.display());
        cases += 1;
    }
    assert!(cases >= 12);
}

/// What each instruction says, without its place.
fn instructions(parsed: &Dockerfile) -> Vec<String> {
    let steps = parsed.stages.iter().flat_map(|stage| &stage.steps);
    steps.map(|step| step.instruction.to_string()).collect()
}

proptest! {
    #[test]
    fn the_parser_never_panics(text in "(FROM|RUN|COPY|ENV|#|<<|\\\\|\"|'|\\[|\\]|\\$|=|--|EOF|[a-z]| |\n){0,60}") {
        parse(&text, "Dockerfile").ok();
        parse(&format!("FROM base\n{text}"), "Dockerfile").ok();
    }

    #[test]
    fn what_is_shown_parses_to_the_same(
        lines in prop::collection::vec("(RUN|CMD|WORKDIR|USER|ENV A=|LABEL a=|COPY x |ADD --chown=1 x |ARG A=|EXPOSE|STOPSIGNAL) ?[a-z0-9/.]{1,8}", 1..8)
    ) {
        let text = format!("FROM base\n{}\n", lines.join("\n"));
        if let Ok(parsed) = parse(&text, "Dockerfile") {
            let first = instructions(&parsed);
            let again = format!("FROM base\n{}\n", first.join("\n"));
            let second = parse(&again, "Dockerfile").map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(first, instructions(&second));
        }
    }
}
