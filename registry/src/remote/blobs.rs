//! Blobs of a remote: fetched from any offset, mounted, uploaded.

use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE,
};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::http::{Outgoing, is_html};
use super::{Remote, redirect};
use crate::{Error, Result};

const BYTES: &str = "application/octet-stream";

/// An upload that was begun.
#[derive(Clone, Debug)]
pub struct Upload {
    location: Url,
}

/// How a remote may do without the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount<'a> {
    /// From this repository of its own.
    From(&'a str),
    /// From wherever it has them; remotes that cannot look for themselves pass over it.
    Anywhere,
    /// Not at all.
    No,
}

/// What came of beginning one.
#[derive(Clone, Debug)]
pub enum Started {
    /// The blob is there already, from another repository.
    Mounted,
    /// The bytes are to be sent.
    Upload(Upload),
}

impl Remote<'_> {
    /// Whether the repository has the blob.
    pub async fn has_blob(&self, digest: &str) -> Result<bool> {
        let url = self.repository_url(&format!("blobs/{digest}"))?;
        let response = self.send(&Outgoing::new(Method::HEAD, url)).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.failure(response, &format!("blob {digest}")).await),
        }
    }

    /// The blob's bytes from `offset` on, or from 0 when the remote knows no ranges: the offset that
    /// they begin at, and the response that brings them.
    pub async fn blob(&self, digest: &str, offset: u64) -> Result<(u64, Response)> {
        let url = self.repository_url(&format!("blobs/{digest}"))?;
        let mut outgoing = Outgoing::new(Method::GET, url).header(ACCEPT_ENCODING, "identity");
        if offset > 0 {
            outgoing = outgoing.header(RANGE, &format!("bytes={offset}-"));
        }
        let response = self.send(&outgoing).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && offset > 0 {
            outgoing.headers.remove(RANGE);
            let response = self.send(&outgoing).await?;
            return self.opened(response, digest, 0).await;
        }
        self.opened(response, digest, offset).await
    }

    async fn opened(
        &self,
        response: Response,
        digest: &str,
        offset: u64,
    ) -> Result<(u64, Response)> {
        let response = self.accept(response, &format!("blob {digest}")).await?;
        if is_html(&response) {
            return Err(self.not_a_registry("it answers a blob with an HTML page"));
        }
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((0, response));
        }
        let range = response.headers().get(CONTENT_RANGE);
        let first = range.and_then(|value| {
            let text = value.to_str().ok()?.strip_prefix("bytes ")?;
            text.split('-').next()?.parse::<u64>().ok()
        });
        if first == Some(offset) {
            return Ok((offset, response));
        }
        Err(self.not_a_registry("it answers another range than was asked for"))
    }

    /// Begins an upload, and tries to do without.
    pub async fn start_upload(&self, digest: &str, mount: Mount<'_>) -> Result<Started> {
        let mut url = self.repository_url("blobs/uploads/")?;
        if mount != Mount::No {
            url.query_pairs_mut().append_pair("mount", digest);
        }
        if let Mount::From(from) = mount {
            url.query_pairs_mut().append_pair("from", from);
        }
        let outgoing = Outgoing::new(Method::POST, url).header(CONTENT_LENGTH, "0");
        let response = self.send(&outgoing).await?;
        let response = self
            .accept(response, &format!("an upload of {digest}"))
            .await?;
        match response.status() {
            StatusCode::CREATED => Ok(Started::Mounted),
            StatusCode::ACCEPTED => Ok(Started::Upload(Upload {
                location: self.location(&response)?,
            })),
            status => Err(self.not_a_registry(&format!("it answers an upload with {status}"))),
        }
    }

    /// Sends bytes that go at `offset`; `length` of them come.
    pub async fn send_chunk(
        &self,
        upload: &mut Upload,
        offset: u64,
        length: u64,
        body: Body,
    ) -> Result<()> {
        let mut outgoing = Outgoing::new(Method::PATCH, upload.location.clone())
            .header(CONTENT_TYPE, BYTES)
            .header(CONTENT_LENGTH, &length.to_string());
        if offset > 0 {
            let range = format!("{offset}-{}", offset + length - 1);
            outgoing = outgoing.header(CONTENT_RANGE, &range);
        }
        let response = self.send_stream(&outgoing, body).await?;
        let response = self.accept(response, "a chunk of an upload").await?;
        upload.location = self.location(&response)?;
        Ok(())
    }

    /// Where an upload stands at the remote.
    pub async fn upload_offset(&self, upload: &mut Upload) -> Result<u64> {
        let outgoing = Outgoing::new(Method::GET, upload.location.clone());
        let response = self.send(&outgoing).await?;
        let response = self.accept(response, "the state of an upload").await?;
        if response.headers().contains_key(LOCATION) {
            upload.location = self.location(&response)?;
        }
        let range = response.headers().get(RANGE);
        let last = range.and_then(|value| {
            let text = value.to_str().ok()?;
            text.rsplit('-').next()?.parse::<u64>().ok()
        });
        // `0-0` is what distribution says of an upload without bytes.
        Ok(last.filter(|last| *last > 0).map_or(0, |last| last + 1))
    }

    /// Ends an upload with its last bytes (or with none), and names what it must hash to.
    pub async fn finish_upload(&self, upload: &Upload, digest: &str, last: Bytes) -> Result<()> {
        let mut url = upload.location.clone();
        url.query_pairs_mut().append_pair("digest", digest);
        let mut outgoing = Outgoing::new(Method::PUT, url)
            .header(CONTENT_TYPE, BYTES)
            .header(CONTENT_LENGTH, &last.len().to_string());
        outgoing.body = last;
        let response = self.send(&outgoing).await?;
        self.accept(response, &format!("the upload of {digest}"))
            .await
            .map(drop)
    }

    /// `Location`, under the rules of redirects: bytes of an image go nowhere less safe.
    fn location(&self, response: &Response) -> Result<Url> {
        let target = response.headers().get(LOCATION);
        let target = target.and_then(|value| value.to_str().ok());
        let target = target.ok_or_else(|| self.not_a_registry("an upload has no Location"))?;
        redirect::next(response.url(), target, 0).map_err(|reason| Error::Redirect {
            host: self.host().to_owned(),
            target: target.chars().take(200).collect(),
            reason,
        })
    }
}
