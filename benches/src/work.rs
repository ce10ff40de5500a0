//! The pieces of work that are measured.

use std::fs;
use std::time::{Duration, Instant};

use orlop_tests::fixtures;
use tempfile::TempDir;

use crate::engine::{Engine, Registry};
use crate::report::Report;

type Step = Box<dyn Fn(&dyn Engine, usize)>;

/// One row of the table: `prepare` and `finish` are not counted, `run` is.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    /// Once per engine, before the first round.
    pub(crate) set_up: Step,
    /// Before each round.
    pub(crate) prepare: Step,
    pub(crate) run: Step,
    /// Expensive works are repeated less often: the number of rounds is divided by this.
    pub(crate) divide: usize,
}

impl Work {
    /// One warm-up each, then the engines in turn.
    pub(crate) fn measure(&self, engines: &[&dyn Engine], rounds: usize, report: &mut Report) {
        for engine in engines {
            (self.set_up)(*engine, 0);
        }
        for round in 0..=(rounds / self.divide).max(3) {
            for engine in engines {
                (self.prepare)(*engine, round);
                let start = Instant::now();
                (self.run)(*engine, round);
                if round > 0 {
                    report.add(self.name, engine.name(), start.elapsed());
                }
            }
        }
    }
}

/// All works, in the order of the table.
pub(crate) fn all(registry: Option<&Registry>) -> Vec<Work> {
    let mut works = vec![
        Work {
            name: "ps, nothing running",
            set_up: Box::new(import_busybox),
            ..quick(|engine, _| drop(engine.run(&["ps"])))
        },
        Work {
            name: "run --rm true, bridge network",
            ..quick(|engine, _| drop(engine.run(&["run", "--rm", "busybox", "true"])))
        },
        Work {
            name: "run --rm true, no network",
            ..quick(|engine, _| {
                drop(engine.run(&["run", "--rm", "--network", "none", "busybox", "true"]));
            })
        },
        Work {
            name: "run -d",
            prepare: Box::new(remove_all),
            ..quick(|engine, _| drop(engine.run(&["run", "-d", "busybox", "sleep", "1000"])))
        },
        Work {
            name: "exec true",
            set_up: Box::new(|engine, _| {
                remove_all(engine, 0);
                engine.run(&["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]);
            }),
            ..quick(|engine, _| drop(engine.run(&["exec", "c1", "true"])))
        },
    ];
    works.extend(builds());
    if let Some(registry) = registry {
        works.extend(transfers(&registry.address));
    }
    works
}

/// FROM, WORKDIR, COPY of 200 files of 20 kB, two RUN, ENV, CMD.
fn builds() -> Vec<Work> {
    let context: &'static TempDir = Box::leak(Box::new(tempfile::tempdir().unwrap()));
    fs::write(
        context.path().join("Dockerfile"),
        "FROM busybox\nWORKDIR /app\nCOPY files files\nRUN ls files | wc -l > count\nRUN cat count\nENV A=b\nCMD [\"true\"]\n",
    )
    .unwrap();
    fs::create_dir(context.path().join("files")).unwrap();
    for n in 0..200_u32 {
        let line = format!("{n} {}\n", n.wrapping_mul(2_654_435_761));
        fs::write(
            context.path().join(format!("files/{n}")),
            line.repeat(20_000 / line.len()),
        )
        .unwrap();
    }
    let path = context.path().to_str().unwrap();
    vec![
        Work {
            name: "build, no cache",
            ..quick(move |engine, _| {
                drop(engine.run(&["build", "--no-cache", "-q", "-t", "app", path]))
            })
        },
        Work {
            name: "build, all cached",
            set_up: Box::new(move |engine, _| {
                drop(engine.run(&["build", "-q", "-t", "app", path]))
            }),
            ..quick(move |engine, _| drop(engine.run(&["build", "-q", "-t", "app", path])))
        },
        Work {
            name: "build, one of 200 files changed",
            prepare: Box::new(move |engine, round| {
                let text = format!("round {round} of {}\n", engine.name());
                fs::write(context.path().join("files/7"), text).unwrap();
            }),
            ..quick(move |engine, _| drop(engine.run(&["build", "-q", "-t", "app", path])))
        },
    ]
}

/// A Debian root file system of one layer, to and from the same registry.
fn transfers(address: &str) -> Vec<Work> {
    let address: &'static str = Box::leak(address.to_owned().into_boxed_str());
    let name = move |engine: &dyn Engine, round: usize| {
        format!("{address}/{}/debian:{round}", engine.name())
    };
    let repository = move |engine: &dyn Engine, round: usize| {
        format!(
            "{address}/{}-{round}-{}/debian:v1",
            engine.name(),
            std::process::id()
        )
    };
    vec![
        Work {
            name: "push, one large built layer",
            set_up: Box::new(|engine, _| {
                let archive = tempfile::NamedTempFile::new().unwrap();
                fs::write(archive.path(), fixtures::debian_node_rootfs()).unwrap();
                engine.run(&["import", archive.path().to_str().unwrap(), "debian"]);
            }),
            prepare: Box::new(move |engine, round| {
                // A new layer each round, so that nothing of it is in the registry.
                let context = tempfile::tempdir().unwrap();
                let dockerfile = format!("FROM debian\nRUN cp -a /usr /copy-{round}\n");
                fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
                let tag = repository(engine, round);
                engine.run(&["build", "-q", "-t", &tag, context.path().to_str().unwrap()]);
            }),
            run: Box::new(move |engine, round| {
                drop(engine.run(&["push", &repository(engine, round)]))
            }),
            divide: 3,
        },
        Work {
            name: "push, nothing new",
            set_up: Box::new(move |engine, _| {
                let tag = name(engine, 0);
                engine.run(&["tag", "debian", &tag]);
                engine.run(&["push", &tag]);
            }),
            ..quick(move |engine, _| drop(engine.run(&["push", &name(engine, 0)])))
        },
        Work {
            name: "pull, one large layer",
            set_up: Box::new(move |engine, _| {
                // A layer that nothing was built on: no cache and no grace period keeps its tree.
                let archive = tempfile::NamedTempFile::new().unwrap();
                let layer = fixtures::marked(&fixtures::debian_node_rootfs(), engine.name());
                fs::write(archive.path(), layer).unwrap();
                engine.run(&["import", archive.path().to_str().unwrap(), &name(engine, 1)]);
                engine.run(&["push", &name(engine, 1)]);
            }),
            prepare: Box::new(move |engine, _| {
                engine.run(&["rmi", "-f", &name(engine, 1)]);
                engine.run(&["system", "prune", "-f"]);
                std::thread::sleep(Duration::from_millis(500));
            }),
            run: Box::new(move |engine, _| drop(engine.run(&["pull", "-q", &name(engine, 1)]))),
            divide: 3,
        },
    ]
}

/// A work that is as often done as there are rounds, with nothing around it.
pub(crate) fn quick(run: impl Fn(&dyn Engine, usize) + 'static) -> Work {
    Work {
        name: "",
        set_up: Box::new(|_, _| {}),
        prepare: Box::new(|_, _| {}),
        run: Box::new(run),
        divide: 1,
    }
}

/// Makes the image `busybox`.
pub(crate) fn import_busybox(engine: &dyn Engine, _: usize) {
    let archive = tempfile::NamedTempFile::new().unwrap();
    fs::write(archive.path(), fixtures::busybox_rootfs()).unwrap();
    engine.run(&["import", archive.path().to_str().unwrap(), "busybox"]);
}

/// Removes every container.
pub(crate) fn remove_all(engine: &dyn Engine, _: usize) {
    let ids = engine.run(&["ps", "-aq"]).stdout;
    let ids = String::from_utf8_lossy(&ids).into_owned();
    let mut args = vec!["rm", "-f"];
    args.extend(ids.split_whitespace());
    if args.len() > 2 {
        engine.run(&args);
    }
}
