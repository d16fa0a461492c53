//! What is counted, in the text form that Prometheus reads (exposition format 0.0.4).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use super::batch::Counts;

/// Upper bounds of the histogram's buckets, in seconds.
const BOUNDS: [f64; 10] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 60.0];

/// Answers so far.
#[derive(Default)]
pub struct Metrics {
    statuses: Mutex<BTreeMap<u16, usize>>,
    buckets: [AtomicUsize; BOUNDS.len()],
    count: AtomicUsize,
    microseconds: AtomicU64,
}

impl Metrics {
    /// An answer with this status after so long.
    pub fn answered(&self, status: u16, after: Duration) {
        *self.statuses.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            if after.as_secs_f64() <= *bound {
                bucket.fetch_add(1, Relaxed);
            }
        }
        self.count.fetch_add(1, Relaxed);
        self.microseconds.fetch_add(after.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
    }

    /// All of it; of each model its kind and what it has done.
    pub fn text<'a>(&self, models: impl IntoIterator<Item = (&'static str, &'a Counts)>) -> String {
        let mut text = String::from("# TYPE wick_responses_total counter\n");
        // Writing to a string does not fail.
        for (status, count) in self.statuses.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "wick_responses_total{{status=\"{status}\"}} {count}");
        }
        text.push_str("# TYPE wick_response_seconds histogram\n");
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            let _ = writeln!(text, "wick_response_seconds_bucket{{le=\"{bound}\"}} {}", bucket.load(Relaxed));
        }
        let count = self.count.load(Relaxed);
        let sum = Duration::from_micros(self.microseconds.load(Relaxed)).as_secs_f64();
        let _ = writeln!(text, "wick_response_seconds_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "wick_response_seconds_sum {sum}\nwick_response_seconds_count {count}");
        let models: Vec<_> = models.into_iter().collect();
        type Read = fn(&Counts) -> &AtomicUsize;
        let counters: [(&str, Read); 3] = [
            ("requests", |counts| &counts.requests),
            ("texts", |counts| &counts.texts),
            ("calls", |counts| &counts.calls),
        ];
        for (name, read) in counters {
            let _ = writeln!(text, "# TYPE wick_model_{name}_total counter");
            for (kind, counts) in &models {
                let _ = writeln!(text, "wick_model_{name}_total{{model=\"{kind}\"}} {}", read(counts).load(Relaxed));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_status_and_time() {
        let metrics = Metrics::default();
        metrics.answered(200, Duration::from_millis(30));
        metrics.answered(200, Duration::from_millis(300));
        metrics.answered(429, Duration::ZERO);
        let counts = Counts::default();
        counts.texts.store(7, Relaxed);
        let text = metrics.text([("embedder", &counts)]);
        for line in [
            "wick_responses_total{status=\"200\"} 2",
            "wick_responses_total{status=\"429\"} 1",
            "wick_response_seconds_bucket{le=\"0.02\"} 1",
            "wick_response_seconds_bucket{le=\"0.05\"} 2",
            "wick_response_seconds_bucket{le=\"+Inf\"} 3",
            "wick_response_seconds_sum 0.33",
            "wick_response_seconds_count 3",
            "wick_model_texts_total{model=\"embedder\"} 7",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
    }
}
