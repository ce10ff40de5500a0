//! Options of the driver `local`: a volume whose files are elsewhere on the host.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::spec::validate;

/// As mount(8) takes them: `type`, `device` and `o`. None: the files are the volume's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Options(BTreeMap<String, String>);

impl Options {
    /// Refuses what would not be done: nothing here reaches the kernel as text.
    pub(crate) fn parse(options: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let options = Self(options.into_iter().collect());
        if options.0.is_empty() {
            return Ok(options);
        }
        let known = |key: &&String| !matches!(key.as_str(), "type" | "device" | "o");
        if let Some(key) = options.0.keys().find(known) {
            return Err(refused(key, "expected type, device and o"));
        }
        options.check_type()?;
        validate::absolute("volume device", options.get("device"))?;
        let mut bind = false;
        for word in options.words() {
            match word {
                "bind" | "rbind" => bind = true,
                "ro" | "rw" => {}
                other => return Err(refused(other, "expected bind, rbind, ro or rw")),
            }
        }
        match bind {
            true => Ok(options),
            false => Err(refused("o", "type=none needs bind or rbind")),
        }
    }

    fn check_type(&self) -> Result<()> {
        match self.get("type") {
            "none" | "bind" | "" => Ok(()),
            other => {
                let problem = "a volume of this type is not built; there is none, with o=bind";
                Err(refused(&format!("type={other}"), problem))
            }
        }
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.get("o").split(',').filter(|word| !word.is_empty())
    }

    /// Where the files are.
    pub(super) fn device(&self) -> Option<&Path> {
        self.0.get("device").map(Path::new)
    }

    /// Nobody writes through this volume: of `ro` and `rw` the last one counts.
    pub(crate) fn is_read_only(&self) -> bool {
        let access = self.words().filter(|word| matches!(*word, "ro" | "rw"));
        access.last() == Some("ro")
    }

    /// What is mounted below the device is in the volume, too.
    pub(crate) fn is_deep(&self) -> bool {
        self.0.is_empty() || self.words().any(|word| word == "rbind")
    }

    /// As they were given.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }

    /// Of two volumes of one name.
    pub(super) fn check_same(&self, name: &str, asked: &Self) -> Result<()> {
        if asked.0.is_empty() || self == asked {
            return Ok(());
        }
        let mut own = String::new();
        for (key, value) in &self.0 {
            // Writing to a string cannot fail.
            write!(own, " {key}={value}").ok();
        }
        let problem = format!("the volume {name} is there with other options:{own}");
        Err(Error::invalid("volume option", problem))
    }
}

/// The device as the host has it now, without links.
pub(super) fn resolve(device: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(device).map_err(Error::file("find the device of a volume", device))
}

fn refused(what: &str, problem: &str) -> Error {
    let shown: String = what.chars().take(64).collect();
    Error::invalid("volume option", format!("{shown}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<Options> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Options::parse(options.iter().map(owned))
    }

    #[test]
    fn a_directory_of_the_host_can_be_a_volume() {
        let bind = [("type", "none"), ("o", "bind,ro"), ("device", "/srv/data")];
        let bind = parse(&bind).unwrap();
        assert_eq!(bind.device(), Some(Path::new("/srv/data")));
        assert!(bind.is_read_only() && !bind.is_deep());
        let own = parse(&[]).unwrap();
        assert!(own.device().is_none() && own.is_deep() && !own.is_read_only());
        let last = parse(&[("o", "ro,rbind,rw"), ("device", "/d")]).unwrap();
        assert!(last.is_deep() && !last.is_read_only());
    }

    #[test]
    fn what_is_not_built_or_hostile_is_refused_by_name() {
        let (none, device) = (("type", "none"), ("device", "/srv"));
        for (options, told) in [
            (
                vec![("type", "nfs"), device, ("o", "addr=10.0.0.1")],
                "type=nfs",
            ),
            (vec![("type", "tmpfs"), ("device", "tmpfs")], "type=tmpfs"),
            (vec![("type", "ext4"), ("device", "/dev/sda")], "type=ext4"),
            (vec![none, device, ("o", "bind,suid")], "suid"),
            (vec![none, device, ("o", "bind,lowerdir=/etc")], "lowerdir"),
            (vec![none, device], "bind"),
            (vec![none, ("o", "bind")], "device"),
            (
                vec![none, ("o", "bind"), ("device", "/srv/../etc")],
                "device",
            ),
            (vec![none, ("o", "bind"), ("device", "srv")], "device"),
            (vec![("size", "1g")], "size"),
        ] {
            let error = parse(&options).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_volume_does_not_change_its_options() {
        let own = parse(&[("o", "bind"), ("device", "/a")]).unwrap();
        own.check_same("v", &parse(&[]).unwrap()).unwrap();
        own.check_same("v", &own).unwrap();
        let other = parse(&[("o", "bind"), ("device", "/b")]).unwrap();
        let error = own.check_same("v", &other).unwrap_err().to_string();
        assert!(error.contains("device=/a"), "{error}");
    }
}
