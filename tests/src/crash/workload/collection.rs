//! Those who only look, and the collector.

use std::time::Duration;

use orlop_proto::store::{CollectRequest, DiskUsageRequest, ReadRequest};
use tonic::Status;

use super::{Step, Stop, Worker};
use crate::crash::journal::Facts;
use crate::crash::verify::is_digest_of;

const PAUSE_MS_MAX: u64 = 60;

impl Worker {
    /// Reads blobs that must be there while everything else goes on.
    pub(super) async fn reads(mut self) {
        while {
            let step = self.read_step().await;
            self.goes_on("read", step)
        } {}
    }

    /// Collects all the time.
    pub(super) async fn collects(mut self) {
        while {
            let step = self.collect_step().await;
            self.goes_on("collect", step)
        } {}
    }

    async fn collect_step(&mut self) -> Step {
        self.pause().await;
        let mut maintenance = self.clients.maintenance.clone();
        let dry_run = self.chance.one_in(8);
        self.sort(maintenance.collect(CollectRequest { dry_run }).await)?;
        if self.chance.one_in(4) {
            // What it counts may go meanwhile.
            maintenance.disk_usage(DiskUsageRequest {}).await.ok();
        }
        Ok(())
    }

    async fn read_step(&mut self) -> Step {
        self.pause().await;
        let certain = |facts: &Facts| -> Vec<String> {
            let blobs = facts.blobs.iter();
            let certain = blobs.filter(|(_, blob)| blob.is_certain());
            certain.map(|(key, _)| key.clone()).collect()
        };
        let all = certain(&self.journal.facts());
        let Some(key) = self.chance.pick(&all) else {
            return Ok(());
        };
        let digest = key.split(' ').nth(1).unwrap();
        let read = self.read(digest).await;
        let still = certain(&self.journal.facts()).contains(key);
        match read {
            Ok(bytes) if is_digest_of(digest, &bytes) => Ok(()),
            Ok(_) => {
                self.journal.violate(format!("wrong bytes of {digest}"));
                Ok(())
            }
            // It may have been let go of meanwhile.
            Err(Stop::Refused(_)) if !still => Ok(()),
            Err(stop) => Err(stop),
        }
    }

    async fn read(&self, digest: &str) -> Step<Vec<u8>> {
        let request = ReadRequest {
            digest: digest.to_owned(),
            ..Default::default()
        };
        let stream = self.clients.content.clone().read(request).await;
        let mut stream = self.sort(stream)?;
        let mut bytes = Vec::new();
        loop {
            let message: Result<_, Status> = stream.message().await;
            match self.sort(message.map(tonic::Response::new))? {
                Some(piece) => bytes.extend_from_slice(&piece.data),
                None => return Ok(bytes),
            }
        }
    }

    async fn pause(&mut self) {
        let pause = Duration::from_millis(self.chance.below(PAUSE_MS_MAX));
        tokio::time::sleep(pause).await;
    }
}
