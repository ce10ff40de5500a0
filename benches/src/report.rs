//! The table: medians, the 99th percentile, and ratios pair by pair.

use std::time::Duration;

/// Samples by work and engine, in the order in which they came.
pub(crate) struct Report {
    engines: Vec<&'static str>,
    rows: Vec<(&'static str, Vec<Vec<Duration>>)>,
}

impl Report {
    pub(crate) fn new(engines: Vec<&'static str>) -> Self {
        Self {
            engines,
            rows: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, work: &'static str, engine: &str, sample: Duration) {
        let column = self
            .engines
            .iter()
            .position(|name| *name == engine)
            .unwrap();
        if self.rows.iter().all(|(name, _)| *name != work) {
            self.rows.push((work, vec![Vec::new(); self.engines.len()]));
        }
        let row = self.rows.iter_mut().find(|(name, _)| *name == work);
        let (_, samples) = row.unwrap();
        samples[column].push(sample);
    }

    pub(crate) fn print(&self) {
        print!("\n{:34}", "work (milliseconds: median / p99)");
        for engine in &self.engines {
            print!("{engine:>20}");
        }
        println!("   ratio");
        for (work, samples) in &self.rows {
            print!("{work:34}");
            for column in samples {
                if column.is_empty() {
                    print!("{:>20}", "-");
                    continue;
                }
                let text = format!(
                    "{:.1} / {:.1}",
                    quantile(column, 0.5),
                    quantile(column, 0.99)
                );
                print!("{text:>20}");
            }
            println!("   {}", ratios(samples));
        }
    }

    /// Every sample, in milliseconds, to a file.
    pub(crate) fn save(&self, path: &str) {
        let rows: serde_json::Map<_, _> = self
            .rows
            .iter()
            .map(|(work, samples)| {
                let columns = self.engines.iter().zip(samples).map(|(engine, column)| {
                    let values: Vec<f64> = column.iter().map(|d| d.as_secs_f64() * 1e3).collect();
                    ((*engine).to_owned(), values.into())
                });
                (
                    (*work).to_owned(),
                    serde_json::Value::Object(columns.collect()),
                )
            })
            .collect();
        let json =
            serde_json::json!({ "machine": crate::machine::describe(), "milliseconds": rows });
        std::fs::write(path, format!("{json:#}\n")).unwrap();
        println!("\nevery sample: {path}");
    }
}

/// The first column to each of the others; nothing if one of a pair was not measured.
fn ratios(samples: &[Vec<Duration>]) -> String {
    let Some((ours, others)) = samples.split_first() else {
        return String::new();
    };
    let ratios = others.iter().map(|theirs| match ratio(ours, theirs) {
        Some(ratio) => format!("{ratio:.1}"),
        None => "-".to_owned(),
    });
    let ratios: Vec<_> = ratios.collect();
    format!("1 : {}", ratios.join(" : "))
}

/// How many times longer theirs took than ours: the median over the pairs of one round.
fn ratio(ours: &[Duration], theirs: &[Duration]) -> Option<f64> {
    let mut ratios: Vec<f64> = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| b.as_secs_f64() / a.as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

/// In milliseconds.
fn quantile(samples: &[Duration], q: f64) -> f64 {
    let mut sorted: Vec<f64> = samples.iter().map(|d| d.as_secs_f64() * 1e3).collect();
    sorted.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small index"
    )]
    let index = ((sorted.len() as f64 - 1.0) * q).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
