//! Docker's output and exit codes, and ours, for the invocations of `docker/cases.txt`.
//!
//! What Docker says is recorded in `docker/facts.txt`, so that ours is compared on machines without it.
//! Where that Docker is installed, a daemon of its own is asked again, in namespaces of its own.
//! `ORLOP_RECORD=1 cargo test --test docker recorded` writes the facts anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]
#![allow(clippy::disallowed_methods, reason = "a harness reads its environment")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use orlop_tests::{Instance, eventually, fixtures, have};
use tempfile::TempDir;

/// The release that facts are of: the last whose command line Debian 12 has.
const RELEASE: &str = "20.10.";
const CASES: &str = include_str!("docker/cases.txt");

#[test]
fn ours_says_what_docker_says() {
    let facts = read_facts();
    let orlop = Instance::with_busybox();
    let said = ask(&|args| orlop.command(args));
    let wrong: Vec<_> = cases()
        .iter()
        .filter_map(|case| case.judge(&said[&case.key()], &facts[&case.key()]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn docker_says_what_is_recorded() {
    let Some(docker) = Docker::start() else {
        return;
    };
    let said = ask(&|args| docker.command(args));
    if std::env::var_os("ORLOP_RECORD").is_some() {
        return fs::write(facts_file(), written(&said)).unwrap();
    }
    let recorded = read_facts();
    let changed: Vec<_> = said
        .iter()
        .filter(|(key, said)| recorded.get(key) != Some(said))
        .collect();
    assert!(changed.is_empty(), "{changed:#?}");
}

#[test]
fn there_are_enough_cases_and_each_difference_has_its_reason() {
    let cases = cases();
    let compared = cases.iter().filter(|case| case.kind != Kind::Setup).count();
    assert!(compared >= 150, "{compared}");
    for case in cases.iter().filter(|case| case.kind == Kind::Differs) {
        assert!(case.reason.is_some(), "{} has no reason", case.line);
    }
}

/// What is compared, by the sign before a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `:` prepares what follows and must succeed.
    Setup,
    /// `?` exit codes.
    Code,
    /// `$` exit codes and standard outputs.
    Output,
    /// `!` these, and the first lines of standard error.
    Words,
    /// `~` is known not to be equal, and must stay so until the line is changed.
    Differs,
}

#[derive(Debug)]
struct Case {
    topic: &'static str,
    kind: Kind,
    line: &'static str,
    number: usize,
    reason: Option<&'static str>,
}

/// What was said: the exit code, standard output, the first line of standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Case {
    /// Where the facts have it: topic, place among its cases, command.
    fn key(&self) -> (usize, String) {
        (self.number, format!("{}: {}", self.topic, self.line))
    }

    /// What a command said, as far as it is compared: the rest may name the host or a process.
    fn hear(&self, output: &Output) -> Said {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let first = stderr.lines().next().filter(|_| self.kind == Kind::Words);
        let stdout = String::from_utf8_lossy(&output.stdout);
        let printed = match self.kind {
            Kind::Setup | Kind::Code => "",
            Kind::Output | Kind::Words | Kind::Differs => &*stdout,
        };
        Said {
            code: output.status.code().unwrap(),
            stdout: without_ids(printed),
            stderr: without_ids(first.unwrap_or_default()),
        }
    }

    fn judge(&self, ours: &Said, docker: &Said) -> Option<String> {
        let code = ours.code == docker.code;
        let output = code && ours.stdout == docker.stdout;
        let right = match self.kind {
            Kind::Setup => ours.code == 0 && docker.code == 0,
            Kind::Code => code,
            Kind::Output => output,
            Kind::Words => output && ours.stderr == docker.stderr,
            Kind::Differs => !output,
        };
        let (kind, key) = (self.kind, self.key().1);
        (!right).then(|| format!("{kind:?} {key}\n  ours   {ours:?}\n  docker {docker:?}"))
    }
}

/// The cases as they are written: a topic after `==`, a sign before a command, a reason below it.
fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut topic = "";
    for line in CASES.lines().filter(|line| !line.is_empty()) {
        let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
        let kind = match sign {
            "#" => continue,
            "==" => {
                topic = rest;
                continue;
            }
            "why:" => {
                cases.last_mut().unwrap().reason = Some(rest);
                continue;
            }
            ":" => Kind::Setup,
            "?" => Kind::Code,
            "$" => Kind::Output,
            "!" => Kind::Words,
            "~" => Kind::Differs,
            _ => panic!("no sign of ours: {line}"),
        };
        cases.push(Case {
            topic,
            kind,
            line: rest,
            number: cases.len(),
            reason: None,
        });
    }
    cases
}

/// Runs all cases with a command line, each topic in a directory of its own and with nothing left of
/// the topics before.
fn ask(command: &dyn Fn(&[String]) -> Command) -> BTreeMap<(usize, String), Said> {
    let mut said = BTreeMap::new();
    let mut directory = workplace();
    let mut topic = "";
    for case in cases() {
        if case.topic != topic {
            topic = case.topic;
            clear(command);
            directory = workplace();
        }
        let output = command(&words(case.line))
            .current_dir(&directory)
            .output()
            .unwrap();
        said.insert(case.key(), case.hear(&output));
    }
    clear(command);
    said
}

fn workplace() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hello.txt"), "hello\n").unwrap();
    fs::write(
        directory.path().join("env.txt"),
        "# none\nA=1\nB=two words\n",
    )
    .unwrap();
    directory
}

/// Removes all containers, and the networks and volumes that cases made.
fn clear(command: &dyn Fn(&[String]) -> Command) {
    let run = |line: &str| command(&words(line)).output().unwrap();
    let ids = String::from_utf8(run("ps -aq").stdout).unwrap();
    if !ids.is_empty() {
        run(&format!("rm -f -v {}", ids.replace('\n', " ")));
    }
    run("network prune -f");
    let volumes = String::from_utf8(run("volume ls -q").stdout).unwrap();
    if !volumes.is_empty() {
        run(&format!("volume rm {}", volumes.replace('\n', " ")));
    }
}

/// Splits a line at blanks outside of single quotes, as a shell does.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Ids of containers, networks and images, made equal: they are 12 or 64 hexadecimal digits.
fn without_ids(text: &str) -> String {
    let is_id = |word: &str| {
        [12, 64].contains(&word.len())
            && word.chars().all(|c| c.is_ascii_hexdigit())
            && word.chars().any(|c| c.is_ascii_digit())
    };
    text.split_inclusive(|c: char| !c.is_ascii_alphanumeric())
        .map(|part| {
            let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            match is_id(word) {
                true => part.replace(word, &format!("<{} digits>", word.len())),
                false => part.to_owned(),
            }
        })
        .collect()
}

fn facts_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker/facts.txt")
}

/// Facts as text: the command, its exit code, `|` before each line of standard output, which shows
/// whether the last one ends, and `!` before standard error.
fn written(said: &BTreeMap<(usize, String), Said>) -> String {
    let mut text = format!("# What Docker {RELEASE}x says to cases.txt; see docker.rs.\n");
    for ((_, command), said) in said {
        text += &format!("\n= {command}\n{}\n", said.code);
        for line in said.stdout.split('\n') {
            text += &format!("|{line}\n");
        }
        text += &format!("!{}\n", said.stderr);
    }
    text
}

fn read_facts() -> BTreeMap<(usize, String), Said> {
    let text = fs::read_to_string(facts_file()).unwrap();
    let blocks = text.split("\n= ").skip(1).enumerate();
    blocks
        .map(|(number, block)| {
            let mut lines = block.split('\n');
            let command = lines.next().unwrap().to_owned();
            let code = lines.next().unwrap().parse().unwrap();
            let of = |sign| {
                lines
                    .clone()
                    .filter_map(move |line| line.strip_prefix(sign))
            };
            let stdout = of('|').collect::<Vec<_>>().join("\n");
            let stderr = of('!').collect();
            (
                (number, command),
                Said {
                    code,
                    stdout,
                    stderr,
                },
            )
        })
        .collect()
}

/// A daemon of Docker's with nothing of the host's: state, socket, network, mounts and processes are
/// its own, so that they end with it.
struct Docker {
    client: PathBuf,
    directory: TempDir,
    daemon: Child,
}

impl Docker {
    /// `None` where that release is not installed.
    fn start() -> Option<Self> {
        let client = installed()?;
        // Its storage is an overlay, which lies on no other overlay.
        let directory = tempfile::Builder::new()
            .prefix("docker-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let daemon = daemon(directory.path());
        let docker = Self {
            client,
            directory,
            daemon,
        };
        eventually("Docker answers", || {
            docker
                .command(&words("ps"))
                .output()
                .unwrap()
                .status
                .success()
        });
        docker.import_busybox();
        Some(docker)
    }

    fn command(&self, args: &[String]) -> Command {
        let mut command = Command::new(&self.client);
        command
            .arg(format!("--host={}", socket(self.directory.path())))
            .args(args)
            .env("HOME", self.directory.path())
            .stdin(Stdio::null());
        command
    }

    fn import_busybox(&self) {
        let mut import = self
            .command(&words("import -c 'CMD [\"sh\"]' - busybox"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = import.stdin.take().unwrap();
        stdin.write_all(&fixtures::busybox_rootfs()).unwrap();
        drop(stdin);
        assert!(import.wait().unwrap().success());
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        let name = cgroup(self.directory.path());
        remove_cgroup(&Path::new("/sys/fs/cgroup").join(&name));
        let of_v1 = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        of_v1.for_each(|hierarchy| remove_cgroup(&hierarchy.path().join(&name)));
    }
}

/// The client of the release, which may be installed beside another one.
fn installed() -> Option<PathBuf> {
    if !have("dockerd") || !have("unshare") {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    let mut clients = std::env::split_paths(&path).map(|directory| directory.join("docker"));
    clients.find(|client| {
        let version = Command::new(client).arg("--version").output();
        version.is_ok_and(|version| String::from_utf8_lossy(&version.stdout).contains(RELEASE))
    })
}

fn daemon(directory: &Path) -> Child {
    let log = fs::File::create(directory.join("log")).unwrap();
    let at = |name: &str| directory.join(name).display().to_string();
    Command::new("unshare")
        .args(words(
            "--net --mount --pid --fork --kill-child --mount-proc dockerd",
        ))
        .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
        .args(["--pidfile", &at("pid"), "--host", &socket(directory)])
        .args(["--cgroup-parent", &format!("/{}", cgroup(directory))])
        .args(["--default-address-pool", "base=10.213.0.0/16,size=24"])
        .stderr(log)
        .spawn()
        .unwrap()
}

fn socket(directory: &Path) -> String {
    format!("unix://{}", directory.join("socket").display())
}

/// The daemon's parent of cgroups: the one thing that namespaces do not take along.
fn cgroup(directory: &Path) -> String {
    let name = directory.file_name().unwrap();
    format!("orlop-{}", name.to_string_lossy())
}

/// Removes a cgroup and those below it; processes that were killed are gone soon.
fn remove_cgroup(path: &Path) {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    below
        .filter(|entry| entry.path().is_dir())
        .for_each(|entry| remove_cgroup(&entry.path()));
    eventually("the cgroup is empty", || {
        !path.exists() || fs::remove_dir(path).is_ok()
    });
}
