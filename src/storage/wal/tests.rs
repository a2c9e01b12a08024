//! Claims about the log, on a simulated disk.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::fs::FsFile as _;
use crate::fs::sim::{SimFs, Survivors};

mod faults;

const DIR: &str = "/wal";

fn options() -> WalOptions {
    WalOptions { segment_bytes: 8192, cache_bytes: 4096, must_exist: false, inline: true }
}

fn open(fs: &SimFs) -> Result<Wal<SimFs>, WalError> {
    Wal::open(fs.clone(), Path::new(DIR), options())
}

fn at(term: u64, index: u64) -> Position {
    Position { term, index }
}

fn entry(term: u64, index: u64, bytes: usize) -> LogEntry {
    let fill = u8::try_from(term.wrapping_mul(31).wrapping_add(index) % 251).unwrap();
    LogEntry { id: at(term, index), payload: Payload::Command(Bytes::from(vec![fill; bytes])) }
}

/// Whether a request was acknowledged.
type Ack = Arc<Mutex<Option<bool>>>;

fn ack() -> (Ack, Done) {
    let ack = Ack::default();
    let noted = ack.clone();
    (ack, Box::new(move |result| *noted.lock() = Some(result.is_ok())))
}

fn acked(ack: &Ack) -> bool {
    *ack.lock() == Some(true)
}

fn ignore() -> Done {
    Box::new(|_| {})
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    for index in 0..100 {
        wal.append(vec![entry(1, index, 300)], ignore()).unwrap();
    }
    wal.save_vote(Vote { term: 2, voted_for: Some(3), committed: false }, ignore()).unwrap();
    wal.close();
    let wal = open(&fs.restart()).unwrap();
    assert_eq!(wal.last(), Some(at(1, 99)));
    assert_eq!(wal.vote(), Some(Vote { term: 2, voted_for: Some(3), committed: false }));
    let entries = wal.read(0, u64::MAX, usize::MAX).unwrap();
    assert_eq!(entries, (0..100).map(|index| entry(1, index, 300)).collect::<Vec<_>>());
    assert_eq!(wal.read(10, 20, 700).unwrap().len(), 2);
    assert_eq!(wal.read(10, 20, 0).unwrap().len(), 1);
}

#[test]
fn a_gap_and_an_oversize_entry_are_refused_and_change_nothing() {
    let wal = open(&SimFs::new()).unwrap();
    wal.append(vec![entry(1, 0, 10)], ignore()).unwrap();
    assert!(matches!(wal.append(vec![entry(1, 2, 10)], ignore()), Err(WalError::Invalid { .. })));
    let large = entry(1, 1, ENTRY_BYTES + 1);
    assert!(matches!(wal.append(vec![large], ignore()), Err(WalError::Invalid { .. })));
    assert_eq!(wal.last(), Some(at(1, 0)));
    wal.append(vec![entry(1, 1, ENTRY_BYTES)], ignore()).unwrap();
    assert_eq!(wal.durable_index(), Some(1));
}

#[test]
fn i1_a_failed_fsync_is_reported_and_nothing_is_tried_again() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    fs.fail_sync(1);
    let (first, done) = ack();
    wal.append(vec![entry(1, 0, 10)], done).unwrap();
    assert_eq!(*first.lock(), Some(false));
    assert_eq!(wal.durable_index(), None);
    let syncs = fs.syncs();
    let (_, done) = ack();
    assert!(matches!(wal.append(vec![entry(1, 1, 10)], done), Err(WalError::Poisoned(_))));
    assert!(wal.failure().is_some());
    wal.close();
    assert_eq!(fs.syncs(), syncs, "a poisoned log must not sync again");
}

#[test]
fn i1_what_a_failed_fsync_left_in_memory_is_written_again_before_anything_follows_it() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    wal.append(vec![entry(1, 0, 10)], ignore()).unwrap();
    fs.fail_sync(1);
    wal.append(vec![entry(1, 1, 700)], ignore()).unwrap();
    assert!(wal.failure().is_some());
    // Another process finds the bytes, which the kernel takes for clean, and builds on them.
    let fs = fs.restart();
    let wal = open(&fs).unwrap();
    assert_eq!(wal.last(), Some(at(1, 1)));
    let (third, done) = ack();
    wal.append(vec![entry(1, 2, 10)], done).unwrap();
    assert!(acked(&third));
    let wal = open(&fs.crash(Survivors::None)).unwrap();
    assert_eq!(wal.last(), Some(at(1, 2)));
}

#[test]
fn i6_a_segment_that_was_cut_off_is_refused_even_at_a_batch_s_end() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    wal.append(vec![entry(1, 0, 300)], ignore()).unwrap();
    let end = wal.disk_bytes() + 512;
    wal.append(vec![entry(1, 1, 300)], ignore()).unwrap();
    drop(wal);
    let first = segments(&fs)[0].clone();
    fs.open(&first, crate::fs::OpenMode::ReadWrite).unwrap().set_len(end).unwrap();
    let Err(error) = open(&fs.restart()) else { panic!("it opened") };
    assert!(error.to_string().contains("was cut off"), "{error}");
}

#[test]
fn i1_an_acknowledged_entry_survives_a_power_cut_right_after() {
    for survivors in [Survivors::None, Survivors::All, Survivors::Random(7)] {
        let fs = SimFs::new();
        let wal = open(&fs).unwrap();
        let (first, done) = ack();
        wal.append(vec![entry(1, 0, 700)], done).unwrap();
        assert!(acked(&first));
        let wal = open(&fs.crash(survivors)).unwrap();
        assert_eq!(wal.read(0, 9, usize::MAX).unwrap(), vec![entry(1, 0, 700)]);
    }
}

#[test]
fn i6_a_torn_tail_is_dropped() {
    for kept in [0, 40, 512, 700] {
        let fs = SimFs::new();
        let wal = open(&fs).unwrap();
        wal.append(vec![entry(1, 0, 700)], ignore()).unwrap();
        fs.tear_write(1, kept);
        let (second, done) = ack();
        wal.append(vec![entry(1, 1, 1500)], done).unwrap();
        assert!(!acked(&second));
        let fs = fs.crash(Survivors::All);
        let torn = super::recover::recover(&fs, Path::new(DIR), 0).unwrap().torn;
        assert_eq!(torn.is_some(), kept > 0, "what is dropped is told");
        let wal = open(&fs).unwrap();
        assert_eq!(wal.last(), Some(at(1, 0)), "{kept} bytes of the second batch were kept");
        wal.append(vec![entry(2, 1, 20)], ignore()).unwrap();
        assert_eq!(open(&fs.restart()).unwrap().last(), Some(at(2, 1)));
    }
}

fn segments(fs: &SimFs) -> Vec<std::path::PathBuf> {
    fs.read_dir(Path::new(DIR)).unwrap().iter().map(|name| Path::new(DIR).join(name)).collect()
}

fn filled(fs: &SimFs) -> Wal<SimFs> {
    let wal = open(fs).unwrap();
    wal.save_vote(Vote { term: 1, voted_for: Some(1), committed: true }, ignore()).unwrap();
    for index in 0..60 {
        wal.append(vec![entry(1, index, 500)], ignore()).unwrap();
    }
    wal
}

#[test]
fn i6_a_flipped_bit_anywhere_before_the_last_batch_is_refused_with_the_file_and_a_way_out() {
    let fs = SimFs::new();
    filled(&fs).close();
    let files = segments(&fs);
    assert!(files.len() > 3);
    for (file, offset) in [(0, 3), (0, 30), (0, 512), (0, 600), (0, 2000), (1, 700), (2, 513)] {
        let broken = fs.restart();
        let broken = broken.crash(Survivors::All);
        broken.flip_bit(&files[file], offset, 2).unwrap();
        let error = open(&broken).err().unwrap_or_else(|| panic!("{file} {offset} was taken"));
        let text = error.to_string();
        assert!(matches!(error, WalError::Damaged { .. }), "{text}");
        assert!(text.contains(".log") && text.contains("fresh node id"), "{text}");
    }
}

#[test]
fn i6_the_last_batch_of_a_log_that_was_closed_in_order_is_no_torn_tail() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    wal.save_vote(Vote { term: 1, voted_for: Some(1), committed: false }, ignore()).unwrap();
    wal.close();
    let file = segments(&fs)[0].clone();
    fs.flip_bit(&file, 560, 0).unwrap();
    assert!(matches!(open(&fs.restart()), Err(WalError::Damaged { .. })));
}

#[test]
fn i6_a_deleted_segment_is_refused_unless_all_of_it_was_purged() {
    let fs = SimFs::new();
    filled(&fs).close();
    for victim in 0..segments(&fs).len() - 1 {
        let broken = fs.crash(Survivors::All);
        broken.remove_file(&segments(&broken)[victim]).unwrap();
        let result = open(&broken);
        assert!(matches!(result, Err(WalError::Damaged { .. })), "segment {victim} was not missed");
    }
}

#[test]
fn purging_removes_whole_segments_and_keeps_vote_and_bound() {
    let fs = SimFs::new();
    let wal = filled(&fs);
    let before = segments(&fs).len();
    wal.purge(at(1, 40), ignore()).unwrap();
    assert!(segments(&fs).len() < before);
    assert_eq!(wal.read(0, u64::MAX, usize::MAX).unwrap().len(), 19);
    let wal = open(&fs.crash(Survivors::None)).unwrap();
    assert_eq!((wal.purged(), wal.last()), (Some(at(1, 40)), Some(at(1, 59))));
    assert_eq!(wal.vote(), Some(Vote { term: 1, voted_for: Some(1), committed: true }));
    assert_eq!(wal.read(0, u64::MAX, usize::MAX).unwrap().len(), 19);
}

#[test]
fn purging_beyond_the_end_makes_the_log_begin_there() {
    let fs = SimFs::new();
    let wal = filled(&fs);
    wal.purge(at(3, 500), ignore()).unwrap();
    assert_eq!(wal.last(), Some(at(3, 500)));
    wal.append(vec![entry(3, 501, 10)], ignore()).unwrap();
    let wal = open(&fs.restart()).unwrap();
    assert_eq!((wal.purged(), wal.last()), (Some(at(3, 500)), Some(at(3, 501))));
}

#[test]
fn i9_on_a_full_disk_the_reserve_keeps_votes_going_and_room_is_noticed_again() {
    let fs = SimFs::new();
    let wal = filled(&fs);
    assert_eq!(wal.space(), Space::Plenty);
    fs.set_capacity(Some(fs.used_bytes()));
    let mut index = 60;
    while wal.space() == Space::Plenty {
        wal.append(vec![entry(1, index, 500)], ignore()).unwrap();
        index += 1;
        assert!(index < 200, "the disk never became full");
    }
    for term in 2..20 {
        let (saved, done) = ack();
        wal.save_vote(Vote { term, voted_for: Some(2), committed: false }, done).unwrap();
        assert!(acked(&saved), "vote {term} did not fit into the reserve");
    }
    fs.set_capacity(None);
    wal.save_vote(Vote { term: 30, voted_for: Some(2), committed: false }, ignore()).unwrap();
    assert_eq!(wal.space(), Space::Plenty);
    assert!(wal.failure().is_none());
}

/// What a model of the log expects after a crash.
#[derive(Clone, Default)]
struct Model {
    /// Acknowledged log: position and payload length by index.
    entries: std::collections::BTreeMap<u64, (u64, usize)>,
    vote: Option<Vote>,
    purged: Option<Position>,
    /// Committed positions that were saved; any of them may be found, or none.
    committed: Vec<Position>,
}

#[derive(Clone)]
enum Op {
    Append(Vec<(u64, u64, usize)>),
    Vote(Vote),
    Committed(Position),
    Truncate(Option<Position>),
    Purge(Position),
    Reopen,
}

impl Model {
    fn last(&self) -> Option<Position> {
        let last = self.entries.iter().next_back().map(|(index, (term, _))| at(*term, *index));
        last.or(self.purged)
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(entries) => {
                self.entries
                    .extend(entries.iter().map(|(term, index, bytes)| (*index, (*term, *bytes))));
            }
            Op::Vote(vote) => self.vote = Some(*vote),
            Op::Truncate(last) => {
                self.entries.split_off(&last.map_or(0, |last| last.index + 1));
            }
            Op::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index + 1));
                self.purged = self.purged.max(Some(*upto));
            }
            Op::Committed(position) => self.committed.push(*position),
            Op::Reopen => {}
        }
    }
}

/// 200 operations that are all legal, with their state after each.
fn script(seed: u64) -> Vec<Op> {
    let mut dice = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    let mut term = 1;
    let mut ops = Vec::new();
    while ops.len() < 200 {
        let next = model.last().map_or(0, |last| last.index + 1);
        let op = match dice.random_range(0..20) {
            0..=10 => {
                let count = dice.random_range(1..4);
                let sizes = (0..count).map(|n| (term, next + n, dice.random_range(0..1200)));
                Op::Append(sizes.collect())
            }
            11..=13 => {
                term += 1;
                Op::Vote(Vote {
                    term,
                    voted_for: Some(dice.random_range(1..4)),
                    committed: dice.random(),
                })
            }
            14 => match model.last() {
                Some(last) => Op::Committed(last),
                None => continue,
            },
            15 | 16 => {
                // Anywhere behind the purge bound, that bound itself and the log's beginning included.
                let places: Vec<Option<Position>> = std::iter::once(model.purged)
                    .chain(model.entries.iter().map(|(index, (term, _))| Some(at(*term, *index))))
                    .collect();
                let near_the_end = places.len().saturating_sub(dice.random_range(2..7));
                let anywhere = dice.random_range(0..places.len());
                Op::Truncate(places[if dice.random() { near_the_end } else { anywhere }])
            }
            17 | 18 => {
                let indexes: Vec<u64> = model.entries.keys().copied().collect();
                match indexes.get(indexes.len() * dice.random_range(1..4) / 4) {
                    Some(_) if dice.random_range(0..6) == 0 => Op::Purge(at(term, next + 3)),
                    Some(index) => Op::Purge(at(model.entries[index].0, *index)),
                    None => continue,
                }
            }
            _ => Op::Reopen,
        };
        model.apply(&op);
        ops.push(op);
    }
    ops
}

/// Runs the script until the power goes; returns the model as acknowledged, and the operation that was under way.
fn run(fs: &SimFs, ops: &[Op]) -> (Model, Option<Op>) {
    let mut model = Model::default();
    let Ok(mut wal) = open(fs) else { return (model, None) };
    for op in ops {
        let (done_ack, done) = ack();
        let submitted = match op {
            Op::Append(entries) => {
                let entries = entries
                    .iter()
                    .map(|(term, index, bytes)| entry(*term, *index, *bytes))
                    .collect();
                wal.append(entries, done)
            }
            Op::Vote(vote) => wal.save_vote(*vote, done),
            Op::Committed(position) => wal.save_committed(Some(*position)).map(|()| done(Ok(()))),
            Op::Truncate(last) => wal.truncate_after(*last, done),
            Op::Purge(upto) => wal.purge(*upto, done),
            Op::Reopen => {
                wal.close();
                let Ok(next) = open(fs) else { return (model, None) };
                wal = next;
                done(Ok(()));
                Ok(())
            }
        };
        if submitted.is_err() || !acked(&done_ack) {
            return (model, Some(op.clone()));
        }
        model.apply(op);
    }
    (model, None)
}

/// Whether the reopened log is the model, or the model after the operation that was under way.
fn check(wal: &Wal<SimFs>, model: &Model, under_way: Option<&Op>) -> Result<(), String> {
    let entries = wal.read(0, u64::MAX, usize::MAX).map_err(|error| error.to_string())?;
    let found: Vec<_> =
        entries.iter().map(|e| (e.id.index, e.id.term, e.payload.bytes().len())).collect();
    let whole = entries.iter().all(|e| *e == entry(e.id.term, e.id.index, e.payload.bytes().len()));
    let state = (found, wal.vote(), wal.purged());
    let of = |model: &Model| {
        let entries: Vec<_> = model.entries.iter().map(|(i, (t, b))| (*i, *t, *b)).collect();
        (entries, model.vote, model.purged)
    };
    let mut after = model.clone();
    under_way.into_iter().for_each(|op| after.apply(op));
    let committed = wal.committed();
    let known = committed.is_none_or(|at| after.committed.contains(&at));
    if whole && known && (state == of(model) || state == of(&after)) {
        return Ok(());
    }
    Err(format!(
        "found {state:?}, committed {committed:?}\nacknowledged {:?}\nwith what was under way {:?}",
        of(model),
        of(&after)
    ))
}

/// How often a script appends, votes, saves the committed position, truncates, purges and reopens.
fn kinds(ops: &[Op]) -> [usize; 6] {
    let mut kinds = [0; 6];
    for op in ops {
        kinds[match op {
            Op::Append(_) => 0,
            Op::Vote(_) => 1,
            Op::Committed(_) => 2,
            Op::Truncate(_) => 3,
            Op::Purge(_) => 4,
            Op::Reopen => 5,
        }] += 1;
    }
    kinds
}

#[test]
fn i1_i6_every_crash_point_of_200_operations_keeps_what_was_acknowledged_and_nothing_else() {
    for seed in [1, 2] {
        let ops = script(seed);
        assert!(kinds(&ops).iter().all(|count| *count >= 4), "{:?}", kinds(&ops));
        let whole = SimFs::new();
        let (_, left) = run(&whole, &ops);
        assert!(left.is_none(), "the script does not run to its end");
        let newest = segments(&whole).last().cloned().unwrap();
        let switched = newest.to_string_lossy().ends_with("00.log");
        assert!(!switched, "no segment was ever switched: {newest:?}");
        let points = whole.operations();
        assert!(points > 400, "only {points} crash points");
        (0..points).for_each(|point| crash_at(&ops, point));
    }
}

/// Runs the script until the power goes at an operation of the disk, and looks at what may have survived.
fn crash_at(ops: &[Op], point: u64) {
    let fs = SimFs::new();
    fs.power_cut_at(point);
    let (model, under_way) = run(&fs, ops);
    let outcomes =
        [Survivors::None, Survivors::All, Survivors::Random(point), Survivors::Random(!point)];
    for survivors in outcomes {
        let after = fs.crash(survivors);
        let wal = open(&after)
            .unwrap_or_else(|error| panic!("crash point {point}, {survivors:?}: {error}"));
        check(&wal, &model, under_way.as_ref())
            .unwrap_or_else(|what| panic!("crash point {point}, {survivors:?}: {what}"));
        wal.append(vec![entry(900, wal.last().map_or(0, |last| last.index + 1), 50)], ignore())
            .unwrap();
        assert!(open(&after.restart()).is_ok(), "crash point {point}: not open after going on");
    }
}

#[test]
fn the_crash_test_catches_a_disk_that_forgets_to_sync() {
    let ops = script(1);
    let mut caught = 0;
    for point in (0..300).step_by(10) {
        let fs = SimFs::new();
        fs.lying_sync(true);
        fs.power_cut_at(point);
        let (model, under_way) = run(&fs, &ops);
        let verdict = open(&fs.crash(Survivors::None))
            .map_err(|error| error.to_string())
            .and_then(|wal| check(&wal, &model, under_way.as_ref()));
        caught += u32::from(verdict.is_err());
    }
    assert!(caught > 10, "only {caught} of 30 lost writes were noticed");
}
