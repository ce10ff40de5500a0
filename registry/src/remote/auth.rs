//! Proving who asks: basic authentication, tokens of a token server, identity tokens.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use orlop_proto::types::Credential;
use reqwest::Response;
use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::challenge::{self, Challenge};
use super::{Remote, http, realm};
use crate::{Error, Result};

/// The answer of a token server (`SECURITY` row I1).
const TOKEN_BYTES_MAX: usize = 1024 * 1024;
/// The token specification's default, and least, life of a token.
const LIFE_DEFAULT_SECONDS: u64 = 60;
/// A token is not used in the last part of its life.
const LIFE_MARGIN: Duration = Duration::from_secs(10);
const TOKENS_MAX: usize = 1024;
const CLIENT_ID: &str = "orlop";

/// What is shown to the registry at present.
#[derive(Default)]
pub(super) struct Authorization {
    /// The value of the header `Authorization`.
    pub(super) header: Option<String>,
    /// What the token server gave to be kept instead of a password.
    pub(super) identity_token: String,
    /// Where in the cache the header came from.
    key: Option<Key>,
}

/// Tokens that are still good, by all that they depend on: a token of one credential is never shown
/// for another (`SECURITY` row G9).
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<Key, (String, Instant)>>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    host: String,
    realm: String,
    service: String,
    scope: String,
    credential: [u8; 32],
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    expires_in: Option<u64>,
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization")
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    fn get(&self, key: &Key) -> Option<String> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, until) = tokens.get(key)?;
        (Instant::now() < *until).then(|| token.clone())
    }

    fn put(&self, key: Key, token: String, life: Duration) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(key, (token, Instant::now() + life));
    }

    fn forget(&self, key: &Key) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.remove(key);
    }
}

impl Remote<'_> {
    /// Gets a proof that answers a 401, which `used` did not satisfy; an error when there is none.
    pub(super) async fn authorize(&self, refused: Response, used: Option<&str>) -> Result<()> {
        let mut authorization = self.authorization.lock().await;
        if authorization.header.as_deref() != used {
            // Another request of this transfer was faster.
            return Ok(());
        }
        if let Some(key) = authorization.key.take() {
            self.shared.tokens.forget(&key);
        }
        let headers = refused.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<Challenge> = headers
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        for challenge in challenges {
            match challenge {
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                } => {
                    let key = self.key(realm, service, &scope);
                    return self.bearer(&mut authorization, key).await;
                }
                Challenge::Basic => {
                    let basic = self.wanted.credential.as_ref().and_then(basic);
                    if basic.is_some() && basic.as_deref() != used {
                        authorization.header = basic;
                        return Ok(());
                    }
                }
            }
        }
        drop(authorization);
        let what = format!("access to {}/{}", self.host(), self.wanted.repository);
        Err(self.failure(refused, &what).await)
    }

    async fn bearer(&self, authorization: &mut Authorization, key: Key) -> Result<()> {
        let token = match self.shared.tokens.get(&key) {
            Some(token) => token,
            None => {
                let answer = self.fetch_token(&key).await?;
                let life = answer.expires_in.unwrap_or(LIFE_DEFAULT_SECONDS);
                let life = Duration::from_secs(life.clamp(LIFE_DEFAULT_SECONDS, 24 * 3600));
                let token = if answer.token.is_empty() {
                    answer.access_token
                } else {
                    answer.token
                };
                if !answer.refresh_token.is_empty() {
                    authorization.identity_token = answer.refresh_token;
                }
                let life = life.saturating_sub(LIFE_MARGIN);
                self.shared.tokens.put(key.clone(), token.clone(), life);
                token
            }
        };
        authorization.header = Some(format!("Bearer {token}"));
        authorization.key = Some(key);
        Ok(())
    }

    async fn fetch_token(&self, key: &Key) -> Result<TokenAnswer> {
        let url = realm::check(&self.base, &key.realm).map_err(|reason| Error::Realm {
            host: self.wanted.host.clone(),
            realm: key.realm.chars().take(200).collect(),
            reason,
        })?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let registry = self.base.host_str().unwrap_or_default();
        // The leave to be insecure is for the registry's host alone (row G6).
        let verified = self.verified || (host != registry && !super::is_loopback(&host));
        let client = self.shared.clients.get(verified, &host)?;
        let credential = self.wanted.credential.as_ref();
        let identity = credential.filter(|c| !c.identity_token.is_empty());
        let request = match identity {
            Some(credential) => client.post(url).form(&refresh_form(key, credential)),
            None => {
                let request = client.get(url).query(&token_query(key, credential));
                match credential.and_then(basic) {
                    Some(basic) => request.header(AUTHORIZATION, basic),
                    None => request,
                }
            }
        };
        let sent = request.send().await;
        let response = sent.map_err(|source| self.unreachable(source))?;
        let response = self.accept(response, "the token server").await?;
        let text = http::read(response, TOKEN_BYTES_MAX).await;
        let answer: Option<TokenAnswer> = text.and_then(|text| serde_json::from_slice(&text).ok());
        let answer = answer.filter(|a| usable(&a.token) || usable(&a.access_token));
        answer.ok_or_else(|| self.not_a_registry("its token server answers without a token"))
    }

    fn key(&self, realm: String, service: String, scope: &str) -> Key {
        let mut scopes = self.scopes();
        if !scope.is_empty() && !scopes.iter().any(|known| known == scope) {
            scopes.push(scope.to_owned());
        }
        Key {
            host: self.wanted.host.clone(),
            realm,
            service,
            scope: scopes.join(" "),
            credential: fingerprint(self.wanted.credential.as_ref()),
        }
    }

    /// All that the transfer will need, so that one token does for it.
    fn scopes(&self) -> Vec<String> {
        if self.wanted.repository.is_empty() {
            return Vec::new();
        }
        let actions = if self.wanted.push {
            "pull,push"
        } else {
            "pull"
        };
        let own = format!("repository:{}:{actions}", self.wanted.repository);
        let sources = self.wanted.sources.iter();
        let sources = sources.map(|name| format!("repository:{name}:pull"));
        std::iter::once(own).chain(sources).collect()
    }
}

fn token_query(key: &Key, credential: Option<&Credential>) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    if !key.service.is_empty() {
        query.push(("service", key.service.clone()));
    }
    // One parameter for each scope (the token specification); a scope itself has no space.
    let scopes = key.scope.split(' ').filter(|scope| !scope.is_empty());
    query.extend(scopes.map(|scope| ("scope", scope.to_owned())));
    if let Some(credential) = credential.filter(|c| !c.username.is_empty()) {
        query.push(("account", credential.username.clone()));
        if key.scope.is_empty() {
            // A login: the token server may give an identity token for it.
            query.push(("client_id", CLIENT_ID.to_owned()));
            query.push(("offline_token", "true".to_owned()));
        }
    }
    query
}

fn refresh_form(key: &Key, credential: &Credential) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", "refresh_token".to_owned()),
        ("client_id", CLIENT_ID.to_owned()),
        ("service", key.service.clone()),
        ("scope", key.scope.clone()),
        ("refresh_token", credential.identity_token.clone()),
    ]
}

fn basic(credential: &Credential) -> Option<String> {
    if credential.username.is_empty() && credential.password.is_empty() {
        return None;
    }
    let pair = format!("{}:{}", credential.username, credential.password);
    Some(format!("Basic {}", STANDARD.encode(pair)))
}

/// Whether a token can be part of a header.
fn usable(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())
}

fn fingerprint(credential: Option<&Credential>) -> [u8; 32] {
    let mut hash = Sha256::new();
    if let Some(credential) = credential {
        for part in [
            &credential.registry,
            &credential.username,
            &credential.password,
            &credential.identity_token,
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g9_two_credentials_have_two_tokens() {
        let of = |user: &str| Credential {
            username: user.to_owned(),
            ..Credential::default()
        };
        assert_ne!(fingerprint(Some(&of("a"))), fingerprint(Some(&of("b"))));
        assert_ne!(fingerprint(Some(&of(""))), fingerprint(None));
    }
}
