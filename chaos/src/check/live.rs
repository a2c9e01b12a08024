//! Liveness: writes are acknowledged soon after each heal, and every server catches up after the last.

use super::index::History;
use super::verdict::CheckResult;
use super::windows::windows;
use crate::history::{Call, Micros, Reply};

/// A write is acknowledged this long after a heal.
pub(crate) const WRITE_AFTER_HEAL: Micros = 10_000_000;
/// All servers are level this long after the last heal.
pub(crate) const LEVEL_AFTER_HEAL: Micros = 60_000_000;

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "a write is acknowledged within 10 s of each heal, and every server is level within 60 s of the last";
    let mut result = CheckResult::new("live", claim, "heals and servers");
    let windows = windows(history);
    let heals: Vec<_> = windows.iter().filter(|w| w.healed && w.installed()).collect();
    let Some(last) = heals.iter().map(|window| window.to).max() else {
        result.not_applicable("no fault was healed");
        return result;
    };
    let acks = acks(history);
    let mut not_judged = 0_u64;
    for heal in &heals {
        let until = heal.to.saturating_add(WRITE_AFTER_HEAL);
        let next = acks.get(acks.partition_point(|at| *at < heal.to));
        if next.is_some_and(|at| *at <= until) {
            result.count();
            continue;
        }
        let others = windows.iter().filter(|w| w.number != heal.number && w.matters());
        let disturbed = others.clone().any(|window| window.overlaps(heal.to, until));
        let asked = history.calls.iter().any(|call| {
            matches!(call.call, Call::Escrow { .. }) && call.at >= heal.to && call.at < until
        });
        let stood_still = history.stalls.iter().any(|(from, to)| *from < until && heal.to < *to);
        if disturbed || stood_still || !asked || history.last < until {
            not_judged = not_judged.saturating_add(1);
            continue;
        }
        result.count();
        let what = format!(
            "no write was acknowledged within 10 s of the heal of {} (fault {}) at {:.1} s",
            heal.kind,
            heal.number,
            seconds(heal.to)
        );
        result.violate([], what);
    }
    if not_judged > 0 {
        let note = format!(
            "{not_judged} heals were followed by another fault, by no write, or by a harness that stood still"
        );
        result.notes.push(note);
    }
    level(history, last, &mut result);
    result
}

fn level(history: &History<'_>, healed: Micros, result: &mut CheckResult) {
    let told = history.samples.iter().filter(|sample| sample.at <= healed);
    let target = told.filter_map(|sample| Some(sample.status.as_ref()?.applied)).max();
    let until = healed.saturating_add(LEVEL_AFTER_HEAL);
    let after: Vec<_> = history.samples.iter().filter(|s| s.at > healed && s.at <= until).collect();
    let mut nodes = history.final_nodes();
    if nodes.is_empty() {
        nodes = history.begin.map(|begin| begin.nodes.clone()).unwrap_or_default();
    }
    let target = target.unwrap_or(0);
    for node in nodes {
        result.count();
        let mut of_node = after.iter().filter(|sample| sample.node == node);
        let best = of_node.clone().filter_map(|s| Some(s.status.as_ref()?.applied)).max();
        if best.is_some_and(|applied| applied >= target) {
            continue;
        }
        if of_node.next().is_none() {
            result.not_checked(format!("node {node} was not looked at after the last heal"));
            continue;
        }
        let what = format!(
            "node {node} was not level within 60 s of the last heal: at index {} of {target}",
            best.map_or_else(|| "nothing".to_owned(), |applied| applied.to_string())
        );
        result.violate([], what);
    }
}

/// When writes were acknowledged, in order.
fn acks(history: &History<'_>) -> Vec<Micros> {
    let acks = history.calls.iter().filter_map(|call| match call.ok() {
        Some((at, Reply::Escrow { .. })) => Some(at),
        Some(_) | None => None,
    });
    let mut acks: Vec<_> = acks.collect();
    acks.sort_unstable();
    acks
}

pub(crate) fn seconds(at: Micros) -> f64 {
    // A run is far shorter than 2^52 microseconds.
    std::time::Duration::from_micros(at).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Made, escrow, receipt, unknown};
    use super::super::verdict::Status;
    use super::*;

    const SECOND: Micros = 1_000_000;

    /// A fault from 10 s to 20 s; a write is sent after that and ends when and as told; a server is at an index at 50 s.
    fn run(answered: Option<Micros>, index: u64) -> Made {
        let mut made = Made::new();
        made.call(SECOND, 2 * SECOND, escrow(1, 0), receipt(1, 1, 1));
        made.fault(1, "kill", &[1], (10 * SECOND, 20 * SECOND));
        made.sample(15 * SECOND, 2, (1, true), (7, ""));
        match answered {
            Some(at) => made.call(at - SECOND, at, escrow(2, 1), receipt(2, 2, 2)),
            None => made.call(21 * SECOND, 25 * SECOND, escrow(2, 1), unknown()),
        };
        for node in [1, 2, 3] {
            let index = if node == 3 { index } else { 9 };
            made.sample(50 * SECOND, node, (1, true), (index, ""));
        }
        made
    }

    fn result(made: &Made) -> CheckResult {
        check(&History::new(&made.events))
    }

    #[test]
    fn a_write_soon_after_the_heal_and_level_servers_hold() {
        assert_eq!(result(&run(Some(29 * SECOND), 7)).status, Status::Held);
    }

    #[test]
    fn no_write_within_ten_seconds_is_caught() {
        for answered in [None, Some(30_500_000)] {
            let result = result(&run(answered, 7));
            assert!(result.violations[0].what.contains("within 10 s of the heal"), "{result:?}");
        }
    }

    #[test]
    fn another_fault_right_after_the_heal_excuses() {
        let mut made = run(None, 7);
        made.fault(2, "pause", &[2], (24 * SECOND, 26 * SECOND));
        let result = result(&made);
        let late = "within 10 s of the heal of kill";
        assert!(!result.violations.iter().any(|v| v.what.contains(late)), "{result:?}");
        assert!(result.notes[0].contains("2 heals"), "{result:?}");
    }

    #[test]
    fn a_harness_that_stood_still_is_no_judge() {
        let mut made = run(None, 7);
        made.call(21 * SECOND, 30 * SECOND, escrow(3, 1), unknown());
        assert_eq!(result(&made).status, Status::Held);
    }

    #[test]
    fn a_server_that_does_not_catch_up_is_caught() {
        let result = result(&run(Some(22 * SECOND), 6));
        assert!(result.violations[0].what.contains("node 3 was not level"), "{result:?}");
    }
}
