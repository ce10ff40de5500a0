//! Reading what a service says at `/metrics`.

/// The value of a sample, by its name and labels as they are written; 0 where it is not.
pub fn value(text: &str, sample: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

/// The values of one label that a metric has.
pub fn labels(text: &str, metric: &str, label: &str) -> Vec<String> {
    let start = format!("{metric}{{{label}=\"");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&start));
    lines
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .collect()
}

/// A histogram: upper bounds, and how many observations are at most that.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    /// The buckets of a metric with these labels, as they are written.
    pub fn read(text: &str, metric: &str, labels: &str) -> Self {
        let start = format!("{metric}_bucket{{le=\"");
        let end = format!("\",{labels}}} ");
        let lines = text.lines().filter_map(|line| line.strip_prefix(&start));
        let buckets = lines.filter_map(|line| {
            let (bound, count) = line.split_once(&end)?;
            let bound = bound.replace("+Inf", "inf").parse().ok()?;
            Some((bound, count.parse().ok()?))
        });
        Self(buckets.collect())
    }

    /// Observations.
    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The bound of the bucket that the quantile is in, if `zeros` more were observed that took no
    /// time: no observation below the quantile was greater.
    pub fn quantile(&self, quantile: f64, zeros: f64) -> f64 {
        let rank = quantile * (self.count() + zeros);
        if rank <= zeros {
            return 0.0;
        }
        let bucket = self.0.iter().find(|(_, count)| count + zeros >= rank);
        bucket.map_or(f64::INFINITY, |(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
wait_seconds_bucket{le=\"0.001\",lock=\"a\"} 98\n\
wait_seconds_bucket{le=\"0.05\",lock=\"a\"} 99\n\
wait_seconds_bucket{le=\"+Inf\",lock=\"a\"} 100\n\
taken_total{lock=\"a\"} 1000\n";

    #[test]
    fn quantiles_are_the_bounds_of_their_buckets() {
        let buckets = Buckets::read(TEXT, "wait_seconds", "lock=\"a\"");
        assert!((buckets.count() - 100.0).abs() < 0.1);
        assert!((buckets.quantile(0.99, 0.0) - 0.05).abs() < 1e-9);
        assert!((buckets.quantile(0.5, 0.0) - 0.001).abs() < 1e-9);
        assert!(buckets.quantile(0.995, 0.0).is_infinite());
        assert!(buckets.quantile(0.5, 900.0).abs() < 1e-9);
    }

    #[test]
    fn samples_and_labels_are_found() {
        assert!((value(TEXT, "taken_total{lock=\"a\"}") - 1000.0).abs() < 0.1);
        assert_eq!(labels(TEXT, "taken_total", "lock"), ["a"]);
    }
}
