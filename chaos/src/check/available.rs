//! Availability: with any one server faulty, escrow and disclosure through the others never stop for long.
//!
//! An outage begins when somebody asks, or at the last answer if somebody is asking already, and ends with the next
//! answer. Only calls count that may go to another server than the faulty one. A refusal is an answer.

use serde::Serialize;

use super::index::{History, Record};
use super::live::seconds;
use super::verdict::CheckResult;
use super::windows::{Window, windows};
use crate::history::{Call, Micros};

/// How long what another fault has broken may take to be well again; the bound for a kind that nobody knows any more.
const USUAL: Micros = 5_000_000;

/// The bound for a kind of fault, as the catalogue has it; none if several servers are faulty.
pub(crate) fn bound(kind: &str) -> Option<Micros> {
    let Some(kind) = crate::fault::find_kind(kind) else { return Some(USUAL) };
    kind.bound.map(|seconds| seconds.saturating_mul(1_000_000))
}

/// A time without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// "escrow" or "disclose".
    pub what: &'static str,
    /// When it began.
    pub from: Micros,
    /// When it ended.
    pub to: Micros,
    /// The fault that was in place.
    pub fault: u64,
    /// Its kind.
    pub kind: String,
}

impl Gap {
    pub(crate) const fn length(&self) -> Micros {
        self.to.saturating_sub(self.from)
    }
}

const CLASSES: [&str; 2] = ["escrow", "disclose"];

fn class(call: &Call) -> Option<&'static str> {
    match call {
        Call::Escrow { .. } => Some("escrow"),
        Call::Disclose { .. } => Some("disclose"),
        _ => None,
    }
}

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "with any one server faulty, escrow and disclosure through the others never stop for longer than the bound";
    let mut result = CheckResult::new("available", claim, "outages measured");
    let gaps = gaps(history);
    for gap in &gaps {
        result.count();
        let Some(most) = bound(&gap.kind) else { continue };
        if gap.length() > most {
            let what = format!(
                "{} stood still for {:.1} s from {:.1} s on while {} (fault {}) hit one server; at most {:.0} s are allowed",
                gap.what,
                seconds(gap.length()),
                seconds(gap.from),
                gap.kind,
                gap.fault,
                seconds(most)
            );
            result.violate([], what);
        }
    }
    for what in CLASSES {
        if let Some(gap) = gaps.iter().filter(|gap| gap.what == what).max_by_key(|gap| gap.length())
        {
            let length = seconds(gap.length());
            result.notes.push(format!("longest for {what}: {length:.2} s, during {}", gap.kind));
        }
    }
    let single =
        windows(history).iter().any(|window| window.installed() && window.nodes.len() == 1);
    if !single {
        result.not_applicable("no fault hit exactly one server");
    } else if result.checked == 0 {
        result.not_applicable("every fault of one server was overlaid by another fault");
    }
    result
}

/// The longest outage of each class under each fault of one server.
pub(crate) fn gaps(history: &History<'_>) -> Vec<Gap> {
    let windows = windows(history);
    let end = history.final_from().unwrap_or(history.last);
    let mut gaps = Vec::new();
    for window in windows.iter().filter(|window| window.installed()) {
        if bound(&window.kind).is_none() {
            continue;
        }
        let [faulty] = window.nodes[..] else { continue };
        for (from, to) in alone(history, window, &windows, end) {
            for what in CLASSES {
                let eligible = |call: &&Record<'_>| {
                    class(call.call) == Some(what) && call.node != Some(faulty)
                };
                let calls: Vec<_> = history.calls.iter().filter(eligible).collect();
                if let Some((from, to)) = longest(&calls, from, to) {
                    let kind = window.kind.clone();
                    gaps.push(Gap { what, from, to, fault: window.number, kind });
                }
            }
        }
    }
    gaps
}

/// The parts of a window in which no other server was faulty, and the harness did not stand still.
fn alone(
    history: &History<'_>,
    window: &Window,
    all: &[Window],
    end: Micros,
) -> Vec<(Micros, Micros)> {
    let mut parts = vec![(window.from, window.to.min(end))];
    let others = all.iter().filter(|w| w.number != window.number && w.matters());
    for other in others.filter(|other| other.nodes != window.nodes) {
        let cut = |(from, to): (Micros, Micros)| {
            let left = (from, to.min(other.from));
            // What another fault has broken may take until the cluster has healed from it.
            let right = (from.max(other.to.saturating_add(USUAL)), to);
            let whole = other.to.saturating_add(USUAL) <= from || to <= other.from;
            if whole { vec![(from, to)] } else { vec![left, right] }
        };
        parts = parts.into_iter().flat_map(cut).filter(|(from, to)| from < to).collect();
    }
    for stall in &history.stalls {
        let cut = |(from, to): (Micros, Micros)| [(from, to.min(stall.0)), (from.max(stall.1), to)];
        parts = parts.into_iter().flat_map(cut).filter(|(from, to)| from < to).collect();
    }
    parts
}

/// The longest time between `from` and `to` in which somebody was asking and nobody was answered.
fn longest(calls: &[&Record<'_>], from: Micros, to: Micros) -> Option<(Micros, Micros)> {
    let answer = |call: &&&Record<'_>| call.ok().is_some() || call.refused().is_some();
    let ends = calls.iter().filter(answer).filter_map(|call| Some(call.returned?.0));
    let mut ends: Vec<_> = ends.filter(|at| *at > from).collect();
    ends.sort_unstable();
    let mut asked: Vec<_> = calls.iter().map(|call| call.at).collect();
    asked.sort_unstable();
    // When a call that was open at some time had been sent: that one was asking already.
    let open_at = |at: Micros| {
        calls.iter().any(|call| call.at <= at && call.returned.is_none_or(|(end, _)| end > at))
    };
    let mut best: Option<(Micros, Micros)> = None;
    let mut last = from;
    for end in ends.into_iter().map(|end| end.min(to)).chain([to]) {
        let next = asked.get(asked.partition_point(|at| *at < last)).copied().unwrap_or(to);
        // Cheap tests first: most times between two answers are far shorter than the longest.
        let upper = end.saturating_sub(last);
        if best.is_none_or(|(from, to)| upper > to.saturating_sub(from)) {
            let start = if open_at(last) { last } else { next.min(end) };
            let longer = |(from, to): (Micros, Micros)| end - start > to.saturating_sub(from);
            if start < end && best.is_none_or(longer) {
                best = Some((start, end));
            }
        }
        last = last.max(end);
        if end >= to {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Made, disclose, disclosed, escrow, receipt, refused, unknown};
    use super::super::verdict::Status;
    use super::*;

    const SECOND: Micros = 1_000_000;

    /// Node 1 is faulty from 10 s to 40 s. Escrows are answered every second but from `from` to `to`, when they end unknown.
    fn run(kind: &str, from: u64, to: u64) -> Made {
        let mut made = Made::new();
        made.fault(1, kind, &[1], (10 * SECOND, 40 * SECOND));
        for second in 0..50 {
            let at = second * SECOND;
            let number = u128::from(second) + 1;
            let answer = if (from..to).contains(&second) {
                unknown()
            } else {
                receipt(number, 1, second + 1)
            };
            let node = [None, Some(2)][usize::from(second % 2 == 0)];
            made.call_of(node, (at, at + 900_000), escrow(number, 0), answer);
        }
        made
    }

    fn result(made: &Made) -> CheckResult {
        check(&History::new(&made.events))
    }

    #[test]
    fn a_short_outage_holds_and_is_measured() {
        let result = result(&run("kill-follower", 20, 23));
        assert_eq!(result.status, Status::Held, "{result:?}");
        assert!(result.notes[0].starts_with("longest for escrow: 3.9"), "{:?}", result.notes);
    }

    #[test]
    fn a_long_outage_is_caught_in_the_middle_at_the_beginning_and_at_the_end() {
        for (from, to) in [(20, 27), (9, 17), (32, 50)] {
            let result = result(&run("kill-follower", from, to));
            assert!(result.violations[0].what.contains("escrow stood still"), "{result:?}");
        }
    }

    #[test]
    fn a_harness_that_stood_still_is_no_judge() {
        let mut made = run("kill-follower", 20, 27);
        made.call(20 * SECOND, 27 * SECOND, escrow(1000, 0), unknown());
        assert_eq!(result(&made).status, Status::Held);
    }

    #[test]
    fn a_kind_has_the_bound_that_the_catalogue_says() {
        assert_eq!((bound("kill-leader"), bound("kill-all")), (Some(5_000_000), None));
        assert_eq!(result(&run("hung-disk", 20, 27)).status, Status::Held);
        assert_eq!(result(&run("hung-disk", 20, 33)).status, Status::Violated);
    }

    #[test]
    fn answers_through_the_faulty_server_do_not_help() {
        let mut made = run("kill-follower", 20, 27);
        for second in 20..27 {
            let (at, number) = (second * SECOND, u128::from(second) + 100);
            let answer = receipt(number, 1, second + 100);
            made.call_of(Some(1), (at, at + 1000), escrow(number, 0), answer);
        }
        assert_eq!(result(&made).status, Status::Violated);
    }

    #[test]
    fn a_call_that_hangs_counts_from_the_last_answer_to_another() {
        let mut made = Made::new();
        made.fault(1, "kill-follower", &[1], (10 * SECOND, 40 * SECOND));
        made.call(11 * SECOND, 17 * SECOND, escrow(1, 0), receipt(1, 1, 1));
        made.call(11 * SECOND, 11_500_000, escrow(2, 0), receipt(2, 1, 2));
        let result = result(&made);
        assert!(result.violations[0].what.contains("5.5 s from 11.5 s on"), "{result:?}");
    }

    #[test]
    fn where_nobody_asks_nothing_stands_still() {
        let mut made = Made::new();
        made.fault(1, "kill-follower", &[1], (10 * SECOND, 40 * SECOND));
        for at in [5, 12, 38] {
            let (from, to) = (at * SECOND, (at + 1) * SECOND);
            made.call(from, to, disclose(1, 1), disclosed(1, 1, at));
        }
        made.call(20 * SECOND, 21 * SECOND, disclose(1, 1), refused("QUOTA_EXCEEDED"));
        let result = result(&made);
        assert_eq!(result.status, Status::Held, "{result:?}");
    }

    #[test]
    fn a_second_fault_elsewhere_is_no_fault_of_one_server() {
        let mut made = run("kill-follower", 20, 27);
        made.fault(2, "kill-follower", &[2], (19 * SECOND, 26 * SECOND));
        assert_eq!(result(&made).status, Status::Held);
        let mut made = Made::new();
        made.fault(1, "kill-follower", &[1, 2], (10 * SECOND, 40 * SECOND));
        assert!(matches!(result(&made).status, Status::NotApplicable { .. }));
    }
}
