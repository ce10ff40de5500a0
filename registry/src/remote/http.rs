//! Requests: sent with the authorization that their host may see, redirected under our own rules,
//! tried again when that may help; and what an error answer means.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Body, Client, Method, Response, StatusCode, Url};

use super::{Remote, is_loopback, redirect, retry};
use crate::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// As long as a connection may stand still.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// An answer of an error (`SECURITY` row I1); no more than this is read of it.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// What a message shows of it.
const DETAIL_CHARS_MAX: usize = 300;
/// How often a 401 is answered with another proof.
const PROOFS_MAX: usize = 2;

/// The HTTP clients, made when they are first needed: by whether certificates are verified, and
/// whether the proxy of the environment applies.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<(bool, bool), Client>>);

impl Clients {
    pub(super) fn get(&self, verified: bool, host: &str) -> Result<Client> {
        let direct = is_loopback(host);
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&(verified, direct)) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .danger_accept_invalid_certs(!verified)
            .user_agent(concat!("orlop/", env!("CARGO_PKG_VERSION")));
        if direct {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(Error::Client)?;
        clients.insert((verified, direct), client.clone());
        Ok(client)
    }
}

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Outgoing {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl Remote<'_> {
    /// Sends until there is an answer that will not change: overload, faults of the server and broken
    /// connections are tried again.
    pub(super) async fn send(&self, outgoing: &Outgoing) -> Result<Response> {
        let mut attempt = 0;
        loop {
            let answer = self.send_proven(outgoing).await;
            let pause = match &answer {
                Ok(response) => retry::after(response.status(), response.headers(), attempt),
                Err(Error::Unreachable { .. }) => retry::delay(attempt),
                Err(_) => None,
            };
            let Some(pause) = pause else {
                return answer;
            };
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends, and proves who we are when that is asked for.
    async fn send_proven(&self, outgoing: &Outgoing) -> Result<Response> {
        for _ in 0..PROOFS_MAX {
            let used = self.authorization.lock().await.header.clone();
            let response = self.send_redirected(outgoing, used.as_deref()).await?;
            if response.status() != StatusCode::UNAUTHORIZED
                || !redirect::same_origin(response.url(), &self.base)
            {
                return Ok(response);
            }
            self.authorize(response, used.as_deref()).await?;
        }
        let used = self.authorization.lock().await.header.clone();
        self.send_redirected(outgoing, used.as_deref()).await
    }

    async fn send_redirected(&self, outgoing: &Outgoing, proof: Option<&str>) -> Result<Response> {
        let mut url = outgoing.url.clone();
        let follow = matches!(outgoing.method, Method::GET | Method::HEAD);
        for hop in 0..=redirect::HOPS_MAX {
            let body = Body::from(outgoing.body.clone());
            let response = self.send_one(outgoing, &url, body, proof).await?;
            if !follow || !redirect::is_redirect(response.status()) {
                return Ok(response);
            }
            let target = response.headers().get(LOCATION);
            let target = target
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            url = redirect::next(&url, target, hop).map_err(|reason| Error::Redirect {
                host: self.wanted.host.clone(),
                target: target.chars().take(200).collect(),
                reason,
            })?;
        }
        Err(self.not_a_registry("it redirects without end"))
    }

    /// Sends a body as it comes, once.
    pub(super) async fn send_stream(&self, outgoing: &Outgoing, body: Body) -> Result<Response> {
        let proof = self.authorization.lock().await.header.clone();
        self.send_one(outgoing, &outgoing.url, body, proof.as_deref())
            .await
    }

    /// One exchange. Only the registry's own origin sees the proof (`SECURITY` rows G1 and G3).
    async fn send_one(
        &self,
        outgoing: &Outgoing,
        url: &Url,
        body: Body,
        proof: Option<&str>,
    ) -> Result<Response> {
        let at_home = redirect::same_origin(url, &self.base);
        let host = url.host_str().unwrap_or_default();
        // The leave to be insecure is for the registry, not for where it points.
        let verified = self.verified || !(at_home || is_loopback(host));
        let client = self.shared.clients.get(verified, host)?;
        let mut request = client
            .request(outgoing.method.clone(), url.clone())
            .headers(outgoing.headers.clone())
            .body(body);
        if let (true, Some(proof)) = (at_home, proof) {
            request = request.header(AUTHORIZATION, proof);
        }
        request
            .send()
            .await
            .map_err(|source| self.unreachable(source))
    }

    pub(super) fn unreachable(&self, source: reqwest::Error) -> Error {
        Error::Unreachable {
            host: self.wanted.host.clone(),
            source: source.without_url(),
        }
    }

    /// The response if it is a success, else what it means.
    pub(super) async fn accept(&self, response: Response, what: &str) -> Result<Response> {
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.failure(response, what).await)
    }

    /// What an answer that is no success means.
    pub(super) async fn failure(&self, response: Response, what: &str) -> Error {
        let host = self.wanted.host.clone();
        let status = response.status();
        let html = is_html(&response);
        let text = read(response, ERROR_BYTES_MAX).await.unwrap_or_default();
        let detail = detail(&text).unwrap_or_else(|| format!("{what}: {status}"));
        match status {
            StatusCode::UNAUTHORIZED => Error::Unauthenticated { host, detail },
            StatusCode::FORBIDDEN => Error::Denied { host, detail },
            StatusCode::NOT_FOUND if !html => Error::RemoteNotFound {
                host,
                what: what.to_owned(),
            },
            status if html && !status.is_server_error() => {
                self.not_a_registry(&format!("it answers {what} with an HTML page ({status})"))
            }
            status => Error::Status {
                host,
                status: status.as_u16(),
                detail,
            },
        }
    }
}

pub(super) fn is_html(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE);
    content_type
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.to_ascii_lowercase().starts_with("text/html"))
}

/// A body of at most `most` bytes; `None` when it is larger or breaks off.
pub(super) async fn read(mut response: Response, most: usize) -> Option<Bytes> {
    let mut all = BytesMut::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if all.len() + chunk.len() > most {
            return None;
        }
        all.extend_from_slice(&chunk);
    }
    Some(all.freeze())
}

/// What the specification's error JSON says, for a person.
fn detail(text: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(text).ok()?;
    let errors = body.get("errors")?.as_array()?;
    let word = |error: &serde_json::Value, key: &str| {
        Some(error.get(key)?.as_str()?.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let lines: Vec<String> = errors
        .iter()
        .filter_map(|error| word(error, "message").or_else(|| word(error, "code")))
        .collect();
    let text = lines.join("; ");
    let clean = text.chars().filter(|c| !c.is_control());
    Some(clean.take(DETAIL_CHARS_MAX).collect()).filter(|text: &String| !text.is_empty())
}
