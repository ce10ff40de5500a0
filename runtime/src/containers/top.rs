//! A container's processes as ps(1) shows them, read from `/proc`.

mod columns;
mod process;

use std::time::Duration;

use columns::Column;
use process::{Host, Process};

use super::Container;
use super::Containers;
use super::state::Action;
use crate::cgroups::usage::members;
use crate::error::{Error, Result, blocking};

/// `/proc/PID/cmdline` waits for a process that is stuck with its memory locked.
const PATIENCE: Duration = Duration::from_secs(5);
/// Processes that are shown.
const PROCESSES_MAX: usize = 16_384;
const COLUMNS_MAX: usize = 64;

impl Containers {
    /// The titles of the columns, and a row for each process; no column asked: those of `ps -ef`.
    pub(crate) async fn top(
        &self,
        container: &Container,
        asked: &[String],
    ) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        if asked.len() > COLUMNS_MAX {
            return Err(Error::invalid("column", "there are too many"));
        }
        let columns = columns::of(asked)?;
        let titles = columns
            .iter()
            .map(|column| column.title.to_owned())
            .collect();
        let record = container.record();
        record.next(Action::Touch, "show the processes of")?;
        let name = record.title().to_owned();
        let reading = blocking(move || Ok(rows(&members(&record.cgroups), &columns)));
        let read = tokio::time::timeout(PATIENCE, reading).await;
        Ok((titles, read.map_err(|_| Error::Stuck(name))??))
    }
}

fn rows(pids: &[i32], columns: &[&Column]) -> Vec<Vec<String>> {
    let host = Host::read();
    // One that ended meanwhile is not shown.
    let processes = pids.iter().take(PROCESSES_MAX);
    processes
        .filter_map(|pid| Process::read(*pid))
        .map(|process| {
            let cells = columns.iter().map(|column| (column.cell)(&process, &host));
            cells.collect()
        })
        .collect()
}
