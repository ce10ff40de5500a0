//! Keeps credentials in URLs (`https://user:secret@host/`) out of everything that is shown or kept:
//! messages, names of steps, descriptions of cache records, an image's history (`SECURITY` row E11).

/// The text with `user:secret@` taken out of each URL in it.
pub fn urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '`'))
            .unwrap_or(after.len());
        let authority = &after[..end];
        out.push_str(
            authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host),
        );
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::urls;

    #[test]
    fn e11_credentials_are_taken_out_of_urls() {
        for (text, expected) in [
            ("ADD https://u:p@host/x /y", "ADD https://host/x /y"),
            ("a http://tok@h b ssh://git@h/r", "a http://h b ssh://h/r"),
            ("https://host/a@b", "https://host/a@b"),
            ("https://u:p@ss@host", "https://host"),
            ("no url, a@b", "no url, a@b"),
            ("://", "://"),
        ] {
            assert_eq!(urls(text), expected);
        }
    }
}
