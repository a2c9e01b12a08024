//! The witness of the log: every acknowledged entry names its place, and every linearizable read the place that it was read at.
//!
//! Linear in the length of the history, so it holds runs of any length to account: places follow real time, one entry has
//! one place, a read knows every write that was acknowledged before it began, and every one that lies before its index.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::index::{History, Record};
use super::verdict::CheckResult;
use crate::history::{Call, Micros, OpId, Position, Reply};

/// An acknowledged entry of the log.
struct Entry {
    op: OpId,
    /// When it was sent first, and acknowledged first.
    from: Micros,
    to: Micros,
    position: Position,
}

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "places in the log follow real time, and reads know what lies before their place";
    let mut result = CheckResult::new("witness", claim, "places in the log");
    let entries = entries(history);
    one_each(&entries, &mut result);
    let reads = reads(history);
    real_time(&entries, &reads, &mut result);
    contents(history, &mut result);
    if result.checked == 0 {
        result.not_checked("nothing was acknowledged".to_owned());
    }
    result
}

/// Every acknowledged write, and every search and disclosure: these are entries too.
fn entries(history: &History<'_>) -> Vec<Entry> {
    let writes = history.writes.iter().filter_map(|write| {
        let ack = write.ack?;
        Some(Entry { op: ack.op, from: write.first, to: ack.at, position: ack.position })
    });
    let others = history.calls.iter().filter_map(|call| match call.ok() {
        Some((to, Reply::Find { position, .. } | Reply::Disclose { position, .. })) => {
            Some(Entry { op: call.op, from: call.at, to, position: *position })
        }
        Some(_) | None => None,
    });
    writes.chain(others).collect()
}

fn one_each(entries: &[Entry], result: &mut CheckResult) {
    let mut places: BTreeMap<u64, &Entry> = BTreeMap::new();
    for entry in entries {
        let index = entry.position.index;
        let known = places.insert(index, entry);
        result.count();
        if let Some(known) = known {
            result.violate([known.op, entry.op], format!("two entries lie at log index {index}"));
        }
    }
    let mut last: Option<&Entry> = None;
    for entry in places.values() {
        if let Some(last) = last.filter(|last| last.position.term > entry.position.term) {
            let (index, term) = (entry.position.index, entry.position.term);
            let what = format!(
                "log index {index} is of term {term}, but an earlier one is of term {}",
                last.position.term
            );
            result.violate([last.op, entry.op], what);
        }
        last = Some(entry);
    }
}

/// A linearizable answer: when it was asked for, and the index that it was read at.
struct Read {
    op: OpId,
    from: Micros,
    index: u64,
}

fn reads(history: &History<'_>) -> Vec<Read> {
    let reads = history.calls.iter().filter_map(|call| {
        let index = match (call.call, call.ok()?.1) {
            (Call::ReadDevice { .. }, Reply::Device { index, .. })
            | (_, Reply::AuditHead { index, .. }) => *index,
            _ => return None,
        };
        // The answer that a device is unknown names no index.
        (index > 0).then_some(Read { op: call.op, from: call.at, index })
    });
    reads.collect()
}

enum Moment<'m> {
    Asked(OpId, u64),
    Acknowledged(&'m Entry),
}

fn real_time(entries: &[Entry], reads: &[Read], result: &mut CheckResult) {
    let mut moments = Vec::new();
    for entry in entries {
        moments.push((entry.from, 0_u8, Moment::Asked(entry.op, entry.position.index)));
        moments.push((entry.to, 1, Moment::Acknowledged(entry)));
    }
    for read in reads {
        // A read at the very index that was acknowledged knows it.
        moments.push((read.from, 0, Moment::Asked(read.op, read.index.saturating_add(1))));
    }
    moments.sort_by_key(|(at, order, _)| (*at, *order));
    let mut highest: Option<&Entry> = None;
    for (_, _, moment) in moments {
        match moment {
            Moment::Acknowledged(entry) => {
                if highest.is_none_or(|known| known.position.index < entry.position.index) {
                    highest = Some(entry);
                }
            }
            Moment::Asked(op, index) => {
                result.count();
                if let Some(known) = highest.filter(|known| known.position.index >= index) {
                    let what = format!(
                        "call {op} was sent after call {} had been acknowledged at log index {}, but its own place is before that",
                        known.op, known.position.index
                    );
                    result.violate([known.op, op], what);
                }
            }
        }
    }
}

/// Acknowledged versions of a volume by their index: version, key id, call.
type Versions = BTreeMap<Uuid, BTreeMap<u64, (u32, Uuid, OpId)>>;

fn contents(history: &History<'_>, result: &mut CheckResult) {
    let mut volumes: Versions = BTreeMap::new();
    let mut devices: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
    let mut keys: BTreeMap<Uuid, BTreeMap<u32, (u64, OpId)>> = BTreeMap::new();
    for write in &history.writes {
        let Some(ack) = write.ack else { continue };
        let known = volumes.entry(write.volume).or_default();
        if known.is_empty() {
            devices.entry(write.device).or_default().push(write.volume);
        }
        known.insert(ack.position.index, (ack.version, write.protector, ack.op));
        let of_id = keys.entry(write.protector).or_default();
        of_id.insert(ack.version, (ack.position.index, ack.op));
    }
    for call in &history.calls {
        match (call.call, call.ok()) {
            (
                Call::ReadDevice { device } | Call::ReadDeviceStale { device },
                Some((_, Reply::Device { volumes: answer, index, .. })),
            ) if *index > 0 => {
                let ids = devices.get(device).map(Vec::as_slice).unwrap_or_default();
                read(call, answer, *index, (ids, &volumes), result);
            }
            (Call::Find { .. }, Some((_, Reply::Find { keys: answer, position, .. }))) => {
                for (protector, version) in answer {
                    let known = keys.get(protector).and_then(|of_id| of_id.get(version));
                    result.count();
                    if let Some((index, op)) = known.filter(|known| known.0 > position.index) {
                        let what = format!(
                            "a search at log index {} knows version {version} of {protector}, which lies at {index}",
                            position.index
                        );
                        result.violate([*op, call.op], what);
                    }
                }
            }
            _ => {}
        }
    }
}

fn read(
    call: &Record<'_>,
    answer: &[(Uuid, u32, Uuid)],
    index: u64,
    (ids, volumes): (&[Uuid], &Versions),
    result: &mut CheckResult,
) {
    for id in ids {
        let Some(versions) = volumes.get(id) else { continue };
        let answered = answer.iter().find(|(volume, ..)| volume == id).map_or(0, |found| found.1);
        result.count();
        // Writes that were not acknowledged may lie between: the answer may be newer than the last acknowledged one.
        let before = versions.range(..=index).next_back();
        if let Some((at, (version, _, op))) = before.filter(|(_, known)| known.0 > answered) {
            let what = format!(
                "a read at log index {index} finds version {answered} of volume {id}, but version {version} lies at {at}"
            );
            result.violate([*op, call.op], what);
        }
        // It may be newer: entries are applied while the records are read, and the index is that of the beginning.
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        DEVICE, Made, VOLUME, at_index, device, disclose, disclosed, escrow, id, ok, receipt,
    };
    use super::super::verdict::Status;
    use super::*;

    const READ: Call = Call::ReadDevice { device: DEVICE };
    const STALE: Call = Call::ReadDeviceStale { device: DEVICE };

    fn right() -> Made {
        let mut made = Made::new();
        made.call(1, 4, escrow(1, 0), receipt(1, 1, 10));
        made.call(2, 3, STALE, device(0, 0, 4));
        made.call(5, 6, READ, device(1, 1, 10));
        made.call(7, 8, disclose(1, 1), disclosed(1, 1, 11));
        made.call(9, 10, escrow(2, 1), receipt(2, 2, 12));
        made.call(11, 12, STALE, device(1, 1, 11));
        made
    }

    #[track_caller]
    fn caught(made: &Made, words: &str) {
        let result = check(&History::new(&made.events));
        assert_eq!(result.status, Status::Violated);
        let told: Vec<_> = result.violations.iter().map(|v| v.what.as_str()).collect();
        assert!(told.iter().any(|what| what.contains(words)), "{told:?}");
    }

    #[test]
    fn places_in_the_order_of_time_hold() {
        let made = right();
        let result = check(&History::new(&made.events));
        assert_eq!(result.status, Status::Held, "{result:?}");
        assert!(result.checked >= 8);
    }

    #[test]
    fn a_write_that_lies_before_an_earlier_acknowledged_one_is_caught() {
        let mut made = right();
        made.call(20, 21, escrow(3, 2), receipt(3, 3, 9));
        caught(&made, "its own place is before that");
    }

    #[test]
    fn a_linearizable_read_at_an_old_index_is_caught_even_of_another_device() {
        let mut made = right();
        let reply = Reply::Device { volumes: vec![], index: 11, age_ms: 0 };
        made.call(20, 21, Call::ReadDevice { device: id(77) }, ok(reply));
        caught(&made, "its own place is before that");
    }

    #[test]
    fn a_stale_read_that_lacks_what_lies_before_its_index_is_caught() {
        let mut made = right();
        made.call(20, 21, STALE, device(1, 1, 12));
        caught(&made, "finds version 1");
    }

    #[test]
    fn a_search_that_knows_what_lies_after_its_entry_is_caught() {
        let mut made = right();
        let reply = Reply::Find { keys: vec![(id(0x2002), 2)], audit: 1, position: at_index(11) };
        let query = format!("volume {DEVICE} {VOLUME}");
        made.call(8, 20, Call::Find { request: id(9), query }, ok(reply));
        caught(&made, "which lies at 12");
    }

    #[test]
    fn two_entries_at_one_place_and_a_term_that_falls_are_caught() {
        let mut made = right();
        made.call(20, 21, disclose(1, 1), disclosed(1, 1, 12));
        caught(&made, "two entries lie at log index 12");
        let mut made = right();
        let position = Position { term: 0, index: 14 };
        let reply = Reply::Find { keys: vec![], audit: 1, position };
        made.call(20, 21, Call::Find { request: id(9), query: String::new() }, ok(reply));
        caught(&made, "is of term 0");
    }
}
