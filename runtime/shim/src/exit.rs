//! The record of the exit: on disk before anyone is told.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::config::{EXIT_FILE, ExitStatus};

/// Writes `exit.json`: complete or not at all; if it is to be `durable`, so that it survives a power cut.
pub(crate) fn record(directory: &Path, status: &ExitStatus, durable: bool) -> io::Result<()> {
    let temporary = directory.join(format!("{EXIT_FILE}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(status)?)?;
    if durable {
        file.sync_data()?;
    }
    fs::rename(&temporary, directory.join(EXIT_FILE))?;
    if durable {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}
