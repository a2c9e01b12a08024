//! Whether a run proves anything: enough load before the first fault, every chosen fault seen to take effect, a whole history.

use super::index::History;
use super::live::seconds;
use super::verdict::CheckResult;
use super::windows::windows;
use crate::history::Micros;

/// Acknowledged operations a second before the first fault: under less load races stay hidden.
pub(crate) const OPERATIONS_A_SECOND: f64 = 100.0;
/// The load is measured over at least this.
const SHORTEST: Micros = 1_000_000;

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "the run had enough load, every chosen fault took effect, and its history is whole";
    let mut result = CheckResult::new("valid", claim, "conditions");
    for problem in &history.problems {
        result.violate([], format!("the history is damaged: {problem}"));
    }
    result
        .hold(history.begin.is_some(), &[], || "the history does not say what was run".to_owned());
    result.hold(history.end.is_some(), &[], || {
        "the run was cut off: there is no last line".to_owned()
    });
    let windows = windows(history);
    let chosen = history.begin.map(|begin| begin.faults.as_slice()).unwrap_or_default();
    for kind in chosen {
        let seen = windows.iter().any(|window| window.kind == *kind && window.installed());
        result.hold(seen, &[], || format!("the chosen fault {kind} never took effect"));
    }
    load(history, windows.first().map(|window| window.from), &mut result);
    result
}

fn load(history: &History<'_>, first_fault: Option<Micros>, result: &mut CheckResult) {
    let end = first_fault.or_else(|| history.final_from()).unwrap_or(history.last);
    let mut answers = history.calls.iter().filter_map(|call| Some(call.ok()?.0));
    let before = answers.clone().filter(|at| *at < end).count();
    let from = answers.by_ref().min().unwrap_or(end).min(end);
    let time = end.saturating_sub(from);
    if time < SHORTEST {
        result.hold(false, &[], || {
            "there was less than a second of load before the first fault".to_owned()
        });
        return;
    }
    let rate = f64::from(u32::try_from(before).unwrap_or(u32::MAX)) / seconds(time);
    result.notes.push(format!("{rate:.0} acknowledged operations a second before the first fault"));
    result.hold(rate >= OPERATIONS_A_SECOND, &[], || {
        format!("{rate:.0} acknowledged operations a second before the first fault, {OPERATIONS_A_SECOND:.0} are the least")
    });
}
