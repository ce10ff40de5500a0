//! Names that one container alone knows another by: Docker's links, as far as they are names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::NetworkError;
use super::resolver::check_name;

/// A name for a container of the same network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Name or id.
    pub container: String,
    /// What it is called.
    pub alias: String,
}

impl FromStr for Link {
    type Err = NetworkError;

    /// `CONTAINER[:ALIAS]`.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let bare = text.strip_prefix('/').unwrap_or(text);
        let (container, alias) = bare.split_once(':').unwrap_or((bare, bare));
        [container, alias].into_iter().try_for_each(check_name)?;
        Ok(Self {
            container: container.to_owned(),
            alias: alias.to_owned(),
        })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.container, self.alias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_two_names_of_which_one_may_be_left_out() {
        let shown = |text: &str| text.parse::<Link>().map(|link| link.to_string());
        assert_eq!(shown("web:db").unwrap(), "web:db");
        assert_eq!(shown("/web").unwrap(), "web:web");
        for bad in ["", ":db", "web:", "web:a:b", "web:a b", "web:a\nb"] {
            assert!(shown(bad).is_err(), "{bad:?}");
        }
    }
}
