//! Progress of a pull or a push: bars on a terminal, lines otherwise.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use orlop_proto::types::Progress;

use super::text::{escape, short_id};
use crate::error::CliError;
use crate::ui;

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    StandardOutput,
    StandardError,
}

/// Which words end a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Pull,
    Push,
}

/// The view of one transfer.
#[derive(Debug)]
pub(crate) struct TransferView {
    target: Target,
    direction: Direction,
    bars: Option<MultiProgress>,
    pieces: HashMap<String, Piece>,
}

#[derive(Debug, Default)]
struct Piece {
    status: String,
    bar: Option<ProgressBar>,
}

impl TransferView {
    pub(crate) fn new(target: Target, direction: Direction, plain: bool) -> Self {
        let terminal = match target {
            Target::StandardOutput => ui::stdout_is_terminal(),
            Target::StandardError => ui::stderr_is_terminal(),
        };
        let draw = match target {
            Target::StandardOutput => ProgressDrawTarget::stdout(),
            Target::StandardError => ProgressDrawTarget::stderr(),
        };
        Self {
            target,
            direction,
            bars: (terminal && !plain).then(|| MultiProgress::with_draw_target(draw)),
            pieces: HashMap::new(),
        }
    }

    /// A line above the bars.
    pub(crate) fn line(&self, text: &str) -> Result<(), CliError> {
        let text = escape(text);
        match (&self.bars, self.target) {
            (Some(bars), _) => bars.println(text).map_err(CliError::Output),
            (None, Target::StandardOutput) => ui::line(text),
            (None, Target::StandardError) => {
                ui::note(text);
                Ok(())
            }
        }
    }

    /// One message of progress.
    pub(crate) fn update(&mut self, progress: &Progress) -> Result<(), CliError> {
        let words = words(self.direction, progress);
        let piece = self.pieces.entry(progress.id.clone()).or_default();
        let changed = piece.status != progress.status;
        if changed {
            piece.status.clone_from(&progress.status);
        }
        let Some(bars) = &self.bars else {
            return match words.filter(|_| changed) {
                Some(words) if is_told(&progress.status) => {
                    self.line(&format!("{}: {words}", name(&progress.id)))
                }
                _ => Ok(()),
            };
        };
        let bar = piece.bar.get_or_insert_with(|| {
            let bar = bars.add(ProgressBar::no_length());
            bar.set_prefix(escape(name(&progress.id)));
            bar
        });
        draw(bar, progress, words.unwrap_or_default(), changed);
        Ok(())
    }

    /// Leaves what is on the screen.
    pub(crate) fn finish(&self) {
        for piece in self.pieces.values() {
            if let Some(bar) = &piece.bar {
                bar.abandon();
            }
        }
    }
}

fn draw(bar: &ProgressBar, progress: &Progress, words: String, changed: bool) {
    if changed {
        let moving = progress.total > 0 && !is_final(&progress.status);
        let template = if moving {
            "{prefix}: {msg} [{bar:40}] {bytes}/{total_bytes}"
        } else {
            "{prefix}: {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(words);
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    if progress.total > 0 {
        bar.set_length(progress.total);
    }
    bar.set_position(progress.current);
    if is_final(&progress.status) {
        bar.abandon();
    }
}

/// A layer by the beginning of its digest, as Docker shows it; other things by their name.
fn name(id: &str) -> &str {
    if id.contains(':') { short_id(id) } else { id }
}

fn is_final(status: &str) -> bool {
    matches!(status, "done" | "exists" | "mounted" | "pushed")
}

/// What is worth a line where there are no bars.
fn is_told(status: &str) -> bool {
    is_final(status) || status == "downloading"
}

/// Docker's words for a status.
fn words(direction: Direction, progress: &Progress) -> Option<String> {
    let words = match (progress.status.as_str(), direction) {
        ("", _) => return None,
        ("downloading", _) if progress.current == 0 => "Pulling fs layer".to_owned(),
        ("downloading", _) => "Downloading".to_owned(),
        ("unpacking", _) => "Extracting".to_owned(),
        ("uploading", _) => "Pushing".to_owned(),
        ("exists", Direction::Pull) => "Already exists".to_owned(),
        ("exists", Direction::Push) => "Layer already exists".to_owned(),
        ("mounted", _) if progress.detail.is_empty() => "Mounted".to_owned(),
        ("mounted", _) => format!("Mounted from {}", escape(&progress.detail)),
        ("pushed", _) | ("done", Direction::Push) => "Pushed".to_owned(),
        ("done", Direction::Pull) => "Pull complete".to_owned(),
        (other, _) => escape(other),
    };
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(direction: Direction, status: &str, detail: &str) -> Option<String> {
        words(
            direction,
            &Progress {
                status: status.to_owned(),
                detail: detail.to_owned(),
                ..Progress::default()
            },
        )
    }

    #[test]
    fn words_are_dockers_and_d15_escaped() {
        assert_eq!(told(Direction::Pull, "done", "").unwrap(), "Pull complete");
        assert_eq!(
            told(Direction::Push, "exists", "").unwrap(),
            "Layer already exists"
        );
        assert_eq!(
            told(Direction::Push, "mounted", "library/x\u{1b}").unwrap(),
            "Mounted from library/x\\u{1b}"
        );
        assert_eq!(name("sha256:0123456789abcdef"), "0123456789ab");
    }
}
