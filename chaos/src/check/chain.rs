//! The audit chain: unbroken, and the same through every server.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::index::History;
use super::verdict::CheckResult;
use crate::history::{Audit, OpId, Reply};

/// A chain as one call listed it.
#[derive(Debug, Clone)]
pub(crate) struct Listed<'a> {
    pub(crate) op: OpId,
    pub(crate) node: Option<u64>,
    pub(crate) records: Vec<&'a Audit>,
    pub(crate) head: &'a str,
}

/// What a page of the chain is named by: everything in it.
pub(crate) fn page_name(records: &[Audit]) -> String {
    let mut sum = Sha256::new();
    for record in records {
        let Audit { sequence, action, outcome, request, protector, version, count, hash } = record;
        let fields = format!(
            "{sequence} {action} {outcome} {request} {protector} {version} {count} {hash}\n"
        );
        sum.update(fields.as_bytes());
    }
    hex::encode(sum.finalize())
}

/// All listings. A page that the history lacks shows as a gap.
pub(crate) fn listings<'a>(history: &History<'a>) -> Vec<Listed<'a>> {
    let listed = history.calls.iter().filter_map(|call| match call.ok() {
        Some((_, Reply::AuditList { pages, records, head })) => {
            let known = pages.iter().filter_map(|page| history.pages.get(page.as_str()));
            let paged = known.copied().flatten();
            let records = paged.chain(records).collect();
            Some(Listed { op: call.op, node: call.node, records, head })
        }
        Some(_) | None => None,
    });
    listed.collect()
}

/// The listing with the most records.
pub(crate) fn longest<'a>(history: &History<'a>) -> Option<Listed<'a>> {
    listings(history).into_iter().max_by_key(|listed| listed.records.len())
}

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "the audit chain has no gap, is the same through every server, and every head that was ever named lies on it";
    let mut result = CheckResult::new("chain", claim, "records and heads");
    let listings = listings(history);
    let mut known: BTreeMap<u64, (&str, OpId)> = BTreeMap::new();
    for listed in &listings {
        unbroken(listed, &mut result);
        for record in &listed.records {
            result.count();
            let first = *known.entry(record.sequence).or_insert((&record.hash, listed.op));
            if first.0 != record.hash {
                let what = format!("record {} has two hashes", record.sequence);
                result.violate([first.1, listed.op], what);
                break;
            }
        }
    }
    heads(history, &known, &mut result);
    let nodes = history.final_nodes();
    let mut unread = nodes.iter().filter(|node| {
        let mut final_lists = history
            .final_calls()
            .filter(|(_, call)| matches!(call.ok(), Some((_, Reply::AuditList { .. }))));
        !final_lists.any(|(by, _)| by == **node)
    });
    if let Some(why) = history.no_final() {
        result.not_checked(why);
    } else if let Some(node) = unread.next() {
        result.not_checked(format!("nobody could read the chain through node {node} at the end"));
    }
    result
}

fn unbroken(listed: &Listed<'_>, result: &mut CheckResult) {
    let by = listed.node.map_or_else(String::new, |node| format!(" through node {node}"));
    for (expected, record) in (1_u64..).zip(&listed.records) {
        if record.sequence != expected {
            let what =
                format!("the chain{by} has record {} after {}", record.sequence, expected - 1);
            result.violate([listed.op], what);
            return;
        }
    }
    if let Some(last) = listed.records.last().filter(|last| last.hash != listed.head) {
        let what = format!("the chain{by} ends at record {}, which is not its head", last.sequence);
        result.violate([listed.op], what);
    }
}

fn heads(history: &History<'_>, known: &BTreeMap<u64, (&str, OpId)>, result: &mut CheckResult) {
    let mut named: BTreeMap<u64, (&str, OpId)> = BTreeMap::new();
    let mut beyond = 0_u64;
    let last = known.keys().next_back().copied().unwrap_or(0);
    for call in &history.calls {
        let Some((_, Reply::AuditHead { sequence, hash, .. })) = call.ok() else { continue };
        if *sequence == 0 {
            continue;
        }
        result.count();
        let other = *named.entry(*sequence).or_insert((hash, call.op));
        if other.0 != hash {
            let what = format!("two heads at record {sequence} differ");
            result.violate([other.1, call.op], what);
        }
        match known.get(sequence) {
            Some((listed, op)) if listed != hash => {
                let what = format!("the head at record {sequence} does not lie on the chain");
                result.violate([call.op, *op], what);
            }
            Some(_) => {}
            None if *sequence > last => beyond = beyond.saturating_add(1),
            None => {}
        }
    }
    if beyond > 0 {
        result.notes.push(format!("{beyond} heads lie beyond the last listing"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Made, filler, listing, ok, violated_first};
    use super::super::verdict::Status;
    use super::*;
    use crate::history::{Audit, Call, Event};

    fn head(sequence: u64, hash: &str) -> Reply {
        Reply::AuditHead { sequence, hash: hash.to_owned(), index: sequence }
    }

    fn with(third: Vec<Audit>) -> Made {
        let mut made = Made::new();
        made.call(1, 2, Call::AuditHead, ok(head(2, "hash-2")));
        made.phase(10, "final");
        for (node, records) in [(1, filler(4)), (2, filler(5)), (3, third)] {
            made.call_of(Some(node), (20 + node, 30 + node), Call::AuditList, listing(records));
        }
        made
    }

    #[track_caller]
    fn caught(made: &Made, words: &str) {
        violated_first(&check(&History::new(&made.events)), words);
    }

    #[test]
    fn chains_of_different_length_with_the_same_hashes_hold() {
        let made = with(filler(6));
        let result = check(&History::new(&made.events));
        assert_eq!(result.status, Status::Held, "{result:?}");
    }

    #[test]
    fn another_hash_through_one_server_is_caught() {
        let mut records = filler(6);
        records[3].hash = "other".to_owned();
        caught(&with(records), "record 4 has two hashes");
    }

    #[test]
    fn a_gap_is_caught() {
        let mut records = filler(6);
        records.remove(2);
        caught(&with(records), "record 4 after 2");
    }

    #[test]
    fn a_head_that_was_named_and_does_not_lie_on_the_chain_is_caught() {
        let mut made = with(filler(6));
        made.call(40, 41, Call::AuditHead, ok(head(3, "other")));
        caught(&made, "does not lie on the chain");
        let mut made = with(filler(6));
        made.call(40, 41, Call::AuditHead, ok(head(9, "one")));
        made.call(42, 43, Call::AuditHead, ok(head(9, "two")));
        caught(&made, "two heads at record 9");
    }

    #[test]
    fn a_chain_that_is_not_read_through_every_server_is_not_green() {
        let mut made = with(filler(6));
        made.events.truncate(made.events.len() - 2);
        let result = check(&History::new(&made.events));
        assert!(matches!(result.status, Status::NotChecked { .. }), "{result:?}");
    }

    #[test]
    fn a_chain_that_is_written_down_in_pages_is_the_same_chain() {
        let mut made = with(filler(6));
        let (first, second) = (filler(6)[..4].to_vec(), filler(6)[4..].to_vec());
        for (page, records) in [("a", first), ("b", second)] {
            made.events.push(Event::AuditPage { page: page.to_owned(), records });
        }
        let reply = |pages: &[&str]| Reply::AuditList {
            pages: pages.iter().map(|page| (*page).to_owned()).collect(),
            records: vec![],
            head: "hash-6".to_owned(),
        };
        made.call_of(Some(2), (50, 51), Call::AuditList, ok(reply(&["a", "b"])));
        assert_eq!(check(&History::new(&made.events)).status, Status::Held);
        made.call_of(Some(2), (52, 53), Call::AuditList, ok(reply(&["lost", "b"])));
        caught(&made, "record 5 after 0");
    }
}
