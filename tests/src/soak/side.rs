//! One instance whose services tell their metrics, and whose store forgets after a second.

use std::fs::File;
use std::process::{Child, Stdio};

use bytes::Bytes;
use orlop_proto::store as pb;
use orlop_proto::store::archives_client::ArchivesClient;
use orlop_proto::store::content_client::ContentClient;
use orlop_proto::store::images_client::ImagesClient;
use orlop_proto::store::maintenance_client::MaintenanceClient;
use orlop_wire::CHUNK_BYTES;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

use crate::instance::free_address;
use crate::{Instance, eventually, http};

/// The services of an instance, in the order of their start.
pub const SERVICES: [&str; 4] = ["store", "runtime", "registry", "builder"];

/// An instance, and the means to ask it without a command.
#[derive(Debug)]
pub struct Side {
    /// The instance; it goes first.
    pub instance: Instance,
    metrics: Vec<String>,
    runtime: Runtime,
    channel: Channel,
    processes: Processes,
}

/// The processes of the services; reaped when the instance has stopped them.
#[derive(Debug)]
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Side {
    /// Starts the four services; what nothing needs may be collected after one second.
    pub fn start() -> Self {
        Self::start_with(&["--collect-grace-seconds", "1"], &SERVICES)
    }

    /// Starts some services, the store with these options.
    pub fn start_with(store: &[&str], services: &[&str]) -> Self {
        let instance = Instance::stopped();
        let metrics: Vec<_> = services.iter().map(|_| free_address()).collect();
        let started = services.iter().zip(&metrics).map(|(service, metrics)| {
            let options = match *service {
                "store" => store.to_vec(),
                "registry" => vec!["--registry-http", instance.registry()],
                _ => Vec::new(),
            };
            start(&instance, service, metrics, &options)
        });
        let processes = Processes(started.collect());
        let runtime = Runtime::new().unwrap();
        let channel = {
            let _inside = runtime.enter();
            instance.channel("store")
        };
        Self {
            instance,
            metrics,
            runtime,
            channel,
            processes,
        }
    }

    /// Runs a future that asks a service.
    pub fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        self.runtime.block_on(question)
    }

    /// The store's blobs.
    pub fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
    }

    /// The store's names.
    pub fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
    }

    /// The channel to the store.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Collects what nothing needs.
    pub fn collect(&self) -> Result<(), String> {
        let mut maintenance = MaintenanceClient::new(self.channel.clone());
        let collected = self.ask(maintenance.collect(pb::CollectRequest { dry_run: false }));
        collected.map(drop).map_err(|status| told(&status))
    }

    /// The digest that a name points at.
    pub fn digest_of(&self, name: &str) -> Result<String, String> {
        let name = name.to_owned();
        let image = self.ask(self.images().get(pb::GetImageRequest { name }));
        let image = image.map_err(|status| told(&status))?.into_inner();
        Ok(image.target.unwrap_or_default().digest)
    }

    /// A whole blob.
    pub fn blob(&self, digest: &str) -> Result<Vec<u8>, String> {
        let request = pb::ReadRequest {
            digest: digest.to_owned(),
            ..pb::ReadRequest::default()
        };
        let read = self.ask(async {
            let mut stream = self.content().read(request).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(part) = stream.message().await? {
                bytes.extend_from_slice(&part.data);
            }
            Ok(bytes)
        });
        read.map_err(|status: Status| told(&status))
    }

    /// Ends the store and starts it again with these options.
    pub fn restart_store(&mut self, options: &[&str]) {
        let store = &mut self.processes.0[0];
        let id = rustix::process::Pid::from_child(store);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        store.wait().unwrap();
        *store = start(&self.instance, "store", &self.metrics[0], options);
    }

    /// Loads an archive, without a command.
    pub fn load(&self, archive: Vec<u8>) -> Result<(), String> {
        let archive = Bytes::from(archive);
        let parts = (0..archive.len()).step_by(CHUNK_BYTES).map(move |from| {
            let to = archive.len().min(from + CHUNK_BYTES);
            let data = archive.slice(from..to);
            pb::LoadRequest { data }
        });
        let mut archives = ArchivesClient::new(self.channel.clone());
        let loaded = self.ask(archives.load(tokio_stream::iter(parts)));
        loaded.map(drop).map_err(|status| told(&status))
    }

    /// Runs `orlop ARGS` with an input; its standard output, or what went wrong.
    pub fn orlop(&self, args: &[&str], input: &[u8]) -> Result<String, String> {
        let outcome = self.instance.run_with_input(args, input);
        if outcome.ended_with() == Some(0) {
            return Ok(outcome.stdout());
        }
        Err(format!(
            "orlop {} ended with {:?}: {}",
            args.join(" "),
            outcome.ended_with(),
            outcome.stderr().trim()
        ))
    }

    /// The metrics of a service as text.
    pub fn metrics(&self, service: &str) -> String {
        let position = SERVICES.iter().position(|name| *name == service).unwrap();
        let response = http::get(self.metrics[position].as_str(), "/metrics");
        response.map_or_else(String::new, |response| response.text())
    }

    /// The services that run.
    pub fn services(&self) -> &'static [&'static str] {
        SERVICES.get(..self.metrics.len()).unwrap_or_default()
    }
}

/// A status with its code.
pub fn told(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// `orlop serve SERVICE`, its log beside those that `orlop up` writes.
fn start(instance: &Instance, service: &str, metrics: &str, options: &[&str]) -> Child {
    let logs = instance.root().join("logs");
    std::fs::create_dir_all(&logs).unwrap();
    let log = File::create(logs.join(format!("{service}.log"))).unwrap();
    let errors = log.try_clone().unwrap();
    let mut command = instance.command(&["serve", service, "--metrics", metrics]);
    command
        .args(options)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    let child = command.spawn().unwrap();
    eventually(&format!("{service} serves"), || {
        std::os::unix::net::UnixStream::connect(instance.socket(service)).is_ok()
    });
    child
}
