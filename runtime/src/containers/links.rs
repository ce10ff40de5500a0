//! Links in the network of everyone: lines of `/etc/hosts`, with the address that the linked container has
//! while it runs.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::record::Record;
use super::{Container, Containers};
use crate::network::{DEFAULT, Link};

/// A container may make its file as large as it likes; one that is larger is its own business.
const HOSTS_BYTES_MAX: u64 = 1024 * 1024;
/// One changes a file at a time. Not by a lock of the file: a container could hold that.
static RENEWING: Mutex<()> = Mutex::new(());

impl Containers {
    /// What a container's links add to its `/etc/hosts`. One that does not run has no line.
    pub(super) fn link_lines(&self, record: &Record) -> String {
        let line = |link: &Link| {
            let target = self.find(&link.container).ok()?.record();
            Some(line(address(&target)?, link, &target))
        };
        links(record).iter().filter_map(line).collect()
    }

    /// A container runs, perhaps with another address: tells those that are linked to it, after the
    /// answer.
    pub(super) fn renew_links_to(&self, container: &Container) {
        let (this, target) = (self.clone(), container.record());
        tokio::task::spawn_blocking(move || {
            for other in this.all() {
                this.renew_links(&other, &target);
            }
        });
    }

    fn renew_links(&self, container: &Arc<Container>, target: &Record) {
        let record = container.record();
        let to_target = |link: &&Link| link.container == target.id;
        let (Some(address), true) = (address(target), record.is_running()) else {
            return;
        };
        for link in links(&record).iter().filter(to_target) {
            let path = container.etc_file("/etc/hosts");
            let names = names(link, target);
            if let Err(error) = renew(&path, &names, &line(address, link, target)) {
                tracing::warn!(%error, id = record.id, "cannot renew a link of a container");
            }
        }
    }
}

/// A container's links in the network of everyone.
fn links(record: &Record) -> &[Link] {
    let mut memberships = record.memberships.iter();
    let everyone = memberships.find(|membership| membership.network == DEFAULT);
    everyone.map_or(&[], |membership| &membership.links)
}

/// In the network of everyone.
fn address(record: &Record) -> Option<Ipv4Addr> {
    let mut endpoints = record.attachment.as_ref()?.endpoints.iter();
    let everyone = endpoints.find(|endpoint| endpoint.network == DEFAULT)?;
    Some(everyone.address)
}

/// Docker's: what it is called, then its id. Its name, which can change, follows.
fn names(link: &Link, target: &Record) -> String {
    let short: String = target.id.chars().take(12).collect();
    format!("\t{} {short} ", link.alias)
}

fn line(address: Ipv4Addr, link: &Link, target: &Record) -> String {
    format!("{address}{}{}\n", names(link, target), target.title())
}

/// Replaces the line with these names, or adds one. The file stays the same one: it is mounted.
fn renew(path: &Path, names: &str, line: &str) -> io::Result<()> {
    // Several that are linked to may start at once.
    let _turn = RENEWING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bytes = Vec::new();
    let read = File::open(path)?
        .take(HOSTS_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if read as u64 > HOSTS_BYTES_MAX {
        return Ok(());
    }
    let renewed = renewed(&String::from_utf8_lossy(&bytes), names, line);
    if renewed.as_bytes() == bytes {
        return Ok(());
    }
    // Not emptied first: there are names in it at every moment, whoever is killed.
    let file = File::options().write(true).open(path)?;
    file.write_all_at(renewed.as_bytes(), 0)?;
    file.set_len(renewed.len() as u64)
}

fn renewed(text: &str, names: &str, line: &str) -> String {
    let is_old = |old: &&str| old.contains(names);
    if !text.split_inclusive('\n').any(|old| is_old(&old)) {
        let end = match text.is_empty() || text.ends_with('\n') {
            true => "",
            false => "\n",
        };
        return format!("{text}{end}{line}");
    }
    let lines = text.split_inclusive('\n');
    lines
        .map(|old| if is_old(&old) { line } else { old })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_renewed_at_once_are_all_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = file.path();
                let (names, line) = (
                    format!("\tweb{number} x "),
                    format!("10.0.0.9\tweb{number} x y\n"),
                );
                scope.spawn(move || renew(path, &names, &line).unwrap());
            }
        });
        renew(file.path(), "\tweb3 x ", "1.2.3.4\tweb3 x\n").unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text.lines().count(), 8, "{text}");
        assert!(
            text.contains("1.2.3.4\tweb3 x\n") && !text.contains("web3 x y"),
            "{text}"
        );
    }

    #[test]
    fn a_line_is_replaced_where_it_is_or_added() {
        let (names, line) = ("\tdb 0123 ", "10.0.0.9\tdb 0123 web\n");
        let renewed = |text: &str| renewed(text, names, line);
        assert_eq!(
            renewed("a\n10.0.0.2\tdb 0123 old\nb\n"),
            format!("a\n{line}b\n")
        );
        assert_eq!(renewed("a\n"), format!("a\n{line}"));
        assert_eq!(renewed("a"), format!("a\n{line}"));
        assert_eq!(renewed(""), line);
    }
}
