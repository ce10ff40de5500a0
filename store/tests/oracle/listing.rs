//! Three readers of one archive.

use std::path::Path;
use std::process::Command;

use orlop_store::StoreError;
use orlop_store::layers::tar::{Kind, TarReader};

/// What all readers can say of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) kind: char,
    pub(crate) size: u64,
}

fn row(name: &str, kind: char, size: u64) -> Row {
    Row {
        name: name.to_owned(),
        kind,
        size,
    }
}

pub(crate) fn we_list(archive: &[u8]) -> Result<Vec<Row>, StoreError> {
    let mut reader = TarReader::new(archive);
    let mut rows = Vec::new();
    while let Some(member) = reader.next_member()? {
        let kind = match member.kind {
            Kind::File => '-',
            Kind::Directory => 'd',
            Kind::Symlink => 'l',
            Kind::HardLink => 'h',
            _ => '?',
        };
        rows.push(row(
            &String::from_utf8_lossy(&member.path),
            kind,
            member.size,
        ));
    }
    Ok(rows.into_iter().map(tidy).collect())
}

/// Listings differ in the slash of a directory, and in what they call the size of what has none.
fn tidy(mut row: Row) -> Row {
    if row.name.ends_with('/') && row.kind == '-' {
        row.kind = 'd';
    }
    if row.kind == 'd' {
        row.name.truncate(row.name.trim_end_matches('/').len());
    }
    if row.kind != '-' {
        row.size = 0;
    }
    row
}

fn bare(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter().map(tidy).collect()
}

/// All archives `0.tar` and so on of a directory, in one process; `None` for what it refuses.
pub(crate) fn python_lists(directory: &Path, count: usize) -> Vec<Option<Vec<Row>>> {
    let script = r#"
import json, sys, tarfile
for number in range(int(sys.argv[2])):
    try:
        with tarfile.open(f"{sys.argv[1]}/{number}.tar", "r:", errorlevel=2) as t:
            rows = []
            for i in t:
                kind = "d" if i.isdir() else "l" if i.issym() else "h" if i.islnk() else "-" if i.isreg() else "?"
                rows.append([i.name, kind, i.size])
            t.fileobj.seek(0, 2)
            if t.offset > t.fileobj.tell(): raise tarfile.ReadError("cut")
        print(json.dumps(rows))
    except Exception:
        print("null")
"#;
    let out = Command::new("python3")
        .args(["-c", script])
        .arg(directory)
        .arg(count.to_string())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    let read = |line| serde_json::from_str::<Option<Vec<(String, char, u64)>>>(line).unwrap();
    let rows = |rows: Vec<(String, char, u64)>| {
        bare(
            rows.iter()
                .map(|(name, kind, size)| row(name, *kind, *size))
                .collect(),
        )
    };
    text.lines().map(|line| read(line).map(rows)).collect()
}

/// `None` for what it refuses or warns of.
pub(crate) fn gnu_tar_lists(archive: &Path) -> Option<Vec<Row>> {
    let out = Command::new("tar")
        .args([
            "-tvP",
            "--numeric-owner",
            "--quoting-style=literal",
            "--full-time",
            "-f",
        ])
        .arg(archive)
        .env("TZ", "UTC")
        .output()
        .unwrap();
    if !out.status.success() || !out.stderr.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Some(bare(text.lines().map(gnu_row).collect()))
}

/// `-rw-r--r-- 0/0 5 2020-01-01 00:00:00 name`, with ` -> target` or ` link to target`.
fn gnu_row(line: &str) -> Row {
    let kind = line.chars().next().unwrap();
    let mut rest = line;
    let mut words = Vec::new();
    for _ in 0..5 {
        let (word, after) = rest.trim_start().split_once(' ').unwrap();
        words.push(word);
        rest = after;
    }
    let name = rest
        .split(" -> ")
        .next()
        .unwrap()
        .split(" link to ")
        .next()
        .unwrap();
    row(name, kind, words[2].parse().unwrap())
}
