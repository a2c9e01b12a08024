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
        chain.records.iter().map(|record| (record.sequence, record)).collect();
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
