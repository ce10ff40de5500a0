//! A builder on a socket, and a client that plays its part of the exchange.

use std::collections::HashMap;
use std::path::PathBuf;

use bytes::Bytes;
use orlop_proto::builder::build_client::BuildClient;
use orlop_proto::builder::build_request::Message as Ask;
use orlop_proto::builder::build_response::Message as Answer;
use orlop_proto::builder::cache_client::CacheClient;
use orlop_proto::builder::{
    BuildRequest, BuildResult, BuildStart, ContextDigests, ContextEntries, ContextEntry,
    ContextEntryKind, ContextFile,
};
use orlop_proto::error::Failure;
use orlop_wire::{Endpoint, Listener, connect};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::fakes::Store;

pub(crate) struct Session {
    pub(crate) store: Store,
    directory: tempfile::TempDir,
    channel: Channel,
    _stop: tokio::sync::oneshot::Sender<()>,
}

#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) result: BuildResult,
    /// Paths of the files whose bytes were asked for, and whose digests.
    pub(crate) sent: Vec<String>,
    pub(crate) hashed: Vec<String>,
    /// Everything that was heard, as text.
    pub(crate) events: String,
}

pub(crate) type Item = (ContextEntry, String);

fn entry(path: &str, kind: ContextEntryKind, size: usize) -> ContextEntry {
    ContextEntry {
        path: Bytes::copy_from_slice(path.as_bytes()),
        kind: kind.into(),
        mode: 0o644,
        size: i64::try_from(size).unwrap(),
        ..ContextEntry::default()
    }
}

pub(crate) fn file(path: &str, text: &str) -> Item {
    let mut entry = entry(path, ContextEntryKind::File, text.len());
    // As a change time would, so that changed bytes look changed.
    entry.ctime_nanos = text.bytes().map(i64::from).sum();
    (entry, text.to_owned())
}

pub(crate) fn dir(path: &str) -> Item {
    (entry(path, ContextEntryKind::Directory, 0), String::new())
}

pub(crate) fn link(path: &str, target: &str) -> Item {
    let mut entry = entry(path, ContextEntryKind::Symlink, 0);
    entry.link_target = Bytes::copy_from_slice(target.as_bytes());
    (entry, String::new())
}

impl Session {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::default();
        store.add_image("base");
        let builder = orlop_builder::server::open(directory.path(), store.ports()).unwrap();
        let endpoint = Endpoint::Unix(directory.path().join("builder.sock"));
        let listener = Listener::bind(&endpoint, false).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let routes = orlop_builder::grpc::routes(&builder);
        let shutdown = async move {
            stopped.await.ok();
        };
        tokio::spawn(async move {
            orlop_wire::serve(listener, routes, &orlop_builder::grpc::SERVICES, shutdown)
                .await
                .unwrap();
        });
        Self {
            store,
            directory,
            channel: connect(&endpoint),
            _stop: stop,
        }
    }

    pub(crate) fn cache(&self) -> CacheClient<Channel> {
        CacheClient::new(self.channel.clone())
    }

    pub(crate) async fn build(&self, text: &str, context: &[Item]) -> Result<Built, Failure> {
        self.build_with(text, context, &[]).await
    }

    #[allow(clippy::too_many_lines, reason = "one exchange, told in its order")]
    pub(crate) async fn build_with(
        &self,
        text: &str,
        context: &[Item],
        args: &[(&str, &str)],
    ) -> Result<Built, Failure> {
        let (sender, receiver) = mpsc::channel(100);
        let ask = async |message| {
            sender
                .send(BuildRequest {
                    message: Some(message),
                })
                .await
                .ok();
        };
        ask(Ask::Start(start(text, args))).await;
        let entries = context.iter().map(|(entry, _)| entry.clone()).collect();
        ask(Ask::Entries(ContextEntries {
            entries,
            last: true,
        }))
        .await;
        let mut client = BuildClient::new(self.channel.clone());
        let mut answers = client
            .build(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        let (mut sent, mut hashed, mut events) = (Vec::new(), Vec::new(), String::new());
        let path =
            |index: &u32| String::from_utf8_lossy(&context[*index as usize].0.path).into_owned();
        let mut result = None;
        while let Some(answer) = answers.message().await? {
            match answer.message.unwrap() {
                Answer::NeedDigests(need) => {
                    hashed.extend(need.indices.iter().map(path));
                    let hash = |index: &u32| {
                        format!(
                            "sha256:{}",
                            hex::encode(Sha256::digest(&context[*index as usize].1))
                        )
                    };
                    let digests = need.indices.iter().map(hash).collect();
                    ask(Ask::Digests(ContextDigests {
                        digests,
                        last: true,
                    }))
                    .await;
                }
                Answer::NeedFiles(need) => {
                    for index in need.indices {
                        sent.push(path(&index));
                        let data = Bytes::copy_from_slice(context[index as usize].1.as_bytes());
                        let chunks: Vec<Bytes> =
                            data.chunks(500_000).map(Bytes::copy_from_slice).collect();
                        let count = chunks.len();
                        for (i, data) in chunks.into_iter().enumerate() {
                            ask(Ask::File(ContextFile {
                                index,
                                data,
                                last: i + 1 == count,
                            }))
                            .await;
                        }
                    }
                }
                Answer::Event(event) => events.push_str(&format!("{event:?}\n")),
                Answer::Result(done) => result = Some(done),
            }
        }
        Ok(Built {
            result: result.expect("a result"),
            sent,
            hashed,
            events,
        })
    }

    /// Begins a build, and goes away once its command runs.
    pub(crate) async fn cancelled(&self, text: &str) {
        let (sender, receiver) = mpsc::channel(10);
        for message in [
            Ask::Start(start(text, &[])),
            Ask::Entries(ContextEntries {
                entries: vec![],
                last: true,
            }),
        ] {
            sender
                .send(BuildRequest {
                    message: Some(message),
                })
                .await
                .unwrap();
        }
        let mut client = BuildClient::new(self.channel.clone());
        let answers = client.build(ReceiverStream::new(receiver)).await.unwrap();
        while self.store.running() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        drop(answers);
    }

    /// All bytes of the builder's state.
    pub(crate) fn state_on_disk(&self) -> String {
        let mut open: Vec<PathBuf> = vec![self.directory.path().to_owned()];
        let mut text = String::new();
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(
                    std::fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            } else if let Ok(bytes) = std::fs::read(&path) {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        text
    }
}

fn start(text: &str, args: &[(&str, &str)]) -> BuildStart {
    let pairs = args
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    BuildStart {
        dockerfile: Bytes::copy_from_slice(text.as_bytes()),
        tags: vec!["made".to_owned()],
        build_args: pairs.collect::<HashMap<_, _>>(),
        context_id: "test".to_owned(),
        ..BuildStart::default()
    }
}
