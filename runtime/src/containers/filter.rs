//! Docker's filters of `ps`: values of one key are alternatives (labels are all needed), keys are
//! conditions.

use std::collections::BTreeMap;

use orlop_proto::reference::Reference;
use orlop_proto::runtime as wire;
use orlop_shim::health::HealthStatus;

use super::record::{MountKind, Record};
use super::state::Status;
use crate::error::{Error, Result};
use crate::network::NetworkMode;

/// Parsed filters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(BTreeMap<Key, Vec<String>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Name,
    Id,
    Status,
    Label,
    Ancestor,
    Exited,
    Volume,
    Network,
    Health,
}

impl Filters {
    /// Refuses keys and values that can fit nothing.
    pub(crate) fn parse(filters: &[wire::Filter]) -> Result<Self> {
        let mut parsed: BTreeMap<Key, Vec<String>> = BTreeMap::new();
        for filter in filters {
            let key = key(&filter.key)?;
            check(key, &filter.value)?;
            parsed.entry(key).or_default().push(filter.value.clone());
        }
        Ok(Self(parsed))
    }

    /// Whether a filter by status was given, which then replaces "only those that run".
    pub(crate) fn by_status(&self) -> bool {
        self.0.contains_key(&Key::Status) || self.0.contains_key(&Key::Exited)
    }

    /// Whether a container passes.
    pub(crate) fn fits(&self, record: &Record) -> bool {
        self.0.iter().all(|(key, values)| {
            let mut values = values.iter();
            match key {
                Key::Label => values.all(|value| fits(*key, value, record)),
                _ => values.any(|value| fits(*key, value, record)),
            }
        })
    }
}

fn key(name: &str) -> Result<Key> {
    Ok(match name {
        "name" => Key::Name,
        "id" => Key::Id,
        "status" => Key::Status,
        "label" => Key::Label,
        "ancestor" => Key::Ancestor,
        "exited" => Key::Exited,
        "volume" => Key::Volume,
        "network" => Key::Network,
        "health" => Key::Health,
        other => {
            let shown: String = other.chars().take(64).collect();
            let problem = format!(
                "{shown:?}: expected name, id, status, label, ancestor, exited, volume, network or \
                 health"
            );
            return Err(Error::invalid("filter", problem));
        }
    })
}

fn check(key: Key, value: &str) -> Result<()> {
    let known = match key {
        Key::Status => {
            value == "restarting" || Status::ALL.iter().any(|status| status.as_str() == value)
        }
        Key::Health => ["none", "starting", "healthy", "unhealthy"].contains(&value),
        Key::Exited => value.parse::<i32>().is_ok(),
        _ => true,
    };
    if known {
        return Ok(());
    }
    let shown: String = value.chars().take(64).collect();
    Err(Error::invalid("filter", format!("value {shown:?}")))
}

fn fits(key: Key, value: &str, record: &Record) -> bool {
    match key {
        Key::Name => record.name.contains(value.trim_start_matches('/')),
        Key::Id => record.id.starts_with(value),
        Key::Status => record.status() == value,
        Key::Label => match value.split_once('=') {
            Some((name, wanted)) => record.config.labels.get(name).is_some_and(|v| v == wanted),
            None => record.config.labels.contains_key(value),
        },
        Key::Ancestor => ancestor(value, record),
        Key::Exited => {
            let code = value.parse::<i32>().ok();
            record.state.status == Status::Exited && code == Some(record.state.exit_code)
        }
        Key::Health => record.health().map_or("none", HealthStatus::as_str) == value,
        Key::Volume => record.mounts.iter().any(|mount| {
            let named = matches!(&mount.kind, MountKind::Volume { name, .. } if name == value);
            named || mount.target == value || mount.source.to_str() == Some(value)
        }),
        Key::Network => match record.network_mode() {
            NetworkMode::Bridge(_) => record.memberships.iter().any(|m| m.network == value),
            mode => mode.kind().name() == value,
        },
    }
}

/// An image by the name it was asked by, in any form, or by its id.
fn ancestor(value: &str, record: &Record) -> bool {
    let id = record.image_id.trim_start_matches("sha256:");
    let by_id = value.trim_start_matches("sha256:");
    if by_id.len() >= 4 && id.starts_with(by_id) {
        return true;
    }
    let normal = |text: &str| text.parse::<Reference>().ok();
    match (normal(value), normal(&record.image)) {
        (Some(wanted), Some(own)) => wanted == own,
        _ => value == record.image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record = Record::example();
        record.config.labels = [("tier".to_owned(), "web".to_owned())].into();
        record.state.status = Status::Exited;
        record.state.exit_code = 3;
        record
    }

    fn passes(filters: &[(&str, &str)]) -> bool {
        let filters: Vec<wire::Filter> = filters
            .iter()
            .map(|(key, value)| wire::Filter {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
            })
            .collect();
        Filters::parse(&filters).unwrap().fits(&record())
    }

    #[test]
    fn values_are_alternatives_and_keys_conditions() {
        assert!(passes(&[("name", "keel"), ("name", "mast")]));
        assert!(!passes(&[("name", "keel"), ("id", "ff")]));
        assert!(!passes(&[("label", "tier"), ("label", "zone")]));
        for (key, value) in [
            ("id", "abab"),
            ("status", "exited"),
            ("label", "tier"),
            ("label", "tier=web"),
            ("ancestor", "docker.io/library/busybox:latest"),
            ("ancestor", "cdcdcd"),
            ("exited", "3"),
            ("health", "none"),
            ("network", "bridge"),
        ] {
            assert!(passes(&[(key, value)]), "{key}={value}");
        }
        for (key, value) in [
            ("status", "running"),
            ("label", "tier=db"),
            ("ancestor", "alpine"),
            ("exited", "0"),
            ("health", "healthy"),
            ("network", "host"),
            ("volume", "data"),
        ] {
            assert!(!passes(&[(key, value)]), "{key}={value}");
        }
    }

    #[test]
    fn unknown_keys_and_values_are_refused() {
        for (key, value) in [
            ("colour", "red"),
            ("status", "asleep"),
            ("exited", "x"),
            ("health", "ill"),
        ] {
            let filter = wire::Filter {
                key: key.to_owned(),
                value: value.to_owned(),
            };
            assert!(Filters::parse(&[filter]).is_err(), "{key}");
        }
    }

    #[test]
    fn a_record_survives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let record = record();
        record.save(directory.path()).unwrap();
        assert_eq!(Record::load(directory.path()).unwrap(), record);
    }
}
