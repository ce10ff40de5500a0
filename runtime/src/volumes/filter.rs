//! Docker's filters of `volume ls` and `volume prune`: values of one key are alternatives (labels are all
//! needed), keys are conditions.

use std::collections::BTreeMap;

use orlop_proto::runtime as wire;

use super::Volume;
use crate::error::{Error, Result};

/// Parsed filters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(BTreeMap<Key, Vec<String>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Name,
    Label,
    NoLabel,
    Dangling,
    Driver,
}

impl Filters {
    /// Refuses keys and values that can fit nothing.
    pub(crate) fn parse(filters: &[wire::Filter]) -> Result<Self> {
        let mut parsed: BTreeMap<Key, Vec<String>> = BTreeMap::new();
        for filter in filters {
            let key = key(&filter.key)?;
            if key == Key::Dangling && truth(&filter.value).is_none() {
                let shown: String = filter.value.chars().take(64).collect();
                let problem = format!("dangling={shown:?}: expected true or false");
                return Err(Error::invalid("filter", problem));
            }
            parsed.entry(key).or_default().push(filter.value.clone());
        }
        Ok(Self(parsed))
    }

    /// Whether a volume passes.
    pub(crate) fn fits(&self, volume: &Volume, used: bool) -> bool {
        self.0.iter().all(|(key, values)| {
            let mut values = values.iter();
            match key {
                Key::Name => values.any(|value| volume.name.contains(value.as_str())),
                Key::Label => values.all(|value| labelled(volume, value)),
                Key::NoLabel => !values.any(|value| labelled(volume, value)),
                Key::Dangling => values.any(|value| truth(value) == Some(!used)),
                Key::Driver => values.any(|value| value == "local"),
            }
        })
    }
}

fn key(name: &str) -> Result<Key> {
    Ok(match name {
        "name" => Key::Name,
        "label" => Key::Label,
        "label!" => Key::NoLabel,
        "dangling" => Key::Dangling,
        "driver" => Key::Driver,
        other => {
            let shown: String = other.chars().take(64).collect();
            let problem = format!("{shown:?}: expected name, label, label!, dangling or driver");
            return Err(Error::invalid("filter", problem));
        }
    })
}

fn truth(value: &str) -> Option<bool> {
    match value {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn labelled(volume: &Volume, asked: &str) -> bool {
    match asked.split_once('=') {
        Some((key, value)) => volume.labels.get(key).is_some_and(|own| own == value),
        None => volume.labels.contains_key(asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(filters: &[(&str, &str)], used: bool) -> bool {
        let filter = |(key, value): &(&str, &str)| wire::Filter {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        let filters: Vec<_> = filters.iter().map(filter).collect();
        let volume = Volume {
            name: "pgdata".to_owned(),
            created: jiff::Timestamp::UNIX_EPOCH,
            labels: [("tier".to_owned(), "db".to_owned())].into(),
            anonymous: false,
            options: Default::default(),
        };
        Filters::parse(&filters).unwrap().fits(&volume, used)
    }

    #[test]
    fn values_are_alternatives_and_keys_are_conditions() {
        assert!(fits(&[], true));
        assert!(fits(&[("name", "x"), ("name", "data")], true));
        assert!(!fits(&[("name", "data"), ("driver", "nfs")], true));
        assert!(fits(&[("label", "tier"), ("label", "tier=db")], true));
        assert!(!fits(&[("label", "tier"), ("label", "tier=web")], true));
        assert!(fits(&[("label!", "keep")], true));
        assert!(!fits(&[("label!", "tier=db")], true));
        assert!(fits(&[("dangling", "true")], false));
        assert!(!fits(&[("dangling", "1")], true));
        assert!(fits(&[("dangling", "false")], true));
    }

    #[test]
    fn what_fits_nothing_is_refused() {
        for (key, value) in [("size", "1"), ("dangling", "maybe")] {
            let filter = wire::Filter {
                key: key.to_owned(),
                value: value.to_owned(),
            };
            assert!(Filters::parse(&[filter]).is_err(), "{key}");
        }
    }
}
