//! The confinement that containers really have, as they see it themselves, compared with a table:
//! `floor.txt`. A change of it is a change of what users can rely on. `ORLOP_REGENERATE=1` writes it anew.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};

use orlop_tests::Instance;

/// Prints what there is to see, a line for each fact.
const SCRIPT: &str = r#"
for field in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Uid Gid Groups; do
    echo "$field" $(sed -n "s/^$field://p" /proc/self/status)
done
echo umask $(umask)
echo oom_score_adj $(cat /proc/self/oom_score_adj)
sed -n 's/^Max \(core file size\|open files\) */limit \1 /p' /proc/self/limits
for file in /proc/self/fd/*; do echo descriptor ${file##*/}; done
for name in cgroup ipc mnt net pid time user uts; do
    echo namespace $name $(readlink /proc/self/ns/$name)
done
while read -r _ _ _ _ target options rest; do
    kind=${rest#*- }
    echo mount $target ${kind%% *} $options
done < /proc/self/mountinfo
cd /dev && for name in *; do stat -c 'device %n %A %t:%T %u:%g' $name; done
for path in /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats \
    /proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap \
    /sys/firmware /sys/fs/selinux; do
    if [ -d $path ]; then size=$(ls -A $path | wc -l); else size=$(head -c 1 $path 2>/dev/null | wc -c); fi
    [ $size = 0 ] && echo hidden $path || echo shown $path
done
for path in /proc/bus/pci/00/00.0 /proc/irq/default_smp_affinity /proc/sys/kernel/domainname \
    /proc/sysrq-trigger /sys/kernel/profiling /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/memory/tasks; do
    (: >> $path) 2>/dev/null && echo writable $path || echo fixed $path
done
cut -d: -f3 /proc/self/cgroup | sort -u | sed 's/^/cgroup /'
sed 's/^/v1-rule /' /sys/fs/cgroup/devices/devices.list
"#;

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/floor.txt")
}

fn is_v1() -> bool {
    Path::new("/sys/fs/cgroup/memory").exists()
}

/// What differs between hosts, made equal; `None` for what this host's kernel does not have.
fn normal(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let kernel_path = words.get(1).filter(|path| {
        path.starts_with("/proc/")
            || path.starts_with("/sys/") && !path.starts_with("/sys/fs/cgroup")
    });
    if kernel_path.is_some_and(|path| !Path::new(path).exists()) {
        return None;
    }
    let thermal = |path: &str| path.ends_with("/thermal_throttle");
    Some(match words[..] {
        [name @ ("CapPrm" | "CapEff" | "CapBnd"), set] if set == own("CapPrm") => {
            format!("{name} all of the service's")
        }
        ["oom_score_adj", score] if score == own_score() => {
            "oom_score_adj of the service".to_owned()
        }
        ["limit", "open", "files", soft, hard, _] if hard == open_files() => {
            format!("limit open files {soft} 524288, or the host's")
        }
        ["limit", "core", "file", "size", soft, _, _] => {
            format!("limit core file size {soft} the host's")
        }
        // Files of the service's directory, on whatever file system that is.
        ["mount", path, _, options] if path.starts_with("/etc/") => {
            let access = options.split(',').next().unwrap();
            format!("mount {path} a file, {access}")
        }
        ["namespace", name, link] => {
            let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
            let whose = if host == Path::new(link) {
                "host"
            } else {
                "own"
            };
            format!("namespace {name} {whose}")
        }
        ["mount", path, ..] if thermal(path) => {
            line.replace(path, "/sys/devices/system/cpu/cpuN/thermal_throttle")
        }
        ["cgroup", path] if path.starts_with("/orlop/") => "cgroup /orlop/INSTANCE/ID".to_owned(),
        ["mount", path, "cgroup", options] => {
            let parent = Path::new(path).parent().unwrap().display();
            format!("v1-mount {parent}/CONTROLLER cgroup {options}")
        }
        ["mount", path @ "/sys/fs/cgroup", kind, options] if is_v1() => {
            format!("v1-mount {path} {kind} {options}")
        }
        ["writable" | "fixed", path] if path.starts_with("/sys/fs/cgroup/memory") => {
            format!("v1-{line}")
        }
        _ => line.to_owned(),
    })
}

fn own(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap().trim().to_owned()
}

fn own_score() -> String {
    fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .to_owned()
}

/// The hard limit that a container gets here.
fn open_files() -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit
        .maximum
        .map_or(524_288, |most| most.min(524_288))
        .to_string()
}

/// The facts of one dump, each once, sorted.
fn facts(dump: &str) -> Vec<String> {
    let mut facts: Vec<String> = dump.lines().filter_map(normal).collect();
    facts.sort();
    facts.dedup();
    facts
}

/// A privileged container has the host's devices, which are others everywhere: only what every
/// container has, and the log of the kernel, are compared.
fn known_devices(facts: Vec<String>, known: &[String]) -> Vec<String> {
    let keep = |fact: &String| {
        !fact.starts_with("device ") || fact.starts_with("device kmsg ") || known.contains(fact)
    };
    facts.into_iter().filter(keep).collect()
}

/// Each way into a container, and what is seen there.
fn dumps(orlop: &Instance) -> Vec<(&'static str, Vec<String>)> {
    let sh = ["sh", "-c", SCRIPT];
    let dump = |options: &[&str]| facts(&orlop.run(&[options, &sh].concat()).success().stdout());
    let run = dump(&["run", "--rm", "busybox"]);
    orlop.run_sleeper("box", &[]);
    let exec = dump(&["exec", "box"]);
    let privileged = known_devices(dump(&["run", "--rm", "--privileged", "busybox"]), &run);
    let shared = [
        "run",
        "--rm",
        "--pid=host",
        "--uts=host",
        "--network=host",
        "--cgroupns=host",
        "busybox",
    ];
    let mapped = ["run", "-d", "--name", "mapped", "--userns=auto", "busybox"];
    orlop
        .run(&[&mapped[..], &["sleep", "1000"]].concat())
        .success();
    let as_user = dump(&["run", "--rm", "-u", "1000", "busybox"]);
    vec![
        ("run", run),
        ("exec", exec),
        ("exec --privileged", dump(&["exec", "--privileged", "box"])),
        ("run -u 1000", as_user),
        ("run --init", dump(&["run", "--rm", "--init", "busybox"])),
        ("run --privileged", privileged),
        ("run in the host's namespaces", dump(&shared)),
        (
            "run --userns auto",
            dump(&["run", "--rm", "--userns=auto", "busybox"]),
        ),
        ("exec, --userns auto", dump(&["exec", "mapped"])),
        (
            "exec --privileged, --userns auto",
            dump(&["exec", "--privileged", "mapped"]),
        ),
        ("build RUN", facts(&build(orlop))),
    ]
}

fn build(orlop: &Instance) -> String {
    let context = tempfile::tempdir().unwrap();
    let dockerfile = "FROM busybox\nCOPY floor.sh /\nRUN sh -c \"$(cat /floor.sh)\" > /floor.txt\n";
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    fs::write(context.path().join("floor.sh"), SCRIPT).unwrap();
    orlop
        .run(&[
            "build",
            "-q",
            "-t",
            "floor",
            context.path().to_str().unwrap(),
        ])
        .success();
    orlop
        .run(&["run", "--rm", "floor", "cat", "/floor.txt"])
        .success()
        .stdout()
}

/// The first way in full, the others as what they have more and less.
fn write(dumps: &[(&str, Vec<String>)]) -> String {
    let (_, base) = &dumps[0];
    let mut text = String::new();
    for (name, facts) in dumps {
        text += &format!("[{name}]\n");
        if facts == base && *name != "run" {
            text += "as run\n";
            continue;
        }
        let lines = if *name == "run" {
            facts.clone()
        } else {
            let less = base.iter().filter(|fact| !facts.contains(fact));
            let more = facts.iter().filter(|fact| !base.contains(fact));
            let less = less.map(|fact| format!("- {fact}"));
            less.chain(more.map(|fact| format!("+ {fact}"))).collect()
        };
        text += &(lines.join("\n") + "\n");
    }
    text
}

/// The table's lines without those of kernels that are not this one.
fn here(text: &str) -> Vec<String> {
    let fits = |line: &&str| {
        let fact = line.trim_start_matches(['+', '-', ' ']);
        let path = fact.split(' ').nth(1).unwrap_or_default();
        let of_kernel = path.starts_with("/proc/") || path.starts_with("/sys/");
        let known = !of_kernel
            || path.contains("cpuN")
            || path.contains("cgroup")
            || Path::new(path).exists();
        known && (is_v1() || !fact.starts_with("v1-"))
    };
    text.lines().filter(fits).map(str::to_owned).collect()
}

#[test]
fn c6_b3_b22_the_floor_is_the_one_of_the_table() {
    let orlop = Instance::with_busybox();
    let text = write(&dumps(&orlop));
    if std::env::var_os("ORLOP_REGENERATE").is_some() {
        fs::write(table(), &text).unwrap();
    }
    let expected = here(&fs::read_to_string(table()).unwrap());
    let found = here(&text);
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    let (missing, new) = (only(&expected, &found), only(&found, &expected));
    assert!(
        found == expected,
        "no more: {missing:#?}\nnew: {new:#?}\n{text}"
    );
}
