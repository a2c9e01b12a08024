//! Numbers of a run for its report: the timeline, latency, gaps, faults.

use std::collections::BTreeMap;

use serde::Serialize;

use super::available::{Gap, bound, gaps};
use super::index::{History, Record};
use super::windows::{Window, windows};
use crate::history::{Call, Micros, Outcome};

/// Kinds of operations, as the timeline shows them.
pub const KINDS: [&str; 6] = ["escrow", "find", "disclose", "report", "read", "audit"];

/// The kind of a call.
pub(crate) const fn kind(call: &Call) -> usize {
    match call {
        Call::Escrow { .. } => 0,
        Call::Find { .. } => 1,
        Call::Disclose { .. } => 2,
        Call::Report { .. } => 3,
        Call::ReadDevice { .. } | Call::ReadDeviceStale { .. } => 4,
        Call::AuditHead | Call::AuditList => 5,
    }
}

/// One second of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Acknowledged operations of each of [`KINDS`].
    pub ok: [u32; 6],
    /// Refused operations.
    pub refused: u32,
    /// Operations of unknown outcome.
    pub unknown: u32,
}

/// Latency of acknowledged operations in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// "before", "during" or "after" the faults.
    pub part: &'static str,
    /// "escrow", or "all".
    pub what: &'static str,
    /// How many.
    pub count: u64,
    /// Half are faster.
    pub p50: Micros,
    /// One of a hundred is slower.
    pub p99: Micros,
    /// The slowest.
    pub max: Micros,
}

/// How a number of times is spread, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Half are shorter.
    pub p50: Micros,
    /// One of a hundred is longer.
    pub p99: Micros,
    /// The longest.
    pub max: Micros,
}

impl Spread {
    fn of(mut times: Vec<Micros>) -> Self {
        times.sort_unstable();
        let at = |per_mille: usize| {
            let last = times.len().saturating_sub(1);
            times.get(last.saturating_mul(per_mille) / 1000).copied().unwrap_or(0)
        };
        Self { count: times.len() as u64, p50: at(500), p99: at(990), max: at(1000) }
    }
}

/// How often a kind of fault was tried, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FaultCount {
    /// Seen to take effect.
    pub installed: u64,
    /// Not tried.
    pub skipped: u64,
    /// Nobody knows.
    pub indeterminate: u64,
    /// Microseconds for which escrow and disclosure may stand still meanwhile; none if several servers are faulty.
    pub bound: Option<Micros>,
    /// The longest outage of escrow through the others, where one server alone was faulty.
    pub escrow: Option<Micros>,
    /// The same for disclosure.
    pub disclose: Option<Micros>,
    /// For each fault, the longest time without an acknowledged escrow while it was in place, whoever asked whom.
    pub write_gaps: Spread,
}

/// Numbers of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// How long it took, in microseconds.
    pub length: Micros,
    /// Operations by outcome: ok, refused, unknown.
    pub outcomes: [u64; 3],
    /// Refusals by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Each second of the run.
    pub seconds: Vec<Second>,
    /// Phases and when they began.
    pub phases: Vec<(Micros, String)>,
    /// Faults.
    pub faults: Vec<Window>,
    /// Faults by kind.
    pub counts: BTreeMap<String, FaultCount>,
    /// The longest outages under a fault of one server, the longest first.
    pub gaps: Vec<Gap>,
    /// The longest times in which no escrow was acknowledged, faults or not, the longest first.
    pub pauses: Vec<(Micros, Micros)>,
    /// Latency before, during and after the faults.
    pub latency: Vec<Latency>,
}

/// Gaps and pauses that are kept.
const KEPT: usize = 20;

pub(crate) fn figures(history: &History<'_>) -> Figures {
    let faults = windows(history);
    let mut figures = Figures {
        length: history.last,
        phases: history.phases.iter().map(|(at, name)| (*at, (*name).to_owned())).collect(),
        pauses: pauses(history),
        latency: latency(history, &faults),
        ..Figures::default()
    };
    let seconds = usize::try_from(history.last / 1_000_000).unwrap_or(0).saturating_add(1);
    // A history with a wild time in it must not fill the memory.
    figures.seconds = vec![Second::default(); seconds.min(200_000)];
    for call in &history.calls {
        count(call, &mut figures);
    }
    let acks = acknowledged(history);
    let mut write_gaps: BTreeMap<String, Vec<Micros>> = BTreeMap::new();
    for fault in &faults {
        let count = figures.counts.entry(fault.kind.clone()).or_default();
        count.bound = bound(&fault.kind);
        match fault.effect {
            "installed" => count.installed = count.installed.saturating_add(1),
            "skipped" => count.skipped = count.skipped.saturating_add(1),
            _ => count.indeterminate = count.indeterminate.saturating_add(1),
        }
        if fault.installed() {
            let gap = write_gap(&acks, fault);
            write_gaps.entry(fault.kind.clone()).or_default().push(gap);
        }
    }
    figures.gaps = gaps(history);
    for (kind, count) in &mut figures.counts {
        let longest = |what| {
            let gaps = figures.gaps.iter().filter(|gap| gap.kind == *kind && gap.what == what);
            gaps.map(Gap::length).max()
        };
        (count.escrow, count.disclose) = (longest("escrow"), longest("disclose"));
        count.write_gaps = Spread::of(write_gaps.remove(kind).unwrap_or_default());
    }
    figures.gaps.sort_by_key(|gap| std::cmp::Reverse(gap.length()));
    figures.gaps.truncate(KEPT);
    figures.faults = faults;
    figures
}

fn count(call: &Record<'_>, figures: &mut Figures) {
    let at = call.returned.map_or(call.at, |(at, _)| at) / 1_000_000;
    let second = usize::try_from(at).ok().and_then(|at| figures.seconds.get_mut(at));
    let add = |number: Option<&mut u32>| {
        if let Some(number) = number {
            *number = number.saturating_add(1);
        }
    };
    let outcome = match call.returned {
        Some((_, Outcome::Ok { .. })) => {
            add(second.and_then(|second| second.ok.get_mut(kind(call.call))));
            0
        }
        Some((_, Outcome::Refused { reason, .. })) => {
            add(second.map(|second| &mut second.refused));
            let count = figures.refusals.entry(reason.clone()).or_default();
            *count = count.saturating_add(1);
            1
        }
        Some((_, Outcome::Unknown { .. })) | None => {
            add(second.map(|second| &mut second.unknown));
            2
        }
    };
    if let Some(count) = figures.outcomes.get_mut(outcome) {
        *count = count.saturating_add(1);
    }
}

fn latency(history: &History<'_>, faults: &[Window]) -> Vec<Latency> {
    let first = faults.iter().map(|fault| fault.from).min().unwrap_or(history.last);
    let last = faults.iter().map(|fault| fault.to).max().unwrap_or(history.last);
    let end = history.final_from().unwrap_or(history.last);
    let parts = [("before", 0, first), ("during", first, last), ("after", last, end)];
    let mut latencies = Vec::new();
    for (part, from, to) in parts {
        for what in ["escrow", "all"] {
            let calls = history.calls.iter().filter(|call| call.at >= from && call.at < to);
            let calls = calls.filter(|call| what == "all" || kind(call.call) == 0);
            let times = calls.filter_map(|call| Some(call.ok()?.0.saturating_sub(call.at)));
            let Spread { count, p50, p99, max } = Spread::of(times.collect());
            latencies.push(Latency { part, what, count, p50, p99, max });
        }
    }
    latencies
}

/// When escrows were acknowledged, before the last phase.
fn acknowledged(history: &History<'_>) -> Vec<Micros> {
    let end = history.final_from().unwrap_or(history.last);
    let escrows = history.calls.iter().filter(|call| kind(call.call) == 0);
    let mut acks: Vec<_> = escrows.filter_map(|call| Some(call.ok()?.0)).collect();
    acks.retain(|at| *at <= end);
    acks.sort_unstable();
    acks
}

/// The longest time between two of `acks` that a fault lay in, in whole or in part.
fn write_gap(acks: &[Micros], fault: &Window) -> Micros {
    let before = acks.partition_point(|at| *at <= fault.from).saturating_sub(1);
    let after = acks.partition_point(|at| *at < fault.to).saturating_add(1);
    let during = acks.get(before..after.min(acks.len())).unwrap_or_default();
    let pairs = during.iter().zip(during.iter().skip(1));
    pairs.map(|(from, to)| to.saturating_sub(*from)).max().unwrap_or(0)
}

fn pauses(history: &History<'_>) -> Vec<(Micros, Micros)> {
    let acks = acknowledged(history);
    let mut pauses: Vec<_> =
        acks.iter().zip(acks.iter().skip(1)).map(|(from, to)| (*from, *to)).collect();
    pauses.sort_by_key(|(from, to)| std::cmp::Reverse(to.saturating_sub(*from)));
    pauses.truncate(KEPT);
    pauses
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Made, escrow, receipt, unknown};
    use super::*;

    /// Escrows that are acknowledged at these times, in milliseconds.
    fn acknowledged_at(made: &mut Made, times: &[u64]) {
        for (number, at) in (1..).zip(times) {
            let at = at * 1000;
            made.call(at - 500, at, escrow(number.into(), 0), receipt(number.into(), 1, number));
        }
    }

    #[test]
    fn of_each_kind_the_report_has_the_spread_of_the_times_without_an_acknowledged_write() {
        let mut made = Made::new();
        acknowledged_at(&mut made, &[1000, 2000, 2300, 5000, 5100, 9000, 9700, 12_000]);
        made.call(2_400_000, 3_000_000, escrow(99, 0), unknown());
        made.fault(1, "kill-leader", &[1], (2_200_000, 5_050_000));
        made.fault(2, "kill-leader", &[2], (9_100_000, 9_200_000));
        made.fault(3, "kill-all", &[1, 2, 3], (5_500_000, 8_000_000));
        let figures = figures(&History::new(&made.events));
        let gaps = |kind: &str| figures.counts[kind].write_gaps;
        let spread = |count, p50, p99, max| Spread { count, p50, p99, max };
        assert_eq!(gaps("kill-leader"), spread(2, 700_000, 700_000, 2_700_000));
        assert_eq!(gaps("kill-all"), spread(1, 3_900_000, 3_900_000, 3_900_000));
        assert!(figures.counts["kill-leader"].escrow.is_some());
        assert_eq!(figures.counts["kill-all"].escrow, None);
    }

    #[test]
    fn the_longest_outage_of_a_kind_is_told_however_many_others_were_longer() {
        let mut made = Made::new();
        let times: Vec<u64> = (1..=40).flat_map(|n| [n * 10_000, n * 10_000 + 100]).collect();
        acknowledged_at(&mut made, &times);
        for number in 1..=30 {
            let from = number * 10_000_000;
            made.fault(number, "kill-leader", &[1], (from, from + 5_000_000));
        }
        made.fault(31, "transfer", &[1], (310_050_000, 310_200_000));
        let figures = figures(&History::new(&made.events));
        assert_eq!(figures.gaps.len(), KEPT);
        assert!(figures.gaps.iter().all(|gap| gap.kind != "transfer"));
        assert!(figures.counts["transfer"].escrow.is_some());
    }
}
