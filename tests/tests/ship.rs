//! Shipping images: our registry, other registries, archives, and what other tools make of our images.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orlop_tests::{Instance, eventually, fixtures, have, http};

/// Kills a peer's daemon when the test ends.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.0.wait().ok();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn push_remove_pull_and_run_again() {
    let orlop = Instance::with_busybox();
    let name = format!("{}/team/app:v1", orlop.registry());
    orlop.run(&["tag", "busybox", &name]).success();
    let id = orlop.inspect(&name, "{{.Id}}");
    orlop
        .run(&["push", &name])
        .success()
        .stdout_has("digest: sha256:");
    orlop.run(&["rmi", &name, "busybox"]).success();
    orlop
        .run(&["image", "inspect", &name])
        .exits(1)
        .stderr_has("v1");
    orlop
        .run(&["pull", &name])
        .success()
        .stdout_has("Digest: sha256:");
    assert_eq!(orlop.inspect(&name, "{{.Id}}"), id);
    orlop
        .run(&["run", "--rm", &name, "echo", "again"])
        .success()
        .stdout_is("again\n");
    orlop
        .run(&["pull", &name])
        .success()
        .stdout_has("up to date");
    let tags = http::get(orlop.registry(), "/v2/team/app/tags/list").unwrap();
    assert_eq!(tags.text().trim(), r#"{"name":"team/app","tags":["v1"]}"#);
}

/// `run` of an image that is only in a registry pulls it first.
#[test]
fn run_pulls_what_is_missing() {
    let orlop = Instance::with_busybox();
    let name = format!("{}/app", orlop.registry());
    orlop.run(&["tag", "busybox", &name]).success();
    orlop.run(&["push", &name]).success();
    orlop.run(&["rmi", &name, "busybox"]).success();
    orlop
        .run(&["run", "--rm", &name, "echo", "pulled"])
        .success()
        .stdout_is("pulled\n")
        .stderr_has("Unable to find image");
    orlop
        .run(&["run", "--rm", "--pull", "never", "missing-image", "true"])
        .exits(125)
        .stderr_has("missing-image");
}

/// The second image with the same base mounts the base's blobs and uploads none of them: counted on
/// the wire, through a proxy between push and registry.
#[test]
fn a_second_image_with_the_same_base_uploads_only_what_is_new() {
    let orlop = Instance::with_busybox();
    let registry: std::net::SocketAddr = orlop.registry().parse().unwrap();
    let counter = Arc::new(AtomicU64::new(0));
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap().to_string();
    let counted = Arc::clone(&counter);
    std::thread::spawn(move || {
        for client in proxy.incoming().map_while(Result::ok) {
            forward(client, registry, Arc::clone(&counted));
        }
    });

    let first = format!("{address}/base/first");
    orlop.run(&["tag", "busybox", &first]).success();
    orlop.run(&["push", &first]).success();
    let base_bytes = counter.swap(0, Ordering::SeqCst);
    assert!(
        base_bytes > 500_000,
        "the base itself travelled: {base_bytes}"
    );

    let context = tempfile::tempdir().unwrap();
    fs::write(
        context.path().join("Dockerfile"),
        "FROM busybox\nRUN echo new > /new\n",
    )
    .unwrap();
    let second = format!("{address}/other/second");
    orlop
        .run(&[
            "build",
            "-q",
            "-t",
            &second,
            context.path().to_str().unwrap(),
        ])
        .success();
    orlop
        .run(&["push", &second])
        .success()
        .stdout_has("Mounted from base/first");
    let new_bytes = counter.load(Ordering::SeqCst);
    assert!(
        new_bytes < 40_000,
        "only what is new travelled: {new_bytes}"
    );
    orlop.run(&["rmi", &second]).success();
    orlop
        .run(&["run", "--rm", &second, "cat", "/new"])
        .success()
        .stdout_is("new\n");
}

/// Copies bytes both ways, counting those that go to the registry.
fn forward(client: TcpStream, registry: std::net::SocketAddr, counter: Arc<AtomicU64>) {
    let server = TcpStream::connect(registry).unwrap();
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(n @ 1..) = from_client.read(&mut buffer) {
            counter.fetch_add(n as u64, Ordering::SeqCst);
            if to_server.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        to_server.shutdown(std::net::Shutdown::Write).ok();
    });
    let (mut from_server, mut to_client) = (server, client);
    std::thread::spawn(move || {
        std::io::copy(&mut from_server, &mut to_client).ok();
        to_client.shutdown(std::net::Shutdown::Write).ok();
    });
}

#[test]
fn save_and_load_carry_images_whole() {
    let orlop = Instance::with_busybox();
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let id = orlop.inspect("busybox", "{{.Id}}");
    orlop.run(&["save", "-o", path, "busybox"]).success();
    orlop.run(&["rmi", "busybox"]).success();
    orlop
        .run(&["load", "-i", path])
        .success()
        .stdout_has("Loaded image: busybox:latest");
    assert_eq!(orlop.inspect("busybox", "{{.Id}}"), id);
    orlop
        .run(&["run", "--rm", "busybox", "echo", "loaded"])
        .success()
        .stdout_is("loaded\n");
    orlop
        .run_with_input(&["load"], b"this is not a tar")
        .exits(1);
    orlop
        .run_with_input(&["import", "-", "junk"], b"this is not a tar")
        .exits(1);
    orlop.run(&["images", "-q", "junk"]).success().stdout_is("");
}

#[test]
fn images_are_listed_tagged_and_removed() {
    let orlop = Instance::with_busybox();
    orlop.run(&["tag", "busybox", "other:v2"]).success();
    orlop
        .run(&["images"])
        .success()
        .stdout_has("REPOSITORY")
        .stdout_has("other")
        .stdout_has("v2");
    orlop
        .run(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"])
        .success()
        .stdout_has("busybox:latest\n");
    let id = orlop.inspect("busybox", "{{.Id}}");
    let short = &id["sha256:".len()..][..12];
    orlop
        .run(&["images", "-q", "other"])
        .success()
        .stdout_is(&format!("{short}\n"));
    orlop
        .run(&["create", "--name", "box", "other:v2"])
        .success();
    orlop
        .run(&["rmi", "other:v2"])
        .success()
        .stdout_has("Untagged: other:v2");
    orlop.run(&["rmi", short]).exits(1);
    orlop.run(&["rm", "box"]).success();
    orlop.run(&["rmi", short]).success();
    orlop.run(&["images", "-q"]).success().stdout_is("");
    orlop
        .run(&["tag", "missing", "x"])
        .exits(1)
        .stderr_has("missing");
    orlop.run(&["tag", "busybox", "Not Valid"]).exits(1);
}

#[test]
fn registries_that_are_none_are_named() {
    let orlop = Instance::with_busybox();
    let closed = format!("127.0.0.1:{}/app", free_port());
    orlop
        .run(&["pull", &closed])
        .exits(1)
        .stderr_has(&closed[..closed.len() - 4]);
    let html = answering(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>",
    );
    orlop
        .run(&["pull", &format!("{html}/app")])
        .exits(1)
        .stderr_has(&html);
    orlop.run(&["images", "-q", "app"]).success().stdout_is("");
}

/// A server that says the same to everyone.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 4096];
            assert!(client.read(&mut buffer).is_ok_and(|n| n > 0));
            client.write_all(answer.as_bytes()).ok();
        }
    });
    address
}

#[test]
fn skopeo_copies_to_and_from_our_registry() {
    assert!(have("skopeo"), "install skopeo (make test does)");
    let orlop = Instance::with_busybox();
    let name = format!("{}/app:v1", orlop.registry());
    orlop.run(&["tag", "busybox", &name]).success();
    orlop.run(&["push", &name]).success();
    let directory = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:v1", directory.path().display());
    let ours = format!("docker://{name}");
    output(Command::new("skopeo").args(["copy", "--src-tls-verify=false", &ours, &layout]));
    let copy = format!("docker://{}/copied/app:v2", orlop.registry());
    output(Command::new("skopeo").args(["copy", "--dest-tls-verify=false", &layout, &copy]));
    let pulled = format!("{}/copied/app:v2", orlop.registry());
    orlop
        .run(&["run", "--rm", &pulled, "echo", "through skopeo"])
        .success()
        .stdout_is("through skopeo\n");
    // Docker's media types too.
    let schema2 = format!("docker://{}/schema2:v1", orlop.registry());
    output(Command::new("skopeo").args([
        "copy",
        "--format=v2s2",
        "--dest-tls-verify=false",
        &layout,
        &schema2,
    ]));
    let pulled = format!("{}/schema2:v1", orlop.registry());
    orlop
        .run(&["run", "--rm", &pulled, "echo", "schema 2"])
        .success()
        .stdout_is("schema 2\n");
    let list = output(Command::new("skopeo").args([
        "list-tags",
        "--tls-verify=false",
        &format!("docker://{}/app", orlop.registry()),
    ]));
    assert!(list.contains("v1"), "{list}");
}

/// Debian's docker-registry on a port of its own, with or without passwords.
fn docker_registry(directory: &Path, htpasswd: Option<&str>) -> (Peer, String) {
    assert!(
        have("docker-registry"),
        "install docker-registry (make test does)"
    );
    let address = format!("127.0.0.1:{}", free_port());
    let mut config = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
        directory.join("data").display()
    );
    if let Some(htpasswd) = htpasswd {
        let file = directory.join("htpasswd");
        fs::write(&file, htpasswd).unwrap();
        config += &format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            file.display()
        );
    }
    let file = directory.join("config.yml");
    fs::write(&file, config).unwrap();
    let log = fs::File::create(directory.join("log")).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(file)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let peer = Peer(child);
    eventually("docker-registry answers", || {
        http::get(&*address, "/v2/").is_some()
    });
    (peer, address)
}

#[test]
fn login_push_and_pull_with_a_password() {
    let orlop = Instance::with_busybox();
    let directory = tempfile::tempdir().unwrap();
    // `htpasswd -nbB me secret`
    let hash = "me:$2b$04$F6ptFYwbBogp4xNVUqHZqugTCqJlaeLg2B.KE.dz9vEfbjD/ASOia\n";
    let (_peer, address) = docker_registry(directory.path(), Some(hash));
    let name = format!("{address}/private/app");
    orlop.run(&["tag", "busybox", &name]).success();
    orlop.run(&["push", &name]).exits(1).stderr_has(&address);
    orlop
        .run_with_input(
            &["login", "-u", "me", "--password-stdin", &address],
            b"wrong\n",
        )
        .exits(1);
    let config = orlop.home().join(".docker/config.json");
    assert!(!config.exists() || !fs::read_to_string(&config).unwrap().contains(&address));
    orlop
        .run_with_input(
            &["login", "-u", "me", "--password-stdin", &address],
            b"secret\n",
        )
        .success()
        .stdout_has("Login Succeeded");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&config).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    orlop.run(&["push", &name]).success();
    orlop.run(&["rmi", &name]).success();
    orlop.run(&["pull", &name]).success();
    orlop.run(&["logout", &address]).success();
    assert!(!fs::read_to_string(&config).unwrap().contains(&address));
    orlop.run(&["rmi", &name]).success();
    orlop.run(&["pull", &name]).exits(1);
}

/// Debian's engine with directories of its own and no network. The daemon ends before its directory
/// goes: it unmounts its data only while it finds the note about that in there.
struct Docker {
    _daemon: Peer,
    directory: tempfile::TempDir,
}

impl Docker {
    fn start() -> Self {
        assert!(have("dockerd"), "install docker.io (make test does)");
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let daemon = Command::new("dockerd")
            .args([
                "--data-root",
                &path("data"),
                "--exec-root",
                &path("exec"),
                "--pidfile",
                &path("pid"),
            ])
            .args([
                "-H",
                &format!("unix://{}", path("sock")),
                "--bridge=none",
                "--iptables=false",
            ])
            .args(["--ip-forward=false", "--ip-masq=false"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let docker = Self {
            directory,
            _daemon: Peer(daemon),
        };
        eventually("dockerd answers", || {
            docker
                .command(&["info"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        });
        docker
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        let socket = format!("unix://{}", self.directory.path().join("sock").display());
        command
            .arg("-H")
            .arg(socket)
            .args(args)
            .env("DOCKER_BUILDKIT", "0")
            .env("HOME", self.directory.path());
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        output(&mut self.command(args))
    }
}

#[test]
fn docker_runs_our_image_under_the_same_digest_and_we_run_dockers() {
    let orlop = Instance::with_busybox();
    let docker = Docker::start();
    let context = tempfile::tempdir().unwrap();
    fs::write(
        context.path().join("Dockerfile"),
        "FROM busybox\nRUN echo built by orlop > /who\nCMD [\"cat\", \"/who\"]\n",
    )
    .unwrap();
    let name = format!("{}/app:v1", orlop.registry());
    orlop
        .run(&["build", "-q", "-t", &name, context.path().to_str().unwrap()])
        .success();
    let pushed = orlop.run(&["push", &name]).success().stdout();
    let digest = pushed
        .split_whitespace()
        .find(|word| word.starts_with("sha256:"))
        .unwrap()
        .to_owned();
    let pulled = docker.run(&["pull", &name]);
    assert!(pulled.contains(&digest), "{pulled} should have {digest}");
    assert_eq!(
        docker.run(&["image", "inspect", "-f", "{{.Id}}", &name]),
        orlop.inspect(&name, "{{.Id}}")
    );
    assert_eq!(
        docker.run(&["run", "--rm", "--network", "none", &name]),
        "built by orlop"
    );

    // The other way: docker builds and pushes to Debian's docker-registry.
    let directory = tempfile::tempdir().unwrap();
    let (_peer, address) = docker_registry(directory.path(), None);
    fs::write(
        context.path().join("Dockerfile"),
        "FROM docker-busybox\nRUN echo built by docker > /who\nCMD [\"cat\", \"/who\"]\n",
    )
    .unwrap();
    let rootfs = directory.path().join("rootfs.tar");
    fs::write(&rootfs, fixtures::busybox_rootfs()).unwrap();
    docker.run(&["import", rootfs.to_str().unwrap(), "docker-busybox"]);
    let theirs = format!("{address}/theirs:v1");
    docker.run(&[
        "build",
        "--network",
        "none",
        "-t",
        &theirs,
        context.path().to_str().unwrap(),
    ]);
    docker.run(&["push", &theirs]);
    orlop.run(&["pull", &theirs]).success();
    orlop
        .run(&["run", "--rm", &theirs])
        .success()
        .stdout_is("built by docker\n");
    // And docker loads what we save.
    let archive = directory.path().join("saved.tar");
    orlop
        .run(&["save", "-o", archive.to_str().unwrap(), &name])
        .success();
    docker.run(&["rmi", &name]);
    assert!(
        docker
            .run(&["load", "-i", archive.to_str().unwrap()])
            .contains(&name)
    );
}
