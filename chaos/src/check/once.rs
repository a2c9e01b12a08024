//! One effect for each request id.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::chain::longest;
use super::index::{History, Write};
use super::verdict::CheckResult;
use crate::history::{Call, OpId, Reply};

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "a request that is sent again has one effect, and every receipt for it is the same";
    let mut result = CheckResult::new("once", claim, "request ids");
    for write in &history.writes {
        receipts(write, &mut result);
    }
    one_each(history, &mut result);
    first_disclosures(history, &mut result);
    records(history, &mut result);
    if result.checked == 0 {
        result.not_checked("there is no request".to_owned());
    }
    result
}

fn receipts(write: &Write<'_>, result: &mut CheckResult) {
    result.count();
    let Some(ack) = write.ack else { return };
    for call in &write.calls {
        let Some((_, Reply::Escrow { version, position, audit, sealed_digest })) = call.ok() else {
            continue;
        };
        let same = (*version, *position, *audit) == (ack.version, ack.position, ack.audit);
        if !same {
            let what = format!(
                "two receipts for request {} differ: version {} at {}, and version {version} at {}",
                write.request, ack.version, ack.position.index, position.index
            );
            result.violate([ack.op, call.op], what);
        }
        if sealed_digest != write.digest {
            let what = format!("the receipt for {} names other sealed bytes", write.request);
            result.violate([call.op], what);
        }
    }
}

/// No two requests have made the same version of a volume, or left the same record.
fn one_each(history: &History<'_>, result: &mut CheckResult) {
    let mut versions: BTreeMap<(Uuid, u32), OpId> = BTreeMap::new();
    let mut audits: BTreeMap<u64, OpId> = BTreeMap::new();
    for write in &history.writes {
        let Some(ack) = write.ack else { continue };
        if let Some(other) = versions.insert((write.volume, ack.version), ack.op) {
            let what = format!(
                "two requests were both acknowledged as version {} of volume {}",
                ack.version, write.volume
            );
            result.violate([other, ack.op], what);
        }
        if let Some(other) = audits.insert(ack.audit, ack.op) {
            result.violate([other, ack.op], format!("two requests share record {}", ack.audit));
        }
    }
}

fn first_disclosures(history: &History<'_>, result: &mut CheckResult) {
    let mut first: BTreeMap<Uuid, (OpId, u32)> = BTreeMap::new();
    for call in &history.calls {
        let (Call::Disclose { request, .. }, Some((_, Reply::Disclose { version, repeated, .. }))) =
            (call.call, call.ok())
        else {
            continue;
        };
        if *repeated {
            continue;
        }
        result.count();
        if let Some((other, _)) = first.insert(*request, (call.op, *version)) {
            let what = format!("disclosure {request} was charged twice");
            result.violate([other, call.op], what);
        }
    }
}

/// The audit chain has at most one record of success for each request, and exactly one for each acknowledged escrow.
fn records(history: &History<'_>, result: &mut CheckResult) {
    let Some(chain) = longest(history) else { return };
    let mut done: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for record in chain.records {
        let counts = matches!(record.action.as_str(), "escrow" | "disclose" | "find");
        if record.outcome == "ok" && counts && !record.request.is_empty() {
            let key = (record.action.as_str(), record.request.as_str());
            done.entry(key).or_default().push(record.sequence);
        }
    }
    for ((action, request), records) in &done {
        if let [first, second, ..] = records.as_slice() {
            let ops = history.writes.iter().filter(|write| write.request.to_string() == **request);
            let ops: Vec<_> = ops.flat_map(Write::ops).collect();
            let what = format!(
                "the {action} of request {request} took effect more than once: records {first} and {second}"
            );
            result.violate(ops, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        Made, disclose, disclosed, escrow, id, listing, receipt, record, unknown, violated_first,
    };
    use super::super::verdict::Status;
    use super::*;

    fn right() -> Made {
        let mut made = Made::new();
        made.call(1, 2, escrow(1, 0), unknown());
        made.call(3, 4, escrow(1, 0), receipt(1, 1, 5));
        made.call(5, 6, escrow(1, 0), receipt(1, 1, 5));
        made.call(7, 8, disclose(1, 1), disclosed(1, 1, 6));
        let mut repeat = record(3, "disclose", id(0x3001), 1, 1);
        repeat.outcome = "repeated".to_owned();
        let records = vec![
            record(1, "escrow", id(0x1001), 1, 1),
            record(2, "disclose", id(0x3001), 1, 1),
            repeat,
        ];
        made.call(9, 10, Call::AuditList, listing(records));
        made
    }

    #[track_caller]
    fn caught(made: &Made, words: &str) {
        violated_first(&check(&History::new(&made.events)), words);
    }

    #[test]
    fn a_retry_with_the_same_receipt_holds() {
        let made = right();
        let result = check(&History::new(&made.events));
        assert_eq!(result.status, Status::Held, "{result:?}");
    }

    #[test]
    fn a_retry_that_makes_another_version_is_caught() {
        let mut made = right();
        made.call(20, 21, escrow(1, 0), receipt(1, 2, 9));
        caught(&made, "two receipts");
    }

    #[test]
    fn a_receipt_for_other_bytes_is_caught() {
        let mut made = right();
        made.call(20, 21, escrow(2, 1), receipt(3, 2, 9));
        caught(&made, "other sealed bytes");
    }

    #[test]
    fn a_disclosure_that_is_charged_twice_is_caught() {
        let mut made = right();
        made.call(20, 21, disclose(1, 1), disclosed(1, 1, 9));
        caught(&made, "charged twice");
    }

    #[test]
    fn two_records_of_success_for_one_request_are_caught_even_if_no_answer_came() {
        let mut made = right();
        let records = (1..=4).map(|sequence| record(sequence, "escrow", id(0x1001), 1, 1));
        made.call(20, 21, Call::AuditList, listing(records.collect()));
        caught(&made, "more than once");
    }
}
