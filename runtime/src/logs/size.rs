//! How much of a container's log is kept.

use orlop_proto::runtime::CreateRequest;

use super::FILES_MAX;
use crate::error::{Error, Result};

/// Files of a log, where nothing else is asked for.
const FILES: u32 = 2;

/// What the shim keeps of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogSize {
    /// Of one file; 0: any.
    pub(crate) bytes_max: u64,
    /// 0: there is no log.
    pub(crate) files: u32,
}

impl LogSize {
    /// As a container asks, with `bytes_max` where it does not.
    pub(crate) fn of(config: &CreateRequest, bytes_max: u64) -> Self {
        Self {
            bytes_max: match config.log_max_size {
                0 => bytes_max,
                size => u64::try_from(size).unwrap_or_default(),
            },
            files: match config.log_max_file {
                _ if config.log_driver == "none" => 0,
                0 => FILES,
                files => files,
            },
        }
    }
}

/// Judges what a container asks.
pub(crate) fn check(config: &CreateRequest) -> Result<()> {
    let (size, files) = (config.log_max_size, config.log_max_file);
    let problem = match config.log_driver.as_str() {
        "none" if size != 0 || files != 0 => "none keeps no files, so they have no size".to_owned(),
        "" | "json-file" | "local" | "none" if size >= -1 && files <= FILES_MAX => return Ok(()),
        "" | "json-file" | "local" | "none" => format!("expected at most {FILES_MAX} files"),
        other => {
            let shown: String = other.chars().take(64).collect();
            format!(
                "{shown:?}: there are json-file, local and none; for others let a collector read the files \
                 of json-file (inspect -f {{{{.LogPath}}}})"
            )
        }
    };
    Err(Error::invalid("log driver", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(driver: &str, size: i64, files: u32) -> CreateRequest {
        CreateRequest {
            log_driver: driver.to_owned(),
            log_max_size: size,
            log_max_file: files,
            ..CreateRequest::default()
        }
    }

    #[test]
    fn a_log_is_as_large_as_asked_or_as_the_service_says() {
        let of = |config: &CreateRequest| {
            let size = LogSize::of(config, 1000);
            (size.bytes_max, size.files)
        };
        assert_eq!(of(&asking("", 0, 0)), (1000, 2));
        assert_eq!(of(&asking("local", 5, 7)), (5, 7));
        assert_eq!(of(&asking("json-file", -1, 1)), (0, 1));
        assert_eq!(of(&asking("none", 0, 0)), (1000, 0));
    }

    #[test]
    fn unknown_drivers_and_sizes_of_nothing_are_refused() {
        for (driver, size, files) in [
            ("syslog", 0, 0),
            ("none", 1, 0),
            ("none", 0, 1),
            ("json-file", -2, 0),
            ("", 0, FILES_MAX + 1),
        ] {
            assert!(check(&asking(driver, size, files)).is_err(), "{driver}");
        }
        check(&asking("local", -1, FILES_MAX)).unwrap();
    }
}
