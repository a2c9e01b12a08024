//! The closed loops and what they measure.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::client::{ClientError, ErrorKind};

/// Longest latency that is told apart, in microseconds.
const MOST_MICROS: u64 = 120_000_000;
/// A client gives up after so many errors in a row.
const ERRORS_IN_A_ROW: u32 = 50;
/// Gaps in acknowledged writes from this length on are reported one by one.
pub(super) const GAP_FLOOR: Duration = Duration::from_millis(100);

/// One client's work.
pub(super) trait Worker: Send + 'static {
    /// Makes one request and waits for its answer.
    fn step(&mut self) -> impl Future<Output = Step> + Send;
}

/// How one request ended.
pub(super) enum Step {
    /// It was answered well.
    Done,
    /// It failed.
    Failed(ClientError),
    /// The client has nothing left to do, after a last failure.
    Finished(ClientError),
}

/// What all clients of a connection measured.
struct Lane {
    latency: Histogram<u64>,
    errors: BTreeMap<&'static str, u64>,
    samples: BTreeMap<&'static str, String>,
}

/// Times without an acknowledged write.
#[derive(Debug, Default)]
struct Gaps {
    last: Option<Instant>,
    longest: Duration,
    over_floor: Vec<(Duration, Duration)>,
}

/// What was measured.
pub(super) struct Measured {
    /// Latencies of all requests that were answered well, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// Failed requests by kind.
    pub(super) errors: BTreeMap<&'static str, u64>,
    /// One message for each kind of failure.
    pub(super) samples: BTreeMap<&'static str, String>,
    /// From the start to the last good answer, or to the end if that came in time.
    pub(super) elapsed: Duration,
    /// Longest time without an acknowledged request.
    pub(super) longest_gap: Duration,
    /// Gaps from [`GAP_FLOOR`] on: when they began, how long they were.
    pub(super) gaps: Vec<(Duration, Duration)>,
}

/// An empty histogram; its bounds are constants that fit.
fn histogram() -> Result<Histogram<u64>, hdrhistogram::CreationError> {
    Histogram::new_with_bounds(1, MOST_MICROS, 3)
}

/// Runs all workers for a time. Worker `n` counts for lane `n % lanes`.
pub(super) async fn run<W: Worker>(
    workers: Vec<W>,
    lanes: usize,
    time: Duration,
) -> Result<Measured, hdrhistogram::CreationError> {
    let mut all = Vec::new();
    for _ in 0..lanes.max(1) {
        let (errors, samples) = (BTreeMap::new(), BTreeMap::new());
        all.push(Arc::new(Mutex::new(Lane { latency: histogram()?, errors, samples })));
    }
    let started = Instant::now();
    let end = started.checked_add(time).unwrap_or(started);
    let gaps = Arc::new(Mutex::new(Gaps { last: Some(started), ..Gaps::default() }));
    let mut tasks = Vec::new();
    for (worker, lane) in workers.into_iter().zip(all.iter().cycle()) {
        let (lane, gaps) = (Arc::clone(lane), Arc::clone(&gaps));
        tasks.push(tokio::spawn(client(worker, lane, gaps, started, end)));
    }
    for task in tasks {
        // A task that panicked has been reported by the panic hook; its numbers so far count.
        match task.await {
            Ok(()) | Err(_) => {}
        }
    }
    let mut measured = Measured {
        latency: histogram()?,
        errors: BTreeMap::new(),
        samples: BTreeMap::new(),
        elapsed: started.elapsed().min(time),
        longest_gap: Duration::ZERO,
        gaps: Vec::new(),
    };
    for lane in &all {
        let lane = lane.lock();
        // Equal bounds: adding can't fail.
        measured.latency += &lane.latency;
        for (kind, count) in &lane.errors {
            let sum = measured.errors.entry(kind).or_default();
            *sum = sum.saturating_add(*count);
        }
        measured.samples.extend(lane.samples.iter().map(|(k, v)| (*k, v.clone())));
    }
    let mut gaps = gaps.lock();
    if let Some(last) = gaps.last {
        measured.elapsed = measured
            .elapsed
            .min(last.saturating_duration_since(started).max(Duration::from_millis(1)));
    }
    gaps.note(end.min(Instant::now()), started);
    measured.longest_gap = gaps.longest;
    measured.gaps = std::mem::take(&mut gaps.over_floor);
    Ok(measured)
}

async fn client<W: Worker>(
    mut worker: W,
    lane: Arc<Mutex<Lane>>,
    gaps: Arc<Mutex<Gaps>>,
    started: Instant,
    end: Instant,
) {
    let mut in_a_row = 0_u32;
    loop {
        let begun = Instant::now();
        if begun >= end {
            return;
        }
        let step = worker.step().await;
        let now = Instant::now();
        let failed = match step {
            Step::Done => {
                let micros = now.saturating_duration_since(begun).as_micros();
                let micros = u64::try_from(micros).unwrap_or(MOST_MICROS);
                lane.lock().latency.saturating_record(micros);
                gaps.lock().note(now, started);
                in_a_row = 0;
                continue;
            }
            Step::Failed(error) => {
                in_a_row = in_a_row.saturating_add(1);
                (error, in_a_row >= ERRORS_IN_A_ROW)
            }
            Step::Finished(error) => (error, true),
        };
        let (error, finished) = failed;
        lane.lock().note(&error);
        if finished {
            return;
        }
    }
}

impl Lane {
    fn note(&mut self, error: &ClientError) {
        let kind: ErrorKind = error.kind();
        let count = self.errors.entry(kind.as_str()).or_default();
        *count = count.saturating_add(1);
        self.samples.entry(kind.as_str()).or_insert_with(|| error.to_string());
    }
}

impl Gaps {
    fn note(&mut self, now: Instant, started: Instant) {
        if let Some(last) = self.last {
            let gap = now.saturating_duration_since(last);
            self.longest = self.longest.max(gap);
            if gap >= GAP_FLOOR {
                self.over_floor.push((last.saturating_duration_since(started), gap));
            }
        }
        self.last = self.last.max(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slow(u32);

    impl Worker for Slow {
        async fn step(&mut self) -> Step {
            self.0 += 1;
            if self.0 == 3 {
                return Step::Finished(ClientError::Answer("enough".to_owned()));
            }
            Step::Done
        }
    }

    #[tokio::test]
    async fn every_answer_and_every_failure_is_counted_once() {
        let workers = vec![Slow(0), Slow(0), Slow(0)];
        let measured = run(workers, 2, Duration::from_secs(5)).await.unwrap();
        assert_eq!(measured.latency.len(), 6);
        assert_eq!(measured.errors.get("integrity"), Some(&3));
    }

    #[test]
    fn the_longest_gap_counts_from_the_start() {
        let started = Instant::now();
        let mut gaps = Gaps { last: Some(started), ..Gaps::default() };
        gaps.note(started + Duration::from_millis(300), started);
        gaps.note(started + Duration::from_millis(310), started);
        assert_eq!(gaps.longest, Duration::from_millis(300));
        assert_eq!(gaps.over_floor, [(Duration::ZERO, Duration::from_millis(300))]);
    }
}
