//! Damage answered as documented: a server whose files were damaged does what docs/operations.md says, and says so.

use super::index::History;
use super::verdict::CheckResult;
use super::windows::windows;

/// The checker of a finding that is judged here.
pub(crate) const DAMAGE: &str = "damage";
/// The group of faults that leave such a finding each.
const GROUP: &str = "damage";

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "a server answers damage to its files as documented: it refuses, or makes them again, and says so";
    let mut result = CheckResult::new("damage", claim, "damaged servers");
    for finding in history.findings.iter().filter(|finding| finding.checker == DAMAGE) {
        result.count();
        if finding.bad {
            result.violate([], finding.what.clone());
        } else {
            result.notes.push(finding.what.clone());
        }
    }
    let damaged = windows(history).into_iter().filter(|window| {
        let kind = crate::fault::find_kind(&window.kind);
        window.installed() && kind.is_some_and(|kind| kind.group == GROUP)
    });
    let damaged = damaged.count() as u64;
    if damaged > result.checked {
        let unseen = damaged - result.checked;
        result.not_checked(format!("nobody looked at what came of {unseen} damaged servers"));
    }
    if result.checked == 0 {
        result.not_applicable("no file was damaged");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::testing::Made;
    use super::super::verdict::{Judgement, Status};
    use super::*;
    use crate::check::check_events;
    use crate::history::{Event, Finding};

    fn with(bad: Option<bool>) -> Made {
        let mut made = Made::new();
        made.fault(1, "rot-wal", &[1], (10, 20));
        if let Some(bad) = bad {
            let (checker, what) = (DAMAGE.to_owned(), "it started".to_owned());
            made.events.push(Event::Finding(Finding { at: 15, checker, bad, what }));
        }
        made
    }

    #[test]
    fn a_server_that_does_what_is_documented_holds() {
        let made = with(Some(false));
        let result = check(&History::new(&made.events));
        assert_eq!((result.status, result.checked), (Status::Held, 1));
    }

    #[test]
    fn a_server_that_starts_on_a_damaged_log_makes_the_run_red() {
        let verdict = check_events(&with(Some(true)).events);
        assert_eq!(verdict.judgement, Judgement::Red);
        assert!(verdict.violated().contains(&"damage"), "{:?}", verdict.violated());
    }

    #[test]
    fn damage_that_nobody_looked_at_is_not_green() {
        let made = with(None);
        let result = check(&History::new(&made.events));
        assert!(matches!(result.status, Status::NotChecked { .. }), "{result:?}");
    }
}
