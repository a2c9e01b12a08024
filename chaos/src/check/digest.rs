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
