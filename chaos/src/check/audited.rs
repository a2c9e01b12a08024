//! Every answer has its audit record.

use std::collections::BTreeMap;

use super::chain::longest;
use super::index::{History, Record};
use super::verdict::CheckResult;
use crate::history::{Audit, Call, Micros, OpId, Reply};

/// What an answer says of its record.
struct Claim {
    sequence: u64,
    action: &'static str,
    request: String,
    /// Key id and version; none for a search.
    key: Option<(String, u32)>,
    /// What its outcome may be.
    outcomes: &'static [&'static str],
}

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "every answer to a disclosure or a search, and every receipt, has a record of its own that is no later than the answer";
    let mut result = CheckResult::new("audited", claim, "answers");
    let Some(chain) = longest(history) else {
        result.not_checked("nobody could read the audit chain".to_owned());
        return result;
    };
    let records: BTreeMap<u64, &Audit> =
        chain.records.iter().map(|record| (record.sequence, *record)).collect();
    let read_at = history.calls.iter().find(|call| call.op == chain.op).map_or(0, |call| call.at);
    let mut used: BTreeMap<u64, OpId> = BTreeMap::new();
    let mut late = 0_u64;
    for call in &history.calls {
        let Some((claim, at)) = claim_of(call) else { continue };
        if at >= read_at {
            // What was answered while the chain was read need not be on it.
            late = late.saturating_add(1);
            continue;
        }
        result.count();
        if let Some(what) = wrong(&claim, records.get(&claim.sequence).copied()) {
            result.violate([call.op], what);
        }
        let own = !matches!(call.call, Call::Escrow { .. });
        let other = if own { used.insert(claim.sequence, call.op) } else { None };
        if let Some(other) = other {
            let what = format!("two answers share record {}", claim.sequence);
            result.violate([other, call.op], what);
        }
    }
    in_time(history, &mut result);
    if late > 0 {
        result.notes.push(format!("{late} answers came after the chain was read"));
    }
    if result.checked == 0 {
        result.not_checked("no answer came before the chain was read".to_owned());
    }
    result
}

fn claim_of(call: &Record<'_>) -> Option<(Claim, Micros)> {
    let (at, reply) = call.ok()?;
    let claim = match (call.call, reply) {
        (
            Call::Disclose { request, protector, .. },
            Reply::Disclose { version, audit, repeated, .. },
        ) => Claim {
            sequence: *audit,
            action: "disclose",
            request: request.to_string(),
            key: Some((protector.to_string(), *version)),
            outcomes: if *repeated { &["repeated"] } else { &["ok"] },
        },
        (Call::Find { request, .. }, Reply::Find { audit, .. }) => Claim {
            sequence: *audit,
            action: "find",
            request: request.to_string(),
            key: None,
            outcomes: &["ok", "repeated"],
        },
        (Call::Escrow { request, protector, .. }, Reply::Escrow { version, audit, .. }) => Claim {
            sequence: *audit,
            action: "escrow",
            request: request.to_string(),
            key: Some((protector.to_string(), *version)),
            outcomes: &["ok"],
        },
        _ => return None,
    };
    Some((claim, at))
}

fn wrong(claim: &Claim, record: Option<&Audit>) -> Option<String> {
    let Claim { sequence, action, request, .. } = claim;
    let Some(record) = record else {
        return Some(format!("{action} {request} names record {sequence}, which does not exist"));
    };
    let key = claim.key.as_ref().is_none_or(|(protector, version)| {
        record.protector == *protector && record.version == *version
    });
    let right = record.action == *action
        && record.request == *request
        && claim.outcomes.contains(&record.outcome.as_str())
        && key;
    (!right).then(|| {
        format!(
            "{action} {request} names record {sequence}, which is of {} {} ({}) and key {} in version {}",
            record.action, record.request, record.outcome, record.protector, record.version
        )
    })
}

/// A head that is read after an answer has come is not before the answer's record.
fn in_time(history: &History<'_>, result: &mut CheckResult) {
    let mut moments: Vec<(Micros, u8, OpId, u64)> = Vec::new();
    for call in &history.calls {
        if let Some((claim, at)) = claim_of(call) {
            moments.push((at, 1, call.op, claim.sequence));
        } else if let Some((_, Reply::AuditHead { sequence, .. })) = call.ok() {
            moments.push((call.at, 0, call.op, *sequence));
        }
    }
    moments.sort_unstable();
    let mut newest: Option<(u64, OpId)> = None;
    for (_, kind, op, sequence) in moments {
        if kind == 1 {
            newest = newest.max(Some((sequence, op)));
        } else if let Some((known, by)) = newest.filter(|known| known.0 > sequence) {
            let what = format!(
                "the chain ended at record {sequence} after call {by} had been answered with record {known}"
            );
            result.violate([by, op], what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        Made, at_index, disclose, disclosed, escrow, filler, id, listing, ok, receipt, record,
        violated_first,
    };
    use super::super::verdict::Status;
    use super::*;

    /// An escrow with record 10, a disclosure with record 20, a search with record 30.
    fn right(change: impl FnOnce(&mut Vec<Audit>)) -> Made {
        let mut made = Made::new();
        made.call(1, 2, escrow(1, 0), receipt(1, 1, 1));
        made.call(3, 4, disclose(1, 0), disclosed(1, 1, 2));
        let find = Call::Find { request: id(0x4001), query: id(0x2001).to_string() };
        let keys = vec![(id(0x2001), 1)];
        made.call(5, 6, find, ok(Reply::Find { keys, audit: 30, position: at_index(3) }));
        let mut records = filler(40);
        records[9] = record(10, "escrow", id(0x1001), 1, 1);
        records[19] = record(20, "disclose", id(0x3001), 1, 1);
        records[29] = record(30, "find", id(0x4001), 1, 0);
        change(&mut records);
        made.call(50, 51, Call::AuditList, listing(records));
        made
    }

    #[track_caller]
    fn caught(made: &Made, words: &str) {
        violated_first(&check(&History::new(&made.events)), words);
    }

    #[test]
    fn answers_with_a_record_each_hold() {
        let made = right(|_| {});
        let result = check(&History::new(&made.events));
        assert_eq!((result.status, result.checked), (Status::Held, 3));
    }

    #[test]
    fn a_disclosure_whose_record_is_missing_is_caught() {
        caught(&right(|records| records.truncate(15)), "does not exist");
    }

    #[test]
    fn a_record_of_another_key_request_or_version_is_caught() {
        caught(&right(|records| records[19].protector = id(5).to_string()), "record 20");
        caught(&right(|records| records[19].request = id(5).to_string()), "record 20");
        caught(&right(|records| records[19].version = 2), "record 20");
        caught(&right(|records| records[29].action = "escrow".to_owned()), "record 30");
    }

    #[test]
    fn a_repeat_needs_a_record_of_its_own() {
        let mut made = right(|_| {});
        made.call(7, 8, disclose(1, 0), disclosed(1, 1, 2));
        caught(&made, "two answers share record 20");
    }

    #[test]
    fn an_answer_before_its_record_is_caught() {
        let mut made = right(|_| {});
        let head = Reply::AuditHead { sequence: 19, hash: String::new(), index: 1 };
        made.call(5, 6, Call::AuditHead, ok(head));
        caught(&made, "the chain ended at record 19");
    }

    #[test]
    fn without_a_listing_nothing_is_checked() {
        let mut made = Made::new();
        made.call(3, 4, disclose(1, 0), disclosed(1, 1, 2));
        let result = check(&History::new(&made.events));
        assert!(matches!(result.status, Status::NotChecked { .. }));
    }
}
