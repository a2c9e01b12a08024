//! What was found outside of the calls: a panic in a log, a planted key on a disk, a receipt that doesn't verify.

use super::damage::DAMAGE;
use super::index::History;
use super::verdict::CheckResult;

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "no planted key on any disk or in any log, no panic, nothing that doesn't verify";
    let mut result = CheckResult::new("findings", claim, "things looked at");
    // What came of damage has a checker of its own.
    for finding in history.findings.iter().filter(|finding| finding.checker != DAMAGE) {
        result.count();
        let what = format!("{}: {}", finding.checker, finding.what);
        if finding.bad {
            result.violate([], what);
        } else {
            result.notes.push(what);
        }
    }
    if result.checked == 0 {
        result.not_applicable("the run looked at nothing outside of its calls");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::testing::Made;
    use super::super::verdict::Status;
    use super::*;
    use crate::history::{Event, Finding};

    fn with(findings: &[(&str, bool)]) -> CheckResult {
        let mut made = Made::new();
        for (checker, bad) in findings {
            let (checker, what) = ((*checker).to_owned(), "in node 1's log".to_owned());
            made.events.push(Event::Finding(Finding { at: 1, checker, bad: *bad, what }));
        }
        check(&History::new(&made.events))
    }

    #[test]
    fn scans_that_found_nothing_hold_and_are_noted() {
        let result = with(&[("plaintext", false), ("panic", false)]);
        assert_eq!((result.status, result.checked), (Status::Held, 2));
        assert_eq!(result.notes.len(), 2);
    }

    #[test]
    fn a_planted_key_and_a_panic_are_caught() {
        for checker in ["plaintext", "panic"] {
            let result = with(&[("leak", false), (checker, true)]);
            assert_eq!(result.status, Status::Violated);
            assert!(result.violations[0].what.starts_with(checker));
        }
    }
}
