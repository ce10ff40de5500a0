//! `run --rm true` without a network beside what has no daemon, no images and no log: `ctr` on a
//! directory, and bare runtimes on a bundle that is ready.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use orlop_tests::{eventually, fixtures, have};
use tempfile::TempDir;

use crate::engine::{Daemon, Engine};
use crate::report::Report;

/// The runtimes that are looked for.
const RUNTIMES: [&str; 3] = ["runc", "crun", "youki"];
const WORK: &str = "run --rm true, no network";

/// Runs a container to its end, in the round of that number.
type Run<'a> = Box<dyn Fn(usize) + 'a>;

/// Ours first, then Docker's, then all that are installed.
pub(crate) fn measure(engines: &[&dyn Engine], rounds: usize) {
    let bundle = bundle();
    let containerd = Containerd::start();
    let mut runners: Vec<(&'static str, Run<'_>)> = Vec::new();
    for engine in engines {
        let run = ["run", "--rm", "--network", "none", "busybox", "true"];
        runners.push((engine.name(), Box::new(move |_| drop(engine.run(&run)))));
    }
    match &containerd {
        Some(containerd) => {
            let rootfs = bundle.path().join("rootfs");
            let run = move |round| containerd.run(&rootfs, round);
            runners.push(("ctr", Box::new(run)));
        }
        None => println!("skipped: ctr (containerd is not installed)"),
    }
    for runtime in RUNTIMES {
        let bundle = bundle.path();
        match runs_here(runtime, bundle) {
            Ok(()) => {
                let run = move |round| done(&mut of_bundle(runtime, bundle, round));
                runners.push((runtime, Box::new(run)));
            }
            Err(reason) => println!("skipped: {runtime} ({reason})"),
        }
    }
    alternate(&runners, rounds);
}

/// One warm-up each, then in turn.
fn alternate(runners: &[(&'static str, Run<'_>)], rounds: usize) {
    let mut report = Report::new(runners.iter().map(|(name, _)| *name).collect());
    for round in 0..=rounds {
        for (name, run) in runners {
            let start = Instant::now();
            run(round);
            if round > 0 {
                report.add(WORK, name, start.elapsed());
            }
        }
    }
    report.print();
    report.save("target/bench-bare.json");
}

/// A root file system and, if runc is there, the configuration that it writes, for `true`.
fn bundle() -> TempDir {
    let bundle = tempfile::tempdir_in("/var/tmp").unwrap();
    let rootfs = bundle.path().join("rootfs");
    tar::Archive::new(&fixtures::busybox_rootfs()[..])
        .unpack(rootfs)
        .unwrap();
    if have("runc") {
        done(Command::new("runc").arg("spec").current_dir(&bundle));
        let path = bundle.path().join("config.json");
        let mut spec: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["true"]);
        fs::write(path, spec.to_string()).unwrap();
    }
    bundle
}

/// Whether a runtime can be compared, or why not: it may not know this host's cgroups.
fn runs_here(runtime: &str, bundle: &Path) -> Result<(), String> {
    if !have(runtime) || !have("runc") {
        return Err("it or runc, which writes the bundle, is not installed".to_owned());
    }
    let mut command = of_bundle(runtime, bundle, usize::MAX);
    let output = command.stdin(Stdio::null()).output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

fn of_bundle(runtime: &str, bundle: &Path, round: usize) -> Command {
    let mut command = Command::new(runtime);
    command.arg("--root").arg(bundle.join("state")).arg("run");
    command.arg("--bundle").arg(bundle).arg(unique(round));
    command
}

/// A name that no other run of the benchmark takes.
fn unique(round: usize) -> String {
    format!("bench-{}-{round}", std::process::id())
}

fn done(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {message}");
}

/// A containerd with directories of its own.
struct Containerd {
    _daemon: Daemon,
    directory: TempDir,
}

impl Containerd {
    fn start() -> Option<Self> {
        if !have("containerd") || !have("ctr") {
            return None;
        }
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| directory.path().join(name);
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        fs::write(path("config.toml"), config).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(path("config.toml"));
        command.arg("--root").arg(path("root"));
        command.arg("--state").arg(path("state"));
        command.arg("--address").arg(path("sock"));
        let daemon = Daemon::start(&mut command, &path("log"));
        let containerd = Self {
            _daemon: daemon,
            directory,
        };
        eventually("containerd answers", || {
            let output = containerd.ctr().arg("version").output();
            output.is_ok_and(|output| output.status.success())
        });
        Some(containerd)
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.directory.path().join("sock"));
        command
    }

    fn run(&self, rootfs: &Path, round: usize) {
        let mut command = self.ctr();
        command.args(["run", "--rm", "--rootfs"]).arg(rootfs);
        done(command.arg(unique(round)).arg("/bin/true"));
    }
}
