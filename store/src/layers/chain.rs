//! Chain ids: the name of a stack of layers (OCI image specification, "Layer ChainID").

use sha2::{Digest as _, Sha256};

/// The chain id of each layer, bottom first: the first one's is its diff id, each later one's the
/// digest of the one below, a space and its diff id.
pub fn chain_ids<S: AsRef<str>>(diff_ids: &[S]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let diff_id = diff_id.as_ref();
        let id = match chain.last() {
            None => diff_id.to_owned(),
            Some(below) => {
                let digest = Sha256::digest(format!("{below} {diff_id}"));
                format!("sha256:{}", hex::encode(digest))
            }
        };
        chain.push(id);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_the_diff_id_and_the_rest_are_digests_of_two() {
        let chain = chain_ids(&["sha256:a", "sha256:b"]);
        assert_eq!(chain[0], "sha256:a");
        let expected = hex::encode(Sha256::digest("sha256:a sha256:b"));
        assert_eq!(chain[1], format!("sha256:{expected}"));
    }
}
