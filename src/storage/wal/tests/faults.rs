//! Claims about the log after a disk that failed, a crash at a bad moment, and bytes that nobody wrote.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::super::format::{BatchBuilder, SegmentHeader};
use super::super::recover;
use super::*;
use crate::fs::{Fs as _, OpenMode};

fn held(wal: &Wal<SimFs>) -> Vec<LogEntry> {
    wal.read(0, u64::MAX, usize::MAX).unwrap()
}

/// Votes until another segment has begun.
fn vote_into_the_next_segment(fs: &SimFs, wal: &Wal<SimFs>) {
    let newest = segments(fs).pop();
    let mut term = 2;
    while segments(fs).pop() == newest {
        wal.save_vote(Vote { term, voted_for: Some(1), committed: false }, ignore()).unwrap();
        term += 1;
    }
}

/// A log whose writer never runs: everything stays queued.
fn stalled(fs: &SimFs) -> Wal<SimFs> {
    let dir = Path::new(DIR);
    let found = recover::recover(fs, dir, 4096).unwrap();
    let options = WalOptions { inline: false, ..options() };
    Wal(Shared::start(fs.clone(), dir, options, found).unwrap())
}

#[test]
fn i1_whichever_sync_fails_the_log_stops_and_nothing_acknowledged_is_ever_lost() {
    let mut hit = 0;
    for n in 1..90 {
        let fs = SimFs::new();
        let wal = open(&fs).unwrap();
        let before = fs.syncs();
        fs.fail_sync(n);
        let mut model = Vec::new();
        for index in 0..60 {
            let (done_ack, done) = ack();
            let failed_before = wal.failure().is_some();
            let taken = wal.append(vec![entry(1, index, 500)], done).is_ok();
            if taken && acked(&done_ack) {
                assert!(!failed_before, "sync {n}: acknowledged after a failure");
                model.push(entry(1, index, 500));
            }
        }
        if fs.syncs() - before < n {
            continue;
        }
        hit += 1;
        assert!(wal.failure().is_some(), "sync {n} failed and the log went on");
        drop(wal);
        // The process alone begins anew: the kernel still shows the bytes whose fsync failed, and calls them written.
        let fs = fs.restart();
        let wal = open(&fs).unwrap();
        let next = wal.last().map_or(0, |last| last.index + 1);
        wal.append(vec![entry(2, next, 30)], ignore()).unwrap();
        let shown = held(&wal);
        assert!(shown.starts_with(&model), "sync {n}: lost before the power cut");
        let after = open(&fs.crash(Survivors::None))
            .unwrap_or_else(|error| panic!("sync {n}: refused after the power cut: {error}"));
        assert_eq!(held(&after), shown, "sync {n}: lost by the power cut");
    }
    assert!(hit > 50, "only {hit} syncs failed");
}

#[test]
fn i2_entries_that_replace_durable_ones_are_not_durable_before_they_are_written() {
    let fs = SimFs::new();
    filled(&fs).close();
    let wal = stalled(&fs.restart());
    assert_eq!(wal.durable_index(), Some(59));
    wal.truncate_after(Some(at(1, 50)), ignore()).unwrap();
    wal.append((51..56).map(|index| entry(2, index, 10)).collect(), ignore()).unwrap();
    assert_eq!(wal.durable_index(), Some(50), "the old entries' durability was taken for theirs");
}

#[test]
fn i2_a_committed_position_beside_another_entry_is_forgotten() {
    let fs = SimFs::new();
    let wal = open(&fs).unwrap();
    wal.append((0..6).map(|index| entry(1, index, 10)).collect(), ignore()).unwrap();
    // As when the entry of term 2 is still queued behind the cut that makes room for it.
    wal.save_committed(Some(at(2, 5))).unwrap();
    wal.append(vec![entry(1, 6, 10)], ignore()).unwrap();
    assert_eq!(open(&fs.crash(Survivors::None)).unwrap().committed(), None);
    wal.save_committed(Some(at(1, 5))).unwrap();
    wal.append(vec![entry(1, 7, 10)], ignore()).unwrap();
    assert_eq!(open(&fs.crash(Survivors::None)).unwrap().committed(), Some(at(1, 5)));
}

#[test]
fn i6_a_log_cut_back_to_its_purge_bound_opens_once_the_old_segments_are_gone() {
    for bound in [Some(at(1, 50)), None] {
        let fs = SimFs::new();
        let wal = filled(&fs);
        if let Some(upto) = bound {
            wal.purge(upto, ignore()).unwrap();
        }
        vote_into_the_next_segment(&fs, &wal);
        wal.truncate_after(bound, ignore()).unwrap();
        let first = bound.map_or(0, |bound| bound.index + 1);
        for index in first..90 {
            wal.append(vec![entry(2, index, 1)], ignore()).unwrap();
        }
        wal.purge(at(2, 60), ignore()).unwrap();
        let before = held(&wal);
        let after = open(&fs.crash(Survivors::None))
            .unwrap_or_else(|error| panic!("cut back to {bound:?}: {error}"));
        assert_eq!(held(&after), before);
    }
}

/// One segment goes after each group that is written. Once the power is gone the log refuses them.
fn purge_and_go_on(wal: &Wal<SimFs>) {
    wal.purge(at(1, 58), ignore()).unwrap();
    for term in 2..10 {
        drop(wal.save_vote(Vote { term, voted_for: Some(1), committed: false }, ignore()));
    }
}

#[test]
fn i6_a_power_cut_while_segments_are_removed_leaves_a_log_that_opens() {
    let whole = SimFs::new();
    let wal = filled(&whole);
    let (before, files) = (whole.operations(), segments(&whole).len());
    purge_and_go_on(&wal);
    let points = whole.operations() - before;
    assert!(segments(&whole).len() + 3 < files, "too few segments were removed");
    for point in 0..points {
        for seed in 0..16 {
            let fs = SimFs::new();
            let wal = filled(&fs);
            fs.power_cut_at(fs.operations() + point);
            purge_and_go_on(&wal);
            let wal = open(&fs.crash(seed))
                .unwrap_or_else(|error| panic!("point {point}, seed {seed}: {error}"));
            assert_eq!(wal.last(), Some(at(1, 59)));
        }
    }
}

#[test]
fn i6_an_entry_that_reads_back_as_another_one_is_refused() {
    let fs = SimFs::new();
    let wal = filled(&fs);
    let file = fs.open(&segments(&fs)[0], OpenMode::ReadWrite).unwrap();
    // The disk hands out another entry's sectors: whole, but not those that were asked for.
    let mut bytes = vec![0; 8192];
    file.read_at(&mut bytes, 0).unwrap();
    let batches: Vec<usize> =
        (512..8192).step_by(8).filter(|at| bytes[*at..].starts_with(b"HFB1")).collect();
    let (second, third, fourth) = (batches[1], batches[2], batches[3]);
    file.write_at(&bytes[third..fourth], second as u64).unwrap();
    let error = wal.read(0, 1, usize::MAX).unwrap_err();
    assert!(matches!(error, WalError::Damaged { .. }), "{error}");
}

#[test]
fn what_comes_after_the_close_is_refused_and_not_forgotten() {
    let fs = SimFs::new();
    open(&fs).unwrap().close();
    let wal = stalled(&fs);
    wal.0.close();
    // As an append that was checked just before the log was closed.
    let vote = Vote { term: 1, voted_for: None, committed: false };
    let late = wal.0.submit(|_| Ok(queue::Job::Vote { vote, done: ignore() }));
    assert!(matches!(late, Err(WalError::Closed)));
}

#[test]
fn no_bytes_in_the_files_make_opening_panic() {
    let mut dice = StdRng::seed_from_u64(5);
    let mut opened = 0;
    for round in 0..600 {
        let fs = SimFs::new();
        fs.create_dir_all(Path::new(DIR)).unwrap();
        let number = if round % 50 == 0 { u64::MAX } else { 0 };
        let path = Path::new(DIR).join(format!("{number:016x}.log"));
        let file = fs.open(&path, OpenMode::CreateNew).unwrap();
        file.allocate(4096).unwrap();
        file.write_at(&SegmentHeader { number, salt: 7, length: 0 }.encode(), 0).unwrap();
        let mut end = 512;
        let mut batch_number = [0, 3, u64::MAX][dice.random_range(0..3)];
        for _ in 0..dice.random_range(1..6) {
            let mut builder = BatchBuilder::new();
            for _ in 0..dice.random_range(1..4) {
                any_record(&mut builder, &mut dice);
            }
            let bytes = builder.finish(batch_number, 7).to_vec();
            file.write_at(&bytes, end).unwrap();
            end += bytes.len() as u64;
            batch_number = batch_number.wrapping_add(1);
        }
        if dice.random() {
            let offset = dice.random_range(0..end);
            fs.flip_bit(&path, offset, dice.random_range(0..8)).unwrap();
        }
        if let Ok(wal) = open(&fs) {
            opened += 1;
            assert!(wal.read(0, u64::MAX, usize::MAX).is_ok());
            let next = wal.last().map_or(0, |last| last.index.saturating_add(1));
            if wal.append(vec![entry(9, next, 10)], ignore()).is_ok() {
                assert!(open(&fs.restart()).is_ok(), "round {round}: not open after going on");
            }
        }
    }
    assert!(opened > 20, "only {opened} of the files were taken");
}

/// Adds a record whose sums are right and whose contents are anything.
fn any_record(builder: &mut BatchBuilder, dice: &mut StdRng) {
    let numbers = [0, 1, 2, 5, u64::MAX - 1, u64::MAX];
    let mut number = || numbers[dice.random_range(0..numbers.len())];
    let position = at(number(), number());
    let highest = number();
    match dice.random_range(0..9) {
        0..=2 => {
            builder.entry(&entry(position.term % 1000, position.index % 1_000_000, 3));
        }
        3 => builder.vote(&Vote { term: position.term, voted_for: Some(1), committed: true }),
        4 => builder.committed(position),
        5 => builder.truncate_after(Some(position).filter(|at| at.index != 5)),
        6 => builder.purge(position),
        7 => builder.last(Some(position), highest),
        _ => builder.closed(),
    }
}
