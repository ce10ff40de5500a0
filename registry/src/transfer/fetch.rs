//! Fetching one blob: from where an earlier try stopped, no further than its size, and once for all
//! who want it. The store verifies the digest before the blob can be seen.

use orlop_proto::error::{Classify as _, Failure, Kind};
use reqwest::Response;
use tokio::sync::mpsc;

use super::lease::Lease;
use super::plan::Blob;
use super::progress::Progress;
use super::{Tally, Transfer};
use crate::ports::{Open, Piece};
use crate::remote::{Remote, delay};
use crate::{Error, Result};

/// Pieces between the remote's connection and the store's.
const PIECES_WAITING: usize = 2;
/// Tries of one blob in all, however well each one began.
const TRIES_MAX: u32 = 30;

/// How one try ended.
enum Try {
    /// The blob is in the store.
    Done,
    /// It may go better again: why, and whether bytes came.
    Again { error: Error, progressed: bool },
}

/// One blob on its way.
struct Fetch<'a> {
    transfer: &'a Transfer,
    remote: &'a Remote<'a>,
    blob: &'a Blob,
    ingest: String,
    lease: &'a str,
    wire: u64,
}

impl Transfer {
    /// Brings a blob into the store, where the lease keeps it.
    pub(super) async fn fetch(
        &self,
        remote: &Remote<'_>,
        blob: &Blob,
        lease: &Lease,
        progress: &Progress,
    ) -> Result<Tally> {
        let digest = &blob.digest;
        let _flight = self.flights.board(digest).await;
        if self.store.content.size(digest).await?.is_some() {
            progress
                .state(digest, "exists", blob.size, String::new())
                .await;
            return Ok(Tally::existed());
        }
        let _turn = self.turn().await;
        let mut fetch = Fetch {
            transfer: self,
            remote,
            blob,
            ingest: ingest(digest),
            lease: &lease.id,
            wire: 0,
        };
        fetch.run(progress).await?;
        progress
            .state(digest, "done", blob.size, String::new())
            .await;
        Ok(Tally::transferred(fetch.wire))
    }
}

impl Fetch<'_> {
    async fn run(&mut self, progress: &Progress) -> Result<()> {
        let mut failures = 0;
        for _ in 0..TRIES_MAX {
            match self.attempt(progress).await? {
                Try::Done => return Ok(()),
                Try::Again { error, progressed } => {
                    if progressed {
                        failures = 0;
                    }
                    let Some(pause) = delay(failures) else {
                        return Err(error);
                    };
                    tracing::info!(digest = self.blob.digest, %error, "a blob is resumed");
                    failures += 1;
                    tokio::time::sleep(pause).await;
                }
            }
        }
        Err(self.wrong("it did not come whole in many tries".to_owned()))
    }

    async fn attempt(&mut self, progress: &Progress) -> Result<Try> {
        let content = &self.transfer.store.content;
        let durable = content.ingest_offset(&self.ingest).await?.unwrap_or(0);
        let size = self.blob.size;
        let (first, response) = if durable == size && size > 0 {
            (size, None)
        } else {
            let wanted = if durable < size { durable } else { 0 };
            let (first, response) = self.remote.blob(&self.blob.digest, wanted).await?;
            self.check_length(first, &response)?;
            (first, Some(response))
        };
        let open = Open {
            id: self.ingest.clone(),
            offset: first,
            truncate: first == 0,
            lease: self.lease.to_owned(),
            diff_id: self.blob.diff_id.clone(),
        };
        let (sender, pieces) = mpsc::channel(PIECES_WAITING);
        let writing = content.write(open, pieces);
        let mut at = first;
        let pumping = pump(self.remote, self.blob, response, &mut at, sender, progress);
        let (written, pumped) = tokio::join!(writing, pumping);
        self.wire += at - first;
        self.judge(first, at > first, written, pumped).await
    }

    async fn judge(
        &self,
        first: u64,
        progressed: bool,
        written: Result<u64, Failure>,
        pumped: Result<()>,
    ) -> Result<Try> {
        match (written, pumped) {
            (Ok(_), Ok(())) => Ok(Try::Done),
            (_, Err(error @ Error::WrongBytes { .. })) => {
                self.discard().await?;
                Err(error)
            }
            (Ok(_), Err(error)) => Ok(Try::Again { error, progressed }),
            (Err(failure), _) if failure.kind == Kind::InvalidArgument => {
                let error = self.wrong(failure.message);
                self.discard().await?;
                if first > 0 {
                    // What an earlier try left may have been bad: once more from the beginning.
                    return Ok(Try::Again {
                        error,
                        progressed: false,
                    });
                }
                Err(error)
            }
            // Another writer is just letting go, or the durable offset has moved.
            (Err(failure), _) if matches!(failure.kind, Kind::Aborted | Kind::OutOfRange) => {
                Ok(Try::Again {
                    error: failure.into(),
                    progressed: false,
                })
            }
            (Err(failure), _) => Err(failure.into()),
        }
    }

    fn check_length(&self, first: u64, response: &Response) -> Result<()> {
        let size = self.blob.size;
        match response.content_length() {
            Some(length) if first + length != size => {
                Err(self.wrong(format!("it has {} bytes and not {size}", first + length)))
            }
            _ => Ok(()),
        }
    }

    async fn discard(&self) -> Result<()> {
        Ok(self.transfer.store.content.abort(&self.ingest).await?)
    }

    fn wrong(&self, detail: String) -> Error {
        wrong(self.remote, self.blob, detail)
    }
}

/// Hands the bytes on, and the order to commit once all of them came; never more than the blob's size
/// (`SECURITY` row H6).
async fn pump(
    remote: &Remote<'_>,
    blob: &Blob,
    response: Option<Response>,
    at: &mut u64,
    pieces: mpsc::Sender<Piece>,
    progress: &Progress,
) -> Result<()> {
    let mut steps = progress.steps(&blob.digest, "downloading", blob.size);
    if let Some(mut response) = response {
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|source| Error::Unreachable {
                host: remote.host().to_owned(),
                source: source.without_url(),
            })?;
            let Some(mut chunk) = chunk else {
                break;
            };
            *at += chunk.len() as u64;
            if *at > blob.size {
                let detail = format!("more than {} bytes came", blob.size);
                return Err(wrong(remote, blob, detail));
            }
            while !chunk.is_empty() {
                let piece = chunk.split_to(chunk.len().min(orlop_wire::CHUNK_BYTES));
                if pieces.send(Piece::Data(piece)).await.is_err() {
                    // The store has said why it stopped.
                    return Ok(());
                }
            }
            steps.at(*at);
        }
    }
    if *at < blob.size {
        let detail = format!("only {at} of {} bytes came", blob.size);
        return Err(wrong(remote, blob, detail));
    }
    let commit = Piece::Commit {
        digest: blob.digest.clone(),
        size: blob.size,
    };
    // As above.
    pieces.send(commit).await.ok();
    Ok(())
}

fn wrong(remote: &Remote<'_>, blob: &Blob, detail: String) -> Error {
    Error::WrongBytes {
        host: remote.host().to_owned(),
        digest: blob.digest.clone(),
        detail,
    }
}

/// The name of a blob's ingest: the same for every pull, so that each goes on where one stopped.
fn ingest(digest: &str) -> String {
    let name: String = digest.replace(':', "-").chars().take(80).collect();
    format!("pull-{name}")
}

/// Whether a fetch that failed may go better at another time.
pub(super) fn passes(error: &Error) -> bool {
    error.kind() == Kind::Unavailable
}
