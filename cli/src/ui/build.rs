//! Progress of a build: `plain` lines as BuildKit's, a redrawn view on a terminal, JSON, or nothing.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use orlop_proto::builder::build_event::Event;
use orlop_proto::builder::{BuildEvent, BuildResult};
use orlop_proto::types::Progress;
use serde_json::{Value, json};

use super::text::{ellipsis, escape, escape_lines};
use super::time;
use crate::error::CliError;
use crate::ui;

/// Lines of a failed step's log that are shown after a redrawn view.
const LOG_LINES: usize = 20;
/// The longest piece of a log that is kept without a line break.
const LINE_BYTES_MAX: usize = 64 * 1024;
const NAME_WIDTH: usize = 70;

/// `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Redrawn on a terminal, else plain.
    Auto,
    Plain,
    /// Redrawn.
    Tty,
    Quiet,
    Rawjson,
}

/// The view of one build.
#[derive(Debug)]
pub(crate) struct BuildView {
    mode: Mode,
    screen: Option<MultiProgress>,
    steps: HashMap<String, Step>,
}

#[derive(Debug, Default)]
struct Step {
    number: usize,
    name: String,
    started: Option<Timestamp>,
    /// The unfinished lines of standard output and standard error.
    partial: [Vec<u8>; 2],
    /// The last lines, for a failure.
    tail: Vec<String>,
    bar: Option<ProgressBar>,
    /// The last progress word shown plain, by its id.
    told: HashMap<String, String>,
}

impl BuildView {
    pub(crate) fn new(mode: Mode, plain_terminal: bool) -> Self {
        let redraw = match mode {
            Mode::Tty => true,
            Mode::Auto => ui::stderr_is_terminal() && !plain_terminal,
            _ => false,
        };
        let mode = match mode {
            Mode::Auto | Mode::Tty if redraw => Mode::Tty,
            Mode::Auto => Mode::Plain,
            other => other,
        };
        Self {
            mode,
            screen: redraw.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())),
            steps: HashMap::new(),
        }
    }

    /// One event.
    pub(crate) fn event(&mut self, event: &BuildEvent) -> Result<(), CliError> {
        match self.mode {
            Mode::Quiet => Ok(()),
            Mode::Rawjson => {
                ui::note(raw(event).to_string());
                Ok(())
            }
            _ => self.show(event),
        }
    }

    fn show(&mut self, event: &BuildEvent) -> Result<(), CliError> {
        let next = self.steps.len() + 1;
        let Some(kind) = &event.event else {
            return Ok(());
        };
        if let Event::Warning(warning) = kind {
            let line = if warning.line > 0 {
                format!(" (line {})", warning.line)
            } else {
                String::new()
            };
            return self.print(&format!(
                "warning{line}: {}",
                escape_lines(&warning.message)
            ));
        }
        let screen = self.screen.clone();
        let step = self
            .steps
            .entry(event.vertex.clone())
            .or_insert_with(|| Step {
                number: next,
                ..Step::default()
            });
        let at = time::of(event.time.as_ref()).unwrap_or_else(Timestamp::now);
        let lines = match kind {
            Event::Started(started) => step.begin(&started.name, at, screen.as_ref()),
            Event::Completed(completed) => step.complete(completed.cached, at),
            Event::Log(log) => step.log(&log.data, log.stream, at),
            Event::Failed(failed) => step.fail(&failed.message, at),
            Event::Progress(progress) => step.progress(progress),
            Event::Warning(_) => Vec::new(),
        };
        let failed = matches!(kind, Event::Failed(_));
        if self.screen.is_some() && !failed {
            return Ok(());
        }
        lines.iter().try_for_each(|line| self.print(line))
    }

    fn print(&self, line: &str) -> Result<(), CliError> {
        match &self.screen {
            Some(screen) => screen.println(line).map_err(CliError::Output),
            None => {
                ui::note(line);
                Ok(())
            }
        }
    }

    /// Leaves the screen as it is.
    pub(crate) fn finish(&self) -> Result<(), CliError> {
        for step in self.steps.values() {
            if let Some(bar) = &step.bar {
                bar.abandon();
            }
        }
        Ok(())
    }

    /// What was built.
    pub(crate) fn result(&self, result: &BuildResult) -> Result<(), CliError> {
        match self.mode {
            Mode::Quiet => return Ok(()),
            Mode::Rawjson => {
                let manifest = result.manifest.clone().unwrap_or_default();
                ui::note(
                    json!({ "result": {
                        "image_id": result.image_id,
                        "digest": manifest.digest,
                        "names": result.names,
                        "steps": result.steps,
                        "cached_steps": result.cached_steps,
                    }})
                    .to_string(),
                );
                return Ok(());
            }
            _ => {}
        }
        let steps = format!("{} steps, {} cached", result.steps, result.cached_steps);
        ui::note(format!("\nbuilt {} ({steps})", result.image_id));
        for name in &result.names {
            ui::note(format!("named {}", escape(name)));
        }
        Ok(())
    }
}

impl Step {
    fn begin(&mut self, name: &str, at: Timestamp, screen: Option<&MultiProgress>) -> Vec<String> {
        self.name = escape(name);
        self.started = Some(at);
        if let Some(screen) = screen {
            let bar = screen.add(ProgressBar::new_spinner());
            if let Ok(style) =
                ProgressStyle::with_template(" => {prefix} {elapsed:>8}  {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(format!("{:<NAME_WIDTH$}", ellipsis(&self.name, NAME_WIDTH)));
            bar.enable_steady_tick(Duration::from_millis(100));
            self.bar = Some(bar);
        }
        vec![format!("\n#{} {}", self.number, self.name)]
    }

    fn complete(&mut self, cached: bool, at: Timestamp) -> Vec<String> {
        let mut lines = self.flush(at);
        if let Some(bar) = &self.bar {
            let mark = if cached { "CACHED" } else { "done" };
            bar.finish_with_message(mark);
        }
        lines.push(if cached {
            format!("#{} CACHED", self.number)
        } else {
            format!("#{} DONE {}s", self.number, self.elapsed(at, 1))
        });
        lines
    }

    fn fail(&mut self, message: &str, at: Timestamp) -> Vec<String> {
        let mut lines = self.flush(at);
        if let Some(bar) = &self.bar {
            bar.abandon_with_message("ERROR");
            lines = self.tail.clone();
        }
        lines.push(format!("#{} ERROR: {}", self.number, escape_lines(message)));
        lines
    }

    /// Whole lines of what was logged; logs are shown as they are.
    fn log(&mut self, data: &[u8], stream: u32, at: Timestamp) -> Vec<String> {
        let partial = &mut self.partial[usize::from(stream == 2)];
        partial.extend_from_slice(data);
        let end = match partial.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if partial.len() > LINE_BYTES_MAX => partial.len(),
            None => return Vec::new(),
        };
        let whole: Vec<u8> = partial.drain(..end).collect();
        self.lines(&whole, at)
    }

    fn lines(&mut self, text: &[u8], at: Timestamp) -> Vec<String> {
        let text = String::from_utf8_lossy(text);
        let elapsed = self.elapsed(at, 3);
        let stamped = |line: &str| format!("#{} {elapsed} {line}", self.number);
        let lines: Vec<String> = text.lines().map(stamped).collect();
        if let (Some(bar), Some(last)) = (&self.bar, text.lines().last()) {
            bar.set_message(escape(last));
        }
        self.tail.extend(lines.iter().cloned());
        let surplus = self.tail.len().saturating_sub(LOG_LINES);
        self.tail.drain(..surplus);
        lines
    }

    fn flush(&mut self, at: Timestamp) -> Vec<String> {
        let [out, err] = std::mem::take(&mut self.partial);
        [out, err]
            .iter()
            .filter(|rest| !rest.is_empty())
            .flat_map(|rest| self.lines(rest, at))
            .collect()
    }

    fn progress(&mut self, progress: &Progress) -> Vec<String> {
        if let Some(bar) = &self.bar {
            bar.set_message(escape(&format!("{} {}", progress.status, progress.id)));
        }
        let told = self.told.entry(progress.id.clone()).or_default();
        if *told == progress.status {
            return Vec::new();
        }
        told.clone_from(&progress.status);
        let (id, status) = (escape(&progress.id), escape(&progress.status));
        vec![format!("#{} {id} {status}", self.number)]
    }

    fn elapsed(&self, at: Timestamp, digits: usize) -> String {
        let started = self.started.unwrap_or(at);
        format!(
            "{:.digits$}",
            at.duration_since(started).as_secs_f64().max(0.0)
        )
    }
}

/// One event as JSON.
fn raw(event: &BuildEvent) -> Value {
    let (kind, body) = match &event.event {
        Some(Event::Started(e)) => ("started", json!({ "name": e.name, "line": e.line })),
        Some(Event::Completed(e)) => ("completed", json!({ "cached": e.cached })),
        Some(Event::Log(e)) => (
            "log",
            json!({ "data": String::from_utf8_lossy(&e.data), "stream": e.stream }),
        ),
        Some(Event::Failed(e)) => ("failed", json!({ "message": e.message })),
        Some(Event::Warning(e)) => ("warning", json!({ "line": e.line, "message": e.message })),
        Some(Event::Progress(e)) => (
            "progress",
            json!({ "id": e.id, "status": e.status, "current": e.current, "total": e.total }),
        ),
        None => ("unknown", Value::Null),
    };
    json!({
        "vertex": event.vertex,
        "time": time::rfc3339(event.time.as_ref()),
        kind: body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> Step {
        Step {
            number: 3,
            started: Timestamp::new(10, 0).ok(),
            ..Step::default()
        }
    }

    fn at(millis: i32) -> Timestamp {
        Timestamp::new(10, millis * 1_000_000).unwrap()
    }

    #[test]
    fn logs_become_whole_lines_with_their_time() {
        let mut step = step();
        assert!(step.log(b"par", 1, at(1)).is_empty());
        assert_eq!(step.log(b"tial\nnext", 1, at(123)), ["#3 0.123 partial"]);
        assert_eq!(
            step.complete(false, at(500)),
            ["#3 0.500 next", "#3 DONE 0.5s"]
        );
    }

    #[test]
    fn cached_steps_say_so_and_d15_names_are_escaped() {
        assert_eq!(step().complete(true, at(0)), ["#3 CACHED"]);
        assert_eq!(
            step().begin("x\u{1b}[2J", at(0), None),
            ["\n#3 x\\u{1b}[2J"]
        );
    }
}
