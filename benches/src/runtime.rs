//! The runtime beside Docker's and beside what runs one container only: whole lives, many containers
//! at once, their output and their network, the memory that they take, and the phases of a start.

mod bare;
mod many;
mod output;
mod phases;

use crate::engine::{self, Engine};
use crate::report::Report;
use crate::work::{Work, import_busybox, quick};

/// Measures everything; `rounds` for what is quick, fewer for what is not.
pub(crate) fn measure(rounds: usize) {
    phases::measure(rounds);
    let started = engine::start_all();
    let engines: Vec<&dyn Engine> = started.iter().map(|engine| &**engine).collect();
    for engine in &engines {
        import_busybox(*engine, 0);
    }
    bare::measure(&engines, rounds);

    let mut columns: Vec<_> = engines.iter().map(|engine| engine.name()).collect();
    columns.push(output::HOST);
    let mut report = Report::new(columns);
    life().measure(&engines, rounds, &mut report);
    output::measure(&engines, rounds, &mut report);
    let memory = many::measure(&engines, &mut report);
    report.print();
    report.save("target/bench-runtime.json");
    many::print(&memory);
}

/// The four commands of a container's life. The signal is one that ends any process, because what is
/// measured is not the command.
fn life() -> Work {
    let create = [
        "create",
        "--name",
        "life",
        "--stop-signal",
        "KILL",
        "busybox",
        "sleep",
        "1000",
    ];
    Work {
        name: "create, start, stop, rm",
        ..quick(move |engine, _| {
            engine.run(&create);
            for command in ["start", "stop", "rm"] {
                engine.run(&[command, "life"]);
            }
        })
    }
}
