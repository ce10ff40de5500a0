//! `WWW-Authenticate` (RFC 9110, section 11.6.1).

/// How a registry wants to be shown who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password.
    Basic,
    /// A token of the token server `realm`.
    Bearer {
        realm: String,
        service: String,
        scope: String,
    },
}

/// Reads all challenges of one header; schemes that we do not know are passed over.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header;
    while let Some((scheme, parameters, next)) = one(rest) {
        rest = next;
        let value = |name: &str| -> String {
            let found = parameters.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => challenges.push(Challenge::Basic),
            "bearer" => challenges.push(Challenge::Bearer {
                realm: value("realm"),
                service: value("service"),
                scope: value("scope"),
            }),
            _ => {}
        }
    }
    challenges
}

/// Keys in lower case, and their values.
type Parameters = Vec<(String, String)>;

/// One challenge: its scheme, its parameters, and what follows it.
fn one(text: &str) -> Option<(&str, Parameters, &str)> {
    let text = text.trim_start_matches([' ', ',', '\t']);
    let end = text.find([' ', ',']).unwrap_or(text.len());
    let (scheme, mut rest) = text.split_at(end);
    if scheme.is_empty() {
        return None;
    }
    let mut parameters = Vec::new();
    while let Some((key, value, next)) = parameter(rest) {
        parameters.push((key.to_ascii_lowercase(), value));
        rest = next;
    }
    Some((scheme, parameters, rest))
}

/// One `key=value` or `key="value"`.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start_matches([' ', ',', '\t']);
    let (key, rest) = text.split_once('=')?;
    let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if key.is_empty() || !key.chars().all(token) {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', ' ']).unwrap_or(rest.len());
        return Some((key, rest[..end].to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((position, c)) = chars.next() {
        match c {
            '"' => return Some((key, value, &quoted[position + 1..])),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries() {
        assert_eq!(
            parse(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            [Challenge::Bearer {
                realm: "https://auth.docker.io/token".to_owned(),
                service: "registry.docker.io".to_owned(),
                scope: "repository:a/b:pull,push".to_owned(),
            }]
        );
        assert_eq!(parse("Basic realm=\"r\""), [Challenge::Basic]);
        assert_eq!(parse("basic"), [Challenge::Basic]);
        let both = parse(r#"Negotiate, Basic realm="a, \"b\"", Bearer realm=x"#);
        assert_eq!(both.len(), 2);
        assert_eq!(both[0], Challenge::Basic);
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_the_parser_fail(header in ".{0,80}") {
            parse(&header);
        }
    }
}
