//! `docs/security-rows.md` is a page about tests: they are where it says.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The parts of the checklist and how many rows they have.
const PARTS: [(char, u32); 4] = [('B', 37), ('C', 20), ('D', 15), ('K', 11)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Row → what the page says of where it is tested.
fn page() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("docs/security-rows.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line
            .split(" | ")
            .map(|cell| cell.trim_matches([' ', '|']))
            .collect();
        let [row, _, tested] = cells[..] else {
            continue;
        };
        if row.ends_with(|last: char| last.is_ascii_digit()) {
            assert_eq!(
                rows.insert(row.to_owned(), tested.to_owned()),
                None,
                "{row} twice"
            );
        }
    }
    rows
}

/// Whether the name of a test begins with this row among others: `b10_d5_a_mount…` is of D5.
fn is_of(name: &str, row: &str) -> bool {
    let is_row = |word: &&str| {
        let digits = word.get(1..).unwrap_or_default();
        word.starts_with(['b', 'c', 'd', 'k'])
            && !digits.is_empty()
            && digits.bytes().all(|b| b.is_ascii_digit())
    };
    name.split('_')
        .take_while(is_row)
        .any(|word| word.eq_ignore_ascii_case(row))
}

#[test]
fn the_name_of_a_test_tells_its_rows() {
    assert!(is_of("b10_d5_a_mount", "B10") && is_of("b10_d5_a_mount", "D5"));
    assert!(!is_of("b10_d5_a_mount", "B1") && !is_of("a_b1", "B1") && !is_of("k_b1", "B1"));
}

#[test]
fn every_row_has_its_tests_where_the_page_says_or_a_reason() {
    let page = page();
    let all = PARTS
        .iter()
        .flat_map(|(part, count)| (1..=*count).map(move |number| format!("{part}{number}")));
    let all: Vec<String> = all.collect();
    assert_eq!(page.len(), all.len());
    for row in all {
        let tested = page
            .get(&row)
            .unwrap_or_else(|| panic!("{row} is not on the page"));
        let files: Vec<&str> = tested
            .split('`')
            .filter(|word| word.ends_with(".rs"))
            .collect();
        assert!(
            !files.is_empty() || tested.starts_with("does not apply: "),
            "{row}"
        );
        for file in files {
            let text = fs::read_to_string(root().join(file))
                .unwrap_or_else(|_| panic!("{row}: no {file}"));
            let mut names = text.split("fn ").skip(1);
            assert!(
                names.any(|name| is_of(name, &row)),
                "{file} has no test of {row}"
            );
        }
    }
}
