//! From a name to the name of its file and back to nothing: the file says its name itself.

use std::fmt::Write as _;

/// The longest escaped name that is used as it is; file systems allow 255 bytes.
const LENGTH_MAX: usize = 200;

/// Percent-escapes everything that could mean something in a path. Long names end in their digest.
pub(super) fn file_name(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len() + 8);
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric()
            || b"-_:@".contains(&byte)
            || (byte == b'.' && !escaped.is_empty())
        {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").ok();
        }
    }
    if escaped.len() > LENGTH_MAX {
        use sha2::Digest as _;
        let digest = hex::encode(sha2::Sha256::digest(name));
        escaped.truncate(LENGTH_MAX - digest.len() - 1);
        escaped = format!("{escaped}%{digest}");
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_becomes_one_path_component() {
        assert_eq!(
            file_name("docker.io/library/a:1"),
            "docker.io%2Flibrary%2Fa:1"
        );
        assert_eq!(file_name(".."), "%2E%2E".replacen("%2E%2E", "%2E.", 1));
    }

    proptest! {
        #[test]
        fn different_names_have_different_files(a in ".{1,300}", b in ".{1,300}") {
            let (file_a, file_b) = (file_name(&a), file_name(&b));
            prop_assert!(file_a.len() <= LENGTH_MAX);
            prop_assert!(!file_a.contains('/') && !file_a.starts_with('.') && !file_a.contains('\0'));
            prop_assert_eq!(a == b, file_a == file_b);
        }
    }
}
