//! Docker's filters of `events`: values of one key are alternatives (labels are all needed), keys are
//! conditions.

use orlop_proto::runtime as wire;

use super::{Event, Kind};
use crate::error::{Error, Result};

/// Filters in one request: each is compared with each event.
const FILTERS_MAX: usize = 256;

/// Parsed filters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Vec<(Key, String)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Container,
    Event,
    Image,
    Label,
    Network,
    Type,
    Volume,
}

impl Key {
    const ALL: [Self; 7] = [
        Self::Container,
        Self::Event,
        Self::Image,
        Self::Label,
        Self::Network,
        Self::Type,
        Self::Volume,
    ];

    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "container" => Self::Container,
            "event" => Self::Event,
            "image" => Self::Image,
            "label" => Self::Label,
            "network" => Self::Network,
            "type" => Self::Type,
            "volume" => Self::Volume,
            other => {
                let shown: String = other.chars().take(64).collect();
                let problem = format!(
                    "{shown:?}: expected container, event, image, label, network, type or volume"
                );
                return Err(Error::invalid("filter", problem));
            }
        })
    }

    fn fits(self, value: &str, event: &Event) -> bool {
        match self {
            Self::Container => event.is(Kind::Container, value),
            Self::Network => event.is(Kind::Network, value),
            Self::Volume => event.is(Kind::Volume, value),
            Self::Type => event.kind.as_str() == value,
            Self::Event => action(&event.action, value),
            Self::Image => image(event, value),
            Self::Label => match value.split_once('=') {
                Some((name, wanted)) => event.attributes.get(name).is_some_and(|v| v == wanted),
                None => event.attributes.contains_key(value),
            },
        }
    }
}

impl Filters {
    /// Refuses keys that there are not.
    pub(crate) fn parse(filters: &[wire::Filter]) -> Result<Self> {
        if filters.len() > FILTERS_MAX {
            let problem = format!("{} of them: at most {FILTERS_MAX}", filters.len());
            return Err(Error::invalid("filter", problem));
        }
        let parsed = filters
            .iter()
            .map(|filter| Ok((Key::parse(&filter.key)?, filter.value.clone())));
        parsed.collect::<Result<_>>().map(Self)
    }

    /// Whether an event passes.
    pub(crate) fn fits(&self, event: &Event) -> bool {
        Key::ALL.into_iter().all(|key| {
            let mut values = self.0.iter().filter(|(own, _)| *own == key).peekable();
            let fits = |(_, value): &(Key, String)| key.fits(value, event);
            match key {
                _ if values.peek().is_none() => true,
                Key::Label => values.all(fits),
                _ => values.any(fits),
            }
        })
    }
}

impl Event {
    /// Whether it is about this thing, named by the beginning of its id or name.
    fn is(&self, kind: Kind, value: &str) -> bool {
        let name = self.attributes.get("name");
        let named = self.id.starts_with(value) || name.is_some_and(|name| name.starts_with(value));
        self.kind == kind && named
    }
}

/// `exec_start` stands for every `exec_start: …`.
fn action(action: &str, value: &str) -> bool {
    let word = action.split_once(':').map_or(action, |(word, _)| word);
    action == value || word == value
}

/// With the tag or without.
fn image(event: &Event, value: &str) -> bool {
    let Some(image) = event.attributes.get("image") else {
        return false;
    };
    let untagged = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    };
    image == value || untagged == value
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;

    fn event(kind: Kind, action: &str) -> Event {
        let attributes = [
            ("name", "web"),
            ("image", "host:5000/nginx:1.2"),
            ("tier", "front"),
            ("zone", "b"),
        ];
        Event {
            time: Timestamp::UNIX_EPOCH,
            kind,
            action: action.to_owned(),
            id: "abc123".to_owned(),
            attributes: BTreeMap::from(attributes.map(|(k, v)| (k.to_owned(), v.to_owned()))),
        }
    }

    fn passes(filters: &[(&str, &str)], event: &Event) -> bool {
        let filters: Vec<wire::Filter> = filters
            .iter()
            .map(|(key, value)| wire::Filter {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
            })
            .collect();
        Filters::parse(&filters).unwrap().fits(event)
    }

    #[test]
    fn each_key_looks_at_its_own_part() {
        let die = event(Kind::Container, "die");
        for (key, value) in [
            ("container", "web"),
            ("container", "abc"),
            ("event", "die"),
            ("image", "host:5000/nginx:1.2"),
            ("image", "host:5000/nginx"),
            ("label", "tier"),
            ("label", "tier=front"),
            ("type", "container"),
        ] {
            assert!(passes(&[(key, value)], &die), "{key}={value}");
        }
        for (key, value) in [
            ("container", "db"),
            ("event", "start"),
            ("image", "host"),
            ("label", "tier=back"),
            ("type", "volume"),
            ("volume", "web"),
            ("network", "web"),
        ] {
            assert!(!passes(&[(key, value)], &die), "{key}={value}");
        }
    }

    #[test]
    fn values_are_alternatives_labels_and_keys_are_conditions() {
        let die = event(Kind::Container, "die");
        assert!(passes(&[("event", "start"), ("event", "die")], &die));
        assert!(!passes(&[("event", "die"), ("type", "volume")], &die));
        assert!(passes(&[("label", "tier"), ("label", "zone=b")], &die));
        assert!(!passes(&[("label", "tier"), ("label", "zone=c")], &die));
    }

    #[test]
    fn the_first_word_of_an_action_stands_for_all_of_its_kind() {
        let exec = event(Kind::Container, "exec_start: sh -c true");
        assert!(passes(&[("event", "exec_start")], &exec));
        assert!(passes(&[("event", "exec_start: sh -c true")], &exec));
        assert!(!passes(&[("event", "exec")], &exec));
    }

    #[test]
    fn unknown_keys_and_floods_are_refused() {
        let filter = |key: &str| wire::Filter {
            key: key.to_owned(),
            value: String::new(),
        };
        assert!(Filters::parse(&[filter("colour")]).is_err());
        assert!(Filters::parse(&vec![filter("label"); FILTERS_MAX + 1]).is_err());
    }
}
