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
