//! At most one server leads in a term.

use std::collections::BTreeMap;

use super::index::History;
use super::verdict::CheckResult;

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim =
        "no two servers lead in the same term, and who led in a term never falls back behind it";
    let mut result = CheckResult::new("leader", claim, "samples of servers");
    let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
    let mut led: BTreeMap<u64, u64> = BTreeMap::new();
    let mut samples: Vec<_> = history.samples.iter().collect();
    samples.sort_by_key(|sample| sample.at);
    for sample in samples {
        let Some(status) = &sample.status else { continue };
        let (node, term) = (sample.node, status.term);
        result.count();
        if let Some(before) = led.get(&node).filter(|before| **before > term) {
            // To lead it had its vote on disk, so a lower term means that a vote was lost.
            result.violate(
                [],
                format!("node {node} led in term {before} and is in term {term} later"),
            );
        }
        if !status.leads {
            continue;
        }
        led.insert(node, term);
        let other = *leaders.entry(term).or_insert(node);
        if other != node {
            result.violate([], format!("node {other} and node {node} both lead in term {term}"));
        }
    }
    let terms = leaders.len();
    result.notes.push(format!("{terms} terms with a leader were seen"));
    if terms == 0 {
        result.not_checked("no sample shows a leader".to_owned());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::testing::Made;
    use super::super::verdict::Status;
    use super::*;

    fn with(node: u64, term: u64, leads: bool) -> CheckResult {
        let mut made = Made::new();
        made.sample(1, 1, (3, true), (1, ""));
        made.sample(2, 2, (3, false), (1, ""));
        made.sample(3, 2, (4, true), (1, ""));
        // The old leader has not heard of it yet.
        made.sample(4, 1, (3, true), (1, ""));
        made.sample(5, node, (term, leads), (1, ""));
        check(&History::new(&made.events))
    }

    #[test]
    fn one_leader_after_another_holds_also_while_the_old_one_does_not_know() {
        assert_eq!(with(3, 4, false).status, Status::Held);
    }

    #[test]
    fn two_leaders_in_a_term_are_caught() {
        assert!(with(3, 4, true).violations[0].what.contains("both lead in term 4"));
    }

    #[test]
    fn a_leader_that_forgets_its_term_is_caught() {
        assert!(with(2, 3, false).violations[0].what.contains("led in term 4"));
    }

    #[test]
    fn a_run_in_which_nobody_was_seen_to_lead_is_not_green() {
        let mut made = Made::new();
        made.sample(1, 1, (3, false), (1, ""));
        let result = check(&History::new(&made.events));
        assert!(matches!(result.status, Status::NotChecked { .. }));
    }
}
