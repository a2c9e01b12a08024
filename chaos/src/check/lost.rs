//! No acknowledged escrow is lost: at the end every server lists every acknowledged version, and opens those that it is
//! asked for with the right recovery key.
//!
//! A search by volume lists all its versions and costs no quota, so every version is looked for through every server. How
//! many can be opened depends on the operators' quotas: the result says how many were, through each server and in all.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::index::{History, Record};
use super::verdict::CheckResult;
use crate::history::{Call, OpId, Outcome, Reply};

/// An acknowledged version: key id and version.
type Key = (Uuid, u32);

struct Escrowed<'a> {
    op: OpId,
    volume: Uuid,
    key: &'a str,
}

pub(crate) fn check(history: &History<'_>) -> CheckResult {
    let claim = "every server lists every acknowledged key version at the end, and opens it with the right recovery key";
    let mut result = CheckResult::new("lost", claim, "acknowledged versions through each server");
    let mut keys: BTreeMap<Key, Escrowed<'_>> = BTreeMap::new();
    let from = history.final_from().unwrap_or(u64::MAX);
    for write in &history.writes {
        if let Some(ack) = write.ack.filter(|ack| ack.at < from) {
            let key = Escrowed { op: ack.op, volume: write.volume, key: write.key };
            keys.insert((write.protector, ack.version), key);
        }
    }
    if let Some(why) = history.no_final() {
        result.not_checked(why);
        return result;
    }
    if keys.is_empty() {
        result.not_checked("no escrow was acknowledged".to_owned());
        return result;
    }
    let mut opened_anywhere: BTreeSet<Key> = BTreeSet::new();
    for node in history.final_nodes() {
        let calls = history.final_calls().filter(|(by, _)| *by == node).map(|(_, call)| call);
        let seen = Seen::new(calls, &keys, &mut result);
        let missing = listed(node, &keys, &seen, &mut result);
        let opened = seen.opened.len();
        result.notes.push(format!("node {node}: {opened} of {} versions were opened", keys.len()));
        if opened == 0 {
            result.not_checked(format!("no key was opened through node {node}"));
        } else if missing > 0 {
            result
                .not_checked(format!("{missing} versions were not looked for through node {node}"));
        }
        opened_anywhere.extend(seen.opened);
    }
    let all = keys.len();
    result.notes.push(format!("{} of {all} versions were opened in all", opened_anywhere.len()));
    result
}

/// What the last phase saw through one server.
struct Seen<'a> {
    /// What each search listed.
    lists: BTreeMap<Uuid, Vec<(OpId, &'a [Key])>>,
    finds: BTreeMap<Uuid, Vec<(OpId, &'a [Key])>>,
    opened: BTreeSet<Key>,
}

impl<'a> Seen<'a> {
    fn new<'r>(
        calls: impl Iterator<Item = &'r Record<'a>>,
        keys: &BTreeMap<Key, Escrowed<'_>>,
        result: &mut CheckResult,
    ) -> Self
    where
        'a: 'r,
    {
        let mut seen =
            Self { lists: BTreeMap::new(), finds: BTreeMap::new(), opened: BTreeSet::new() };
        for call in calls {
            match (call.call, call.returned) {
                (
                    Call::Find { query, .. },
                    Some((_, Outcome::Ok { reply: Reply::Find { keys, .. } })),
                ) => {
                    let volume =
                        query.strip_prefix("volume ").and_then(|ids| ids.split(' ').nth(1));
                    if let Some(volume) = volume.and_then(|id| id.parse().ok()) {
                        seen.lists.entry(volume).or_default().push((call.op, keys));
                    } else if let Ok(protector) = query.parse() {
                        seen.finds.entry(protector).or_default().push((call.op, keys));
                    }
                }
                (Call::Disclose { protector, version, .. }, Some((_, outcome))) => {
                    seen.disclosed(call.op, (*protector, *version), outcome, keys, result);
                }
                _ => {}
            }
        }
        seen
    }

    fn disclosed(
        &mut self,
        op: OpId,
        asked: Key,
        outcome: &Outcome,
        keys: &BTreeMap<Key, Escrowed<'_>>,
        result: &mut CheckResult,
    ) {
        let Some(escrowed) = keys.get(&asked) else { return };
        let (protector, version) = asked;
        match outcome {
            Outcome::Ok { reply: Reply::Disclose { key, version: answered, .. } } => {
                result.count();
                if key != escrowed.key || *answered != version {
                    let what = format!(
                        "version {version} of {protector} opens to another key than was escrowed"
                    );
                    result.violate([escrowed.op, op], what);
                }
                self.opened.insert(asked);
            }
            Outcome::Refused { reason, .. } if reason == "UNKNOWN_KEY" => {
                let what =
                    format!("version {version} of {protector} was acknowledged and is not known");
                result.violate([escrowed.op, op], what);
            }
            Outcome::Ok { .. } | Outcome::Refused { .. } | Outcome::Unknown { .. } => {}
        }
    }
}

/// Looks for every acknowledged version in what a server listed. Gives how many nobody looked for.
fn listed(
    node: u64,
    keys: &BTreeMap<Key, Escrowed<'_>>,
    seen: &Seen<'_>,
    result: &mut CheckResult,
) -> u64 {
    let mut missing = 0_u64;
    let sets = |lists: &BTreeMap<Uuid, Vec<(OpId, &[Key])>>| {
        let sets = lists.iter().map(|(id, lists)| {
            let lists = lists.iter().map(|(op, keys)| (*op, keys.iter().copied().collect()));
            (*id, lists.collect::<Vec<(OpId, BTreeSet<Key>)>>())
        });
        sets.collect::<BTreeMap<_, _>>()
    };
    let (lists, finds) = (sets(&seen.lists), sets(&seen.finds));
    for (key, escrowed) in keys {
        result.count();
        let asked = lists.get(&escrowed.volume).into_iter().chain(finds.get(&key.0)).flatten();
        let mut looked = false;
        for (op, listed) in asked {
            looked = true;
            if !listed.contains(key) {
                let (protector, version) = key;
                let what = format!(
                    "version {version} of {protector} was acknowledged, and node {node} does not list it"
                );
                result.violate([escrowed.op, *op], what);
            }
        }
        if !looked && !seen.opened.contains(key) {
            missing = missing.saturating_add(1);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        DEVICE, Made, VOLUME, at_index, disclose, disclosed, escrow, id, ok, receipt, refused,
        unknown, violated_first,
    };
    use super::super::verdict::Status;
    use super::*;

    /// Two versions; the last phase lists both and opens the second through each server.
    fn run(nodes: &[u64], keys: &[Key], opened: &Outcome) -> Made {
        let mut made = Made::new();
        made.call(1, 2, escrow(1, 0), receipt(1, 1, 5));
        made.call(3, 4, escrow(2, 1), receipt(2, 2, 6));
        made.call(5, 6, escrow(3, 2), unknown());
        made.phase(10, "final");
        for node in nodes {
            let find =
                Call::Find { request: id(0x4001), query: format!("volume {DEVICE} {VOLUME}") };
            let found = Reply::Find { keys: keys.to_vec(), audit: 1, position: at_index(9) };
            made.call_of(Some(*node), (20, 21), find, ok(found));
            made.call_of(Some(*node), (22, 23), disclose(2, 2), opened.clone());
        }
        made
    }

    const BOTH: [Key; 2] = [(Uuid::from_u128(0x2001), 1), (Uuid::from_u128(0x2002), 2)];

    #[track_caller]
    fn caught(made: &Made, words: &str) {
        violated_first(&check(&History::new(&made.events)), words);
    }

    #[test]
    fn versions_that_every_server_lists_and_opens_hold() {
        let made = run(&[1, 2, 3], &BOTH, &disclosed(2, 2, 8));
        let result = check(&History::new(&made.events));
        assert_eq!(result.status, Status::Held, "{result:?}");
        assert!(result.notes.contains(&"1 of 2 versions were opened in all".to_owned()));
    }

    #[test]
    fn a_version_that_a_server_does_not_list_is_caught() {
        caught(&run(&[1, 2, 3], &BOTH[1..], &disclosed(2, 2, 8)), "node 1 does not list it");
    }

    #[test]
    fn a_key_that_opens_to_another_text_is_caught() {
        let reply = Reply::Disclose {
            key: "key-1".to_owned(),
            version: 2,
            audit: 1,
            position: at_index(9),
            repeated: false,
        };
        caught(&run(&[1, 2, 3], &BOTH, &ok(reply)), "opens to another key");
    }

    #[test]
    fn a_key_that_is_not_known_any_more_is_caught() {
        caught(&run(&[1, 2, 3], &BOTH, &refused("UNKNOWN_KEY")), "is not known");
    }

    #[test]
    fn a_server_that_was_not_read_or_opened_nothing_is_not_green() {
        for made in [
            run(&[1, 2], &BOTH, &disclosed(2, 2, 8)),
            run(&[1, 2, 3], &BOTH, &unknown()),
            run(&[], &BOTH, &unknown()),
        ] {
            let result = check(&History::new(&made.events));
            assert!(matches!(result.status, Status::NotChecked { .. }), "{result:?}");
        }
    }
}
