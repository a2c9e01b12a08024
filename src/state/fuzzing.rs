//! The state under bytes that other nodes and the disk give it.

use std::sync::Arc;

use bytes::Bytes;

use super::{Digest, Entry, Machine, MemoryStore, Position, Store as _, Table, WriteSet};
use super::{codec, query};
use crate::domain::{AuditPosition, DeviceId, KeyVersion, NodeId, ProtectorId, verify_chain};
use crate::fuzzing::parts;

/// Entries or records of one input; more only take time.
const MOST: usize = 256;
/// First byte of an entry that is a membership; any other is a command.
pub(super) const MEMBERSHIP: u8 = 0xff;
/// Stands for the tag of a table, of which there is none with this one.
pub(super) const COMMAND: u8 = 0xff;

/// Applies entries one after another to an empty state. Whatever they are, the state agrees with its digest, the audit chain
/// holds, and what was answered can be read by the node that asked.
pub(crate) fn entries(bytes: &[u8]) -> bool {
    let Ok(mut machine) = Machine::open(Arc::new(MemoryStore::default())) else { return false };
    let mut taken = false;
    for (index, part) in (1..).zip(parts(bytes).into_iter().take(MOST)) {
        let entry = match part.split_first() {
            None => Entry::Blank,
            Some((&MEMBERSHIP, rest)) => Entry::Membership {
                bytes: Bytes::copy_from_slice(rest),
                members: rest.iter().map(|id| NodeId::new(u64::from(*id))).collect(),
            },
            Some(_) => Entry::Command(Bytes::copy_from_slice(part)),
        };
        let applied = machine.apply([(Position { term: 1, index }, entry)]);
        // A local fault: this store has none.
        assert!(applied.is_ok(), "{applied:?}");
        for applied in applied.unwrap_or_default() {
            taken |= applied.outcome.is_ok();
            let read = codec::decode_applied(&codec::encode_applied(&applied));
            assert!(read.is_ok_and(|read| read == applied), "an answer changed on its way");
        }
    }
    let heads = machine.heads();
    let store = machine.store();
    assert_eq!(Digest::recount(store.records()), (heads.sum, heads.records));
    let chain = query::audit_records(store.as_ref(), 1, u64::MAX, usize::MAX);
    let verified = verify_chain(AuditPosition::default(), &chain.unwrap_or_default());
    assert_eq!(verified, Ok(heads.audit));
    taken
}

/// Opens a state that holds these records, asks it everything, and applies commands to it. It may be refused as damaged at any
/// step. True if it was whole.
///
/// Records are parts, in turn: the table's tag and the key, then the value. With [`COMMAND`] for a tag the value is a command.
pub(crate) fn records(bytes: &[u8]) -> bool {
    let store = Arc::new(MemoryStore::default());
    let mut records = WriteSet::default();
    let mut commands = vec![Bytes::from_static(b"no command")];
    for record in parts(bytes).chunks_exact(2).take(MOST) {
        let [key, value] = record else { continue };
        let (value, Some((tag, key))) = (Bytes::copy_from_slice(value), key.split_first()) else {
            continue;
        };
        match Table::from_tag(*tag) {
            Some(table) => {
                records.0.insert((table, Bytes::copy_from_slice(key)), Some(value));
            }
            None if *tag == COMMAND => commands.push(value),
            None => {}
        }
    }
    let keys: Vec<_> = records.0.keys().cloned().collect();
    if store.commit(records).is_err() {
        return false;
    }
    let asked = ask(&store, &keys);
    let Ok(mut machine) = Machine::open(store) else { return false };
    let first = machine.heads().position.map_or(0, |last| last.index.saturating_add(1));
    let entries = (0..).zip(commands).map(|(n, command)| {
        (Position { term: u64::MAX, index: first.saturating_add(n) }, Entry::Command(command))
    });
    asked && machine.apply(entries).is_ok()
}

/// Whether everything that can be asked is answered.
fn ask(store: &MemoryStore, keys: &[(Table, Bytes)]) -> bool {
    let listed = [
        query::devices(store, None, MOST).is_ok(),
        query::grants(store, None, MOST).is_ok(),
        query::denials(store, None, MOST).is_ok(),
        query::keyring(store).is_ok(),
        query::disclosure_policy(store).is_ok(),
        query::mass_recovery(store).is_ok(),
        query::approvals(store, None, MOST).is_ok(),
        query::audit_records(store, 1, u64::MAX, MOST).is_ok(),
    ];
    let mut all = listed.iter().all(|answered| *answered);
    for (_, key) in keys.iter().filter(|(table, _)| matches!(table, Table::DeviceGroups)) {
        let id = key.first_chunk::<16>().copied().unwrap_or_default();
        all &= query::groups_of(store, DeviceId::from_bytes(id)).is_ok();
    }
    for (table, key) in keys.iter().filter(|(table, _)| matches!(table, Table::Keys)) {
        let id = key.first_chunk::<16>().copied().unwrap_or_default();
        let protector = ProtectorId::from_bytes(id);
        all &= query::key(store, protector, KeyVersion::NONE).is_ok();
        all &= query::package(store, protector, KeyVersion::new(1)).is_ok();
        all &= store.get(*table, key).is_ok();
    }
    all
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    super::tests::fuzzing_seeds()
}

/// A command and its answer, as they go from node to node.
#[cfg(test)]
pub(crate) fn command_and_answer() -> (Bytes, Bytes) {
    super::tests::command_and_answer()
}
