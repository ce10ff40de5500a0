//! A file that appears under its name only when it is whole.

use std::io::Write as _;
use std::path::PathBuf;

use crate::error::{CliError, file};

/// A file under a temporary name, removed unless it is finished.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    temporary: PathBuf,
    file: std::fs::File,
    finished: bool,
}

impl Partial {
    /// Makes it beside the file that it will be.
    pub(crate) fn create(path: PathBuf) -> Result<Self, CliError> {
        // A rename would put a file in the place of a device or a directory.
        if std::fs::metadata(&path).is_ok_and(|existing| !existing.is_file()) {
            return Err(CliError::NotRegular(path));
        }
        let mut name = path.clone().into_os_string();
        name.push(format!(".{}.partial", std::process::id()));
        let temporary = PathBuf::from(name);
        let options = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary);
        Ok(Self {
            file: options.map_err(file("make", &temporary))?,
            path,
            temporary,
            finished: false,
        })
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), CliError> {
        self.file
            .write_all(data)
            .map_err(file("write", &self.temporary))
    }

    /// Makes it durable and gives it its name.
    pub(crate) fn finish(mut self) -> Result<(), CliError> {
        self.file
            .sync_all()
            .map_err(file("write", &self.temporary))?;
        std::fs::rename(&self.temporary, &self.path).map_err(file("name", &self.path))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            drop(std::fs::remove_file(&self.temporary));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;

    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    /// A device of the test's own, and a link to it.
    #[test]
    fn what_is_no_file_is_not_replaced_by_one() {
        let directory = tempfile::tempdir().unwrap();
        let (device, link) = (directory.path().join("null"), directory.path().join("link"));
        let number = rustix::fs::makedev(1, 3);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, mode, number).unwrap();
        std::os::unix::fs::symlink(&device, &link).unwrap();
        for path in [device.clone(), link, directory.path().to_owned()] {
            assert!(matches!(
                Partial::create(path),
                Err(CliError::NotRegular(_))
            ));
        }
        let kind = std::fs::symlink_metadata(&device).unwrap().file_type();
        assert!(kind.is_char_device());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
