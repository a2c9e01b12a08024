//! No server's memory or descriptors grow without bound.
//!
//! A life of a server, from its start to its end, is cut into thirds. Growth counts if the median of the last third lies
//! far above that of the first, and the last third still grows: caches that fill up and then stay are no leak.

use std::collections::BTreeMap;

use super::index::History;
use super::verdict::CheckResult;
use crate::history::{Micros, Sample};

/// Shorter lives say nothing.
const SAMPLES: usize = 60;
const SHORTEST: Micros = 45_000_000;
/// Memory may double, and grow by this.
const BYTES: u64 = 128 * 1024 * 1024;
/// Descriptors may double, and grow by this.
const DESCRIPTORS: u64 = 256;

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "memory and descriptors of the servers do not grow without bound";
    let mut result = CheckResult::new("leak", claim, "lives of servers");
    for life in lives(history) {
        let (Some(first), Some(last)) = (life.first(), life.last()) else { continue };
        if life.len() < SAMPLES || last.at.saturating_sub(first.at) < SHORTEST {
            continue;
        }
        result.count();
        let node = first.node;
        let rss: Vec<_> = life.iter().filter_map(|sample| sample.rss).collect();
        let open: Vec<_> = life.iter().filter_map(|sample| sample.descriptors).collect();
        for (values, room, what) in
            [(rss, BYTES, "bytes of memory"), (open, DESCRIPTORS, "descriptors")]
        {
            let Some([early, middle, late]) = thirds(&values) else { continue };
            let limit = early.saturating_mul(2).saturating_add(room);
            let grows_still = late.saturating_sub(middle) > room / 4;
            if late > limit && grows_still {
                let what = format!("node {node} went from {early} to {middle} to {late} {what}");
                result.violate([], what);
            }
        }
    }
    if result.checked == 0 {
        result.not_applicable("no server lived for a minute at a stretch");
    }
    result
}

/// The samples of each server from each start to its end.
fn lives<'a>(history: &History<'a>) -> Vec<Vec<&'a Sample>> {
    let mut open: BTreeMap<u64, Vec<&'a Sample>> = BTreeMap::new();
    let mut lives = Vec::new();
    for sample in &history.samples {
        let life = open.entry(sample.node).or_default();
        let before = life.last().and_then(|last| last.rss).unwrap_or(0);
        // A start between two samples shows as a fall.
        let restarted = sample.rss.is_none_or(|rss| rss < before / 2);
        if restarted && !life.is_empty() {
            lives.push(std::mem::take(life));
        }
        if sample.rss.is_some() {
            life.push(sample);
        }
    }
    lives.extend(open.into_values());
    lives
}

fn thirds(values: &[u64]) -> Option<[u64; 3]> {
    let third = values.len() / 3;
    let mut medians = values.chunks(third.max(1)).map(median);
    Some([medians.next()??, medians.next()??, medians.next()??])
}

fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Made;
    use super::super::verdict::Status;
    use super::*;
    use crate::history::Event;

    const MIB: u64 = 1024 * 1024;

    /// Ninety samples of one server.
    fn life(rss: impl Fn(u64) -> Option<u64>, descriptors: impl Fn(u64) -> u64) -> CheckResult {
        let mut made = Made::new();
        for at in 0..90 {
            let (rss, descriptors) = (rss(at), Some(descriptors(at)));
            let at = at * 1_000_000;
            made.events.push(Event::Sample(Sample { at, node: 1, status: None, rss, descriptors }));
        }
        check(&History::new(&made.events))
    }

    #[test]
    fn a_cache_that_fills_up_and_stays_holds() {
        let full = |at: u64| at.clamp(30, 40) - 30;
        let result = life(|at| Some(40 * MIB + full(at) * 60 * MIB), |at| 30 + at % 7);
        assert_eq!((result.status, result.checked), (Status::Held, 1));
    }

    #[test]
    fn memory_that_grows_and_grows_is_caught() {
        let result = life(|at| Some(40 * MIB + at * 5 * MIB), |_| 30);
        assert!(result.violations[0].what.contains("bytes of memory"), "{result:?}");
    }

    #[test]
    fn descriptors_that_are_never_closed_are_caught() {
        let result = life(|_| Some(40 * MIB), |at| 30 + at * 10);
        assert!(result.violations[0].what.contains("descriptors"), "{result:?}");
    }

    #[test]
    fn a_life_ends_with_the_process_and_a_short_one_says_nothing() {
        let dies = |at| (at % 45 != 44).then_some(40 * MIB + (at % 45) * 10 * MIB);
        let result = life(dies, |_| 30);
        assert!(matches!(result.status, Status::NotApplicable { .. }), "{result:?}");
    }
}
