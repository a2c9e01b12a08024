//! What the engine and the files beside it give back.

use bytes::Bytes;

use super::known::Known;
use super::{frozen, record, redo};
use crate::fuzzing::parts;

/// Reads an engine key and its value, a redo file and a filter of known keys: parts, by the first byte. The value and the redo
/// file are read as they are, and with their checksums mended.
pub(crate) fn reads(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else { return false };
    match kind {
        0 => pair(rest),
        1 => redo_file(rest),
        _ => Known::decode(rest).is_ok_and(|known| {
            assert!(Known::decode(&known.encode()).is_ok_and(|again| again == known));
            true
        }),
    }
}

fn pair(bytes: &[u8]) -> bool {
    let parts = parts(bytes);
    let [key, payload, ..] = parts.as_slice() else { return false };
    let key = Bytes::copy_from_slice(key);
    let as_it_is = frozen::unpack(&key, &Bytes::copy_from_slice(payload)).is_ok();
    let records = frozen::unpack(&key, &record::seal(&key, payload));
    records.is_ok_and(|records| {
        let keys = records.iter().map(|(_, (key, _))| key);
        assert!(keys.is_sorted_by(|a, b| a < b), "records of a block are not in order");
        true
    }) || as_it_is
}

fn redo_file(bytes: &[u8]) -> bool {
    let as_it_is = redo::decode(Bytes::copy_from_slice(bytes)).is_some();
    let body = bytes.get(..bytes.len().saturating_sub(4)).unwrap_or_default();
    let mended = [body, &crc32c::crc32c(body).to_le_bytes()].concat();
    redo::decode(mended.into()).is_some() || as_it_is
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    use super::engine::EngineWrite;
    use super::pack;
    use crate::fuzzing::join;
    use crate::state::Table;

    let block = [(64, Bytes::from_static(b"first")), (66, Bytes::from_static(b"third"))].into();
    let pairs = [
        ("record", record::engine_key(Table::Keys, &[3; 20]), Bytes::from_static(b"a key")),
        ("block", pack::block_key(Table::Audit, 64), pack::encode(&block).unwrap()),
    ];
    let mut seeds: Vec<crate::fuzzing::Seed> = Vec::new();
    for (name, key, payload) in pairs {
        let bytes = [&[0], join([&key, &payload]).as_slice()].concat();
        seeds.push(("view", name.to_owned(), bytes));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redo");
    let writes: Vec<EngineWrite> = vec![("a".into(), Some("1".into())), ("b".into(), None)];
    redo::write(&path, &writes).unwrap();
    let whole = std::fs::read(&path).unwrap();
    seeds.push(("view", "redo".to_owned(), [&[1], whole.as_slice()].concat()));
    // A filter with ids is some hundred kilobytes long: too long a seed.
    let known = Known::default().encode();
    seeds.push(("view", "no-known-keys".to_owned(), [&[2], known.as_slice()].concat()));
    seeds
}
