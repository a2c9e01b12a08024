//! I3, I4, I8: the view is a store like the one in memory, whatever was flushed, frozen, reopened or damaged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::state::{Digest, MemoryStore};

/// Small sizes, so that overlays turn over.
fn small() -> ViewOptions {
    ViewOptions {
        overlay_bytes: 1 << 20,
        flush_bytes: 4096,
        overlay_age: Duration::from_millis(5),
        cache_bytes: 1 << 20,
    }
}

/// Applies changes to a model, and gives the commit with the heads that describe the model afterwards.
fn described(model: &MemoryStore, changes: WriteSet, index: u64) -> WriteSet {
    model.commit(changes.clone()).unwrap();
    let (sum, records) = Digest::recount(model.records());
    let position = Some(Position { term: 1, index });
    let heads = Heads { position, sum, records, ..Heads::default() };
    let (table, key) = Heads::record_key();
    let mut changes = changes;
    changes.0.insert((table, key.into()), Some(heads.encode()));
    model.commit(changes.clone()).unwrap();
    changes
}

fn put(table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) -> WriteSet {
    WriteSet([((table, key.into()), Some(value.into()))].into())
}

/// The `index`th commit of a script that overwrites, removes, appends to and trims tables.
fn step(index: u64) -> WriteSet {
    let mut changes = WriteSet::default();
    let key = |n: u64| Bytes::copy_from_slice(&n.to_be_bytes());
    for n in 0..20 {
        let value = Some(Bytes::from(vec![
            u8::try_from(n % 256).unwrap();
            40 + usize::try_from(index % 50).unwrap()
        ]));
        changes.0.insert((Table::Keys, key((index * 7 + n * 13) % 500)), value.clone());
        changes.0.insert((Table::Audit, key(index * 20 + n)), value.clone());
        changes.0.insert((Table::Requests, key(index * 20 + n)), value);
        if index >= 10 {
            changes.0.insert((Table::Requests, key((index - 10) * 20 + n)), None);
        }
    }
    changes.0.insert((Table::Keys, key(index % 500)), None);
    changes
}

fn same(view: &View, model: &MemoryStore) {
    let frozen: Vec<_> = view.freeze().unwrap().map(Result::unwrap).collect();
    differ(&frozen, &model.records());
    for table in Table::ALL {
        let (prefix, from): (&[u8], &[u8]) = (b"", b"");
        let scanned = view.scan(table, prefix, from, 10_000).unwrap();
        differ(&scanned, &model.scan(table, prefix, from, 10_000).unwrap());
    }
}

/// Fails with the first difference only: the whole would fill the screen.
fn differ<T: PartialEq + std::fmt::Debug>(found: &[T], wanted: &[T]) {
    let first = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
    if let Some(at) = first {
        panic!("record {at} is {:?} and should be {:?}", found[at], wanted[at]);
    }
    assert_eq!(found.len(), wanted.len(), "records");
}

fn bytes_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(bytes_under(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[derive(Debug, Clone)]
enum Act {
    Put(usize, u16, u8),
    Append(usize, u8),
    Trim(usize, u8),
    Remove(usize, u16),
    Flush,
    Freeze,
    Reopen(bool),
    Scan(usize, u16, usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (0..3_usize, 0..300_u16, any::<u8>()).prop_map(|(t, k, v)| Act::Put(t, k, v)),
        8 => (0..2_usize, 1..90_u8).prop_map(|(t, n)| Act::Append(t, n)),
        4 => (0..2_usize, 1..90_u8).prop_map(|(t, n)| Act::Trim(t, n)),
        3 => (0..3_usize, 0..300_u16).prop_map(|(t, k)| Act::Remove(t, k)),
        2 => Just(Act::Flush),
        1 => Just(Act::Freeze),
        1 => any::<bool>().prop_map(Act::Reopen),
        6 => (0..5_usize, 0..300_u16, 1..100_usize).prop_map(|(t, k, l)| Act::Scan(t, k, l)),
    ];
    proptest::collection::vec(act, 1..60)
}

const PLAIN: [Table; 3] = [Table::Devices, Table::Keys, Table::Quotas];
/// A key of the shape that its table has.
fn plain_key(table: Table, n: u16) -> Vec<u8> {
    let n = n.to_be_bytes();
    if table == Table::Keys { [&n[..], &[7; 14], &[0xff; 4]].concat() } else { n.to_vec() }
}

const PACKED: [Table; 2] = [Table::Audit, Table::Requests];

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i3_a_view_answers_like_a_store_in_memory(acts in acts()) {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("view");
        let mut view = View::open(&home, small()).unwrap();
        let model = MemoryStore::default();
        let mut ranges = [(1_u64, 1_u64); 2];
        for (index, act) in acts.into_iter().enumerate() {
            let mut changes = WriteSet::default();
            match act {
                Act::Put(table, key, value) => {
                    changes = put(PLAIN[table], plain_key(PLAIN[table], key), vec![value; 30]);
                }
                Act::Remove(table, key) => {
                    changes.0.insert((PLAIN[table], plain_key(PLAIN[table], key).into()), None);
                }
                Act::Append(table, count) => for _ in 0..count {
                    let key = Bytes::copy_from_slice(&ranges[table].1.to_be_bytes());
                    changes.0.insert((PACKED[table], key), Some(vec![count; 9].into()));
                    ranges[table].1 += 1;
                },
                Act::Trim(table, count) => for _ in 0..count {
                    if ranges[table].0 < ranges[table].1 {
                        let key = Bytes::copy_from_slice(&ranges[table].0.to_be_bytes());
                        changes.0.insert((PACKED[table], key), None);
                        ranges[table].0 += 1;
                    }
                },
                Act::Flush => view.flush().unwrap(),
                Act::Freeze => same(&view, &model),
                Act::Reopen(clean) => {
                    if clean { view.close_clean().unwrap() } else { view.flush().unwrap() }
                    drop(view);
                    view = View::open(&home, small()).unwrap();
                    prop_assert_eq!(view.opened_clean(), clean);
                    view.verify().unwrap();
                }
                Act::Scan(table, key, limit) => {
                    let table = PLAIN.into_iter().chain(PACKED).nth(table).unwrap();
                    let from = if table.is_sequential() { u64::from(key).to_be_bytes().to_vec() }
                        else { plain_key(table, key) };
                    for prefix in [&b""[..], &from[..1], &from[..from.len().min(16)]] {
                        prop_assert_eq!(view.scan(table, prefix, &from, limit).unwrap(), model.scan(table, prefix, &from, limit).unwrap());
                    }
                }
            }
            view.commit(described(&model, changes, index as u64)).unwrap();
        }
        same(&view, &model);
    }
}

#[test]
fn i3_a_frozen_view_equals_the_state_of_its_moment_while_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let view = Arc::new(View::open(&dir.path().join("view"), small()).unwrap());
    let model = MemoryStore::default();
    for index in 0..60 {
        view.commit(described(&model, step(index), index)).unwrap();
    }
    let expected = model.records();
    let mut frozen = view.freeze().unwrap();
    assert_eq!(frozen.heads().unwrap().position, Some(Position { term: 1, index: 59 }));
    let mut seen = Vec::new();
    for index in 60..90 {
        view.commit(described(&model, step(index), index)).unwrap();
        view.flush().unwrap();
        seen.extend(frozen.by_ref().take(20).map(Result::unwrap));
    }
    seen.extend(frozen.map(Result::unwrap));
    assert_eq!(seen, expected);
    assert!(view.inner.exports.lock().is_empty(), "a finished export costs the writer nothing");
}

#[test]
fn i3_commits_wait_at_the_cap_and_go_on_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let view = Arc::new(View::open(&dir.path().join("view"), small()).unwrap());
    view.inner.control.lock().held = true;
    view.commit(put(Table::Keys, "a", vec![0; 2 << 20])).unwrap();
    assert!(!view.has_room());
    let second = Arc::clone(&view);
    let (sender, done) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        second.commit(put(Table::Keys, "b", "b")).unwrap();
        sender.send(()).unwrap();
    });
    assert!(done.recv_timeout(Duration::from_millis(100)).is_err(), "the commit did not wait");
    assert_eq!(view.get(Table::Keys, b"b").unwrap(), None);
    view.inner.control.lock().held = false;
    view.inner.wake.notify_all();
    done.recv_timeout(Duration::from_secs(20)).unwrap();
    waiting.join().unwrap();
    assert_eq!(view.get(Table::Keys, b"b").unwrap(), Some("b".into()));
}

#[test]
fn i3_a_write_that_stopped_half_way_is_finished_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("view");
    let model = MemoryStore::default();
    let view = View::open(&home, small()).unwrap();
    for index in 0..10 {
        view.commit(described(&model, step(index), index)).unwrap();
    }
    view.flush().unwrap();
    view.inner.control.lock().held = true;
    view.commit(described(&model, step(10), 10)).unwrap();
    // The process dies after a third of the engine's writes.
    {
        let overlays = view.inner.overlays.read();
        let slot = view.inner.engine.read();
        let engine = slot.as_deref().unwrap();
        let writes = inner::engine_writes(engine, &overlays.active).unwrap();
        redo::write(&view.inner.home.as_ref().unwrap().lock().redo_path(), &writes).unwrap();
        engine.apply(&writes[..writes.len() / 3]).unwrap();
        engine.flush().unwrap();
    }
    drop(view);
    let view = View::open(&home, small()).unwrap();
    assert!(!view.opened_clean());
    view.verify().unwrap();
    same(&view, &model);
}

#[test]
fn i4_a_record_lost_or_added_behind_the_heads_is_found() {
    for lose in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let view = View::open(&dir.path().join("view"), small()).unwrap();
        let model = MemoryStore::default();
        for index in 0..10 {
            view.commit(described(&model, step(index), index)).unwrap();
        }
        view.flush().unwrap();
        view.verify().unwrap();
        let key = if lose { 20_u64 } else { 1_000_000 }.to_be_bytes();
        let value = Bytes::from("v");
        let write = inner::plain(Table::Keys, &key, (!lose).then_some(&value));
        view.inner.engine.read().as_deref().unwrap().apply(&[write]).unwrap();
        assert!(matches!(view.verify(), Err(ViewError::Digest { .. })));
    }
}

#[test]
fn i8_a_flipped_bit_in_the_files_never_gives_a_wrong_value() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("view");
    let model = MemoryStore::default();
    let view = View::open(&home, small()).unwrap();
    let mut states = vec![model.records()];
    for index in 0..15 {
        view.commit(described(&model, step(index), index)).unwrap();
        states.push(model.records());
    }
    view.close_clean().unwrap();
    drop(view);
    let files: Vec<_> =
        bytes_under(&home).into_iter().filter(|path| !path.ends_with("CURRENT")).collect();
    let whole: Vec<_> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let mut refused = 0;
    for round in 0..30_usize {
        let at = round % files.len();
        if whole[at].is_empty() {
            continue;
        }
        // Without the marker of an orderly stop every other round, so that the records themselves are checked.
        let copy = tempfile::tempdir().unwrap();
        let to = copy.path().join("view");
        for (index, (path, bytes)) in files.iter().zip(&whole).enumerate() {
            if round % 2 == 1 && path.ends_with("CLEAN") {
                continue;
            }
            let mut bytes = bytes.clone();
            if index == at {
                let byte = (round * 7919) % bytes.len();
                bytes[byte] ^= 1 << (round % 8);
            }
            let path = to.join(path.strip_prefix(&home).unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), &bytes).unwrap();
        }
        std::fs::copy(home.join("CURRENT"), to.join("CURRENT")).unwrap();
        // The engine panics on some damage; recovery takes that for a refusal, and so does this test.
        let open = || {
            let view = View::open(&to, small())?;
            if !view.opened_clean() {
                view.verify()?;
            }
            Ok::<_, ViewError>(view)
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)) {
            Ok(Ok(view)) if view.opened_clean() => same(&view, &model),
            // After any other stop the engine may come back with an earlier state, as long as that is whole: the log has
            // what follows.
            Ok(Ok(view)) => {
                let found: Vec<_> = view.freeze().unwrap().map(Result::unwrap).collect();
                assert!(states.contains(&found), "round {round}, {}", files[at].display());
            }
            Ok(Err(_)) | Err(_) => refused += 1,
        }
    }
    assert!(refused > 0, "no flip was noticed");
}

/// The filter of known keys must never hide a key, whichever way it came into the view.
#[test]
fn i8_a_key_is_found_whichever_way_it_came_into_the_view() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("view");
    let found = |view: &View, n: u16, how: &str| {
        let (key, value) = (plain_key(Table::Keys, n), Bytes::from(format!("{n}")));
        assert_eq!(view.get(Table::Keys, &key).unwrap(), Some(value.clone()), "{n} {how}");
        let scanned = view.scan(Table::Keys, &key[..16], b"", 5).unwrap();
        assert_eq!(scanned, [(Bytes::from(key), value)], "{n} {how}");
        assert!(
            view.scan(Table::Keys, &plain_key(Table::Keys, 999)[..16], b"", 5).unwrap().is_empty()
        );
    };
    let add = |view: &View, model: &MemoryStore, n: u16| {
        let changes = put(Table::Keys, plain_key(Table::Keys, n), format!("{n}"));
        view.commit(described(model, changes, u64::from(n))).unwrap();
    };
    let model = MemoryStore::default();
    let view = View::open(&home, small()).unwrap();
    add(&view, &model, 1);
    found(&view, 1, "committed");
    view.flush().unwrap();
    found(&view, 1, "in the engine");
    view.close_clean().unwrap();
    let view = View::open(&home, small()).unwrap();
    assert!(view.opened_clean());
    assert!(view.inner.overlays.read().known.is_some(), "an orderly stop leaves the filter");
    found(&view, 1, "after an orderly stop");
    add(&view, &model, 2);
    view.flush().unwrap();
    drop(view);
    let view = View::open(&home, small()).unwrap();
    assert!(!view.opened_clean());
    found(&view, 2, "after a crash");
    view.verify().unwrap();
    assert!(view.inner.overlays.read().known.is_some(), "the check builds the filter");
    (1..=2).for_each(|n| found(&view, n, "after the check"));
    let other = View::open(&dir.path().join("other"), small()).unwrap();
    add(&other, &MemoryStore::default(), 5);
    other.reset_from(model.records().into_iter().map(Ok::<_, ViewError>)).unwrap();
    (1..=2).for_each(|n| found(&other, n, "after a replacement"));
    add(&other, &model, 3);
    (1..=3).for_each(|n| found(&other, n, "committed after a replacement"));
}

/// Without the filter of an orderly stop the records are read, not believed.
#[test]
fn a_view_whose_filter_is_missing_counts_as_not_closed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("view");
    let view = View::open(&home, small()).unwrap();
    view.commit(put(Table::Keys, plain_key(Table::Keys, 1), "1")).unwrap();
    view.inner.overlays.write().known = None;
    view.close_clean().unwrap();
    let view = View::open(&home, small()).unwrap();
    assert!(!view.opened_clean());
}

#[test]
fn a_closed_view_refuses_everything() {
    let view = View::in_memory();
    view.commit(put(Table::Keys, "a", "1")).unwrap();
    view.close_clean().unwrap();
    assert!(view.get(Table::Keys, b"a").is_err());
    assert!(view.commit(put(Table::Keys, "a", "2")).is_err());
    assert!(view.flush().is_err());
}
