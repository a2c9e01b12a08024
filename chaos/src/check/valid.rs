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
    for (from, to) in &history.stalls {
        let what = format!(
            "the harness itself stood still between {:.1} s and {:.1} s: the machine is too busy for it",
            seconds(*from),
            seconds(*to)
        );
        result.violate([], what);
    }
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

#[cfg(test)]
mod tests {
    use super::super::testing::{DEVICE, Made, id, ok, violated_first};
    use super::super::verdict::{Judgement, Status};
    use super::*;
    use crate::check::check_events;
    use crate::history::{Call, Effect, Event, Reply};

    const SECOND: Micros = 1_000_000;

    /// Two seconds with so many calls a second, then a fault; "pause" was chosen.
    fn run(rate: u64, kind: &str) -> Made {
        let mut made = Made::new();
        if let Some(Event::Begin(begin)) = made.events.first_mut() {
            begin.faults = vec!["pause".to_owned()];
        }
        for number in 0..2 * rate {
            let at = number * SECOND / rate;
            let call = Call::Report { request: id(number.into()), device: DEVICE };
            made.call(at, at + 1, call, ok(Reply::Report));
        }
        made.fault(1, kind, &[1], (2 * SECOND, 3 * SECOND));
        made.events.push(Event::End { at: 4 * SECOND });
        made
    }

    #[track_caller]
    fn caught(made: &Made, words: &str) {
        violated_first(&check(&History::new(&made.events)), words);
    }

    #[test]
    fn enough_load_and_every_fault_seen_is_valid() {
        let made = run(101, "pause");
        let result = check(&History::new(&made.events));
        assert_eq!(result.status, Status::Held, "{result:?}");
    }

    #[test]
    fn too_little_load_is_caught() {
        caught(&run(98, "pause"), "98 acknowledged operations a second");
    }

    #[test]
    fn a_chosen_fault_that_never_took_effect_is_caught() {
        caught(&run(101, "kill"), "pause never took effect");
        let mut made = run(101, "pause");
        for event in &mut made.events {
            if let Event::Fault(fault) = event {
                fault.effect = Effect::Indeterminate { why: String::new() };
            }
        }
        caught(&made, "pause never took effect");
    }

    #[test]
    fn a_run_that_was_cut_off_or_whose_history_is_damaged_is_caught() {
        let mut made = run(101, "pause");
        made.events.pop();
        caught(&made, "cut off");
        let mut made = run(101, "pause");
        let first = made.events[2].clone();
        made.events.push(first);
        caught(&made, "ends twice");
        let mut made = run(101, "pause");
        made.events.remove(0);
        caught(&made, "does not say");
    }

    #[test]
    fn a_harness_that_stood_still_is_caught() {
        let mut made = run(101, "pause");
        let call = Call::Report { request: id(1), device: DEVICE };
        made.call(SECOND, 8 * SECOND, call, ok(Reply::Report));
        caught(&made, "stood still between 1.0 s and 8.0 s");
    }

    #[test]
    fn a_run_that_is_not_valid_is_not_green_and_not_red() {
        let verdict = check_events(&run(50, "pause").events);
        assert_eq!(verdict.judgement, Judgement::Invalid);
        assert!(verdict.reasons.iter().any(|reason| reason.starts_with("valid: 50")));
    }
}
