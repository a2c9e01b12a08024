//! Every server has the same state at the same log index.

use std::collections::BTreeMap;

use super::index::History;
use super::verdict::CheckResult;

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "the digests of the servers' states are equal at equal log index";
    let mut result = CheckResult::new("digest", claim, "digests of different servers compared");
    let mut known: BTreeMap<u64, (&str, u64)> = BTreeMap::new();
    for sample in &history.samples {
        let Some(status) = &sample.status else { continue };
        let node = sample.node;
        if !status.divergence.is_empty() {
            result.violate([], format!("node {node} raised the alarm: {}", status.divergence));
        }
        if status.digest.is_empty() {
            continue;
        }
        let index = status.applied;
        let (digest, by) = *known.entry(index).or_insert((&status.digest, node));
        if by != node {
            result.count();
        }
        if digest != status.digest {
            let what = format!(
                "the states of node {by} and node {node} at log index {index} differ: {digest} and {}",
                status.digest
            );
            result.violate([], what);
        }
    }
    if result.checked == 0 {
        result.not_checked("no two servers were seen at the same log index".to_owned());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::testing::Made;
    use super::super::verdict::Status;
    use super::*;
    use crate::history::Event;

    fn right() -> Made {
        let mut made = Made::new();
        made.sample(1, 1, (1, true), (5, "five"));
        made.sample(2, 2, (1, false), (5, "five"));
        made.sample(3, 3, (1, false), (6, "six"));
        made
    }

    #[test]
    fn equal_digests_at_equal_index_hold() {
        let made = right();
        let result = check(&History::new(&made.events));
        assert_eq!((result.status, result.checked), (Status::Held, 1));
    }

    #[test]
    fn digests_that_differ_are_caught_also_those_of_one_server_at_different_times() {
        for node in [2, 3] {
            let mut made = right();
            made.sample(9, node, (1, false), (6, "seven"));
            let result = check(&History::new(&made.events));
            assert_eq!(result.status, Status::Violated);
        }
    }

    #[test]
    fn a_servers_own_alarm_is_heard() {
        let mut made = right();
        if let Some(Event::Sample(sample)) = made.events.last_mut() {
            sample.status.as_mut().unwrap().divergence = "differs from node 1".to_owned();
        }
        let result = check(&History::new(&made.events));
        assert!(result.violations[0].what.contains("differs from node 1"));
    }

    #[test]
    fn servers_that_were_never_seen_level_are_not_green() {
        let mut made = Made::new();
        made.sample(1, 1, (1, true), (5, "five"));
        made.sample(3, 3, (1, false), (6, "six"));
        let result = check(&History::new(&made.events));
        assert!(matches!(result.status, Status::NotChecked { .. }));
    }
}
