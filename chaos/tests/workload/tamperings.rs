//! Ways to tamper with a recorded history, each of which one checker must see.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_chaos::history::{Audit, Call, Event, Invoke, OpId, Outcome, Reply, Return, Sample};
use uuid::Uuid;

pub(crate) type Change = fn(&mut Event) -> bool;

/// Each way to tamper with a history: what it is, the checker that must see it, and the change, which says whether it has
/// found what it changes.
pub(crate) const TAMPERINGS: [(&str, &str, Change); 12] = [
    ("a listing without a key", "lost", |event| match answer(event) {
        Some(Reply::Find { keys, .. }) if keys.len() > 1 => {
            keys.clear();
            true
        }
        _ => false,
    }),
    ("another recovery key", "lost", |event| match answer(event) {
        Some(Reply::Disclose { key, .. }) => {
            key.replace_range(..1, "x");
            true
        }
        _ => false,
    }),
    ("reads of an older version", "linear", |event| match answer(event) {
        Some(Reply::Device { volumes, .. }) => {
            let volume = volumes.iter_mut().find(|volume| volume.1 > 0);
            volume.map(|volume| volume.1 -= 1).is_some()
        }
        _ => false,
    }),
    ("a receipt for another version", "linear", |event| match answer(event) {
        Some(Reply::Escrow { version, .. }) => {
            *version += 1;
            true
        }
        _ => false,
    }),
    ("a receipt at an old place", "witness", |event| match answer(event) {
        Some(Reply::Escrow { position, .. }) => {
            position.index = 1;
            true
        }
        _ => false,
    }),
    ("a read at an old place", "witness", |event| match answer(event) {
        Some(Reply::AuditHead { index, .. }) => {
            *index = 1;
            true
        }
        _ => false,
    }),
    ("an escrow that was done twice", "once", |event| match answer(event) {
        Some(Reply::AuditList { records, .. }) => {
            let done = |record: &&mut Audit| record.action == "escrow" && record.outcome == "ok";
            let mut escrows = records.iter_mut().filter(done);
            let first = escrows.next().map(|record| record.request.clone());
            escrows.next().zip(first).map(|(second, first)| second.request = first).is_some()
        }
        _ => false,
    }),
    ("a disclosure without a record", "audited", |event| match answer(event) {
        Some(Reply::AuditList { records, .. }) => {
            // All of them: the answer to a single one may have been lost, or a refusal.
            let disclosed = records.iter_mut().filter(|record| record.action == "disclose");
            disclosed.map(|record| record.action = "find".to_owned()).count() > 0
        }
        _ => false,
    }),
    ("a chain that differs", "chain", |event| match answer(event) {
        Some(Reply::AuditList { records, .. }) => {
            records.get_mut(4).map(|record| record.hash = "0".repeat(64)).is_some()
        }
        _ => false,
    }),
    ("a state that differs", "digest", |event| match event {
        Event::Sample(Sample { status: Some(status), node: 2, .. }) => {
            status.digest.replace_range(..1, "x");
            true
        }
        _ => false,
    }),
    ("a second leader", "leader", |event| match event {
        Event::Sample(Sample { status: Some(status), .. }) if !status.leads => {
            status.leads = true;
            true
        }
        _ => false,
    }),
    ("no end", "valid", |event| match event {
        Event::End { at } => {
            *event = Event::Phase { at: *at, name: "over".to_owned() };
            true
        }
        _ => false,
    }),
];

fn answer(event: &mut Event) -> Option<&mut Reply> {
    match event {
        Event::Return(Return { outcome: Outcome::Ok { reply }, .. }) => Some(reply),
        _ => None,
    }
}

/// The same history, where each listing of the audit chain has all of its records in itself.
pub(crate) fn with_whole_listings(events: &[Event]) -> Vec<Event> {
    let mut known: BTreeMap<String, Vec<Audit>> = BTreeMap::new();
    let mut whole = events.to_vec();
    for event in &mut whole {
        match event {
            Event::AuditPage { page, records } => {
                known.insert(page.clone(), records.clone());
            }
            event => {
                let Some(Reply::AuditList { pages, records, .. }) = answer(event) else { continue };
                let mut all: Vec<_> =
                    pages.drain(..).flat_map(|page| known[&page].clone()).collect();
                all.append(records);
                *records = all;
            }
        }
    }
    whole
}

/// The calls whose request was sent more than once. The answers of a repeated request are one effect to most checkers, and
/// one of them that differs is caught by `once` alone.
pub(crate) fn repeated(events: &[Event]) -> BTreeSet<OpId> {
    let mut calls: BTreeMap<Uuid, Vec<OpId>> = BTreeMap::new();
    for event in events {
        if let Event::Invoke(Invoke { op, call: Call::Escrow { request, .. }, .. }) = event {
            calls.entry(*request).or_default().push(*op);
        }
    }
    calls.into_values().filter(|calls| calls.len() > 1).flatten().collect()
}
