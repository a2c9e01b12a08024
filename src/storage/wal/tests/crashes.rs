//! I1, I6: what a log holds after a crash at any operation of the disk, against a model.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::super::recover;
use super::*;

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

/// 200 operations that are all legal on an empty log.
fn script(seed: u64) -> Vec<Op> {
    script_from(Model::default(), seed, 200)
}

/// Operations that are all legal, one after another, on a log that is as `model` says.
fn script_from(mut model: Model, seed: u64, length: usize) -> Vec<Op> {
    let mut dice = StdRng::seed_from_u64(seed);
    let voted = model.vote.map_or(1, |vote| vote.term);
    let mut term = model.last().map_or(voted, |last| last.term.max(voted));
    let mut ops = Vec::new();
    while ops.len() < length {
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

/// Runs the script on an empty log until the power goes; returns the model as acknowledged, and the operation that was under way.
fn run(fs: &SimFs, ops: &[Op]) -> (Model, Option<Op>) {
    run_from(fs, Model::default(), ops)
}

fn run_from(fs: &SimFs, mut model: Model, ops: &[Op]) -> (Model, Option<Op>) {
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

/// What a log that opened says, in the place of a model that may lack, or have, what was under way.
fn as_found(wal: &Wal<SimFs>, committed: Vec<Position>) -> Model {
    let entries = wal.read(0, u64::MAX, usize::MAX).unwrap().into_iter();
    let entries = entries.map(|e| (e.id.index, (e.id.term, e.payload.bytes().len()))).collect();
    Model { entries, vote: wal.vote(), purged: wal.purged(), committed }
}

/// Whatever sectors of whatever was torn are left, and whenever the power goes again, while the log is opened too: that is
/// never taken for damage. Entries are cut off and replaced at lower indexes meanwhile, and segments are switched and removed.
#[test]
fn i6_no_row_of_power_cuts_looks_like_damage_or_loses_what_was_acknowledged() {
    let (mut tails, mut again) = (0, 0);
    for seed in 0..40 {
        let mut dice = StdRng::seed_from_u64(seed);
        let (mut fs, mut model) = (SimFs::new(), Model::default());
        for round in 0..15 {
            let ops = script_from(model.clone(), dice.random(), 15);
            if dice.random() {
                fs.power_cut_at(dice.random_range(0..50));
            } else {
                fs.tear_write(dice.random_range(1..15), dice.random_range(1..2500));
            }
            let (mut acknowledged, under_way) = run_from(&fs, model, &ops);
            fs = fs.crash(Survivors::Random(dice.random()));
            let torn = recover::recover(&fs, Path::new(DIR), 0).is_ok_and(|f| f.torn.is_some());
            tails += u32::from(torn);
            // Once more while what was torn is cleared away.
            fs.power_cut_at(dice.random_range(0..8));
            again += u32::from(open(&fs).is_err());
            fs = fs.crash(Survivors::Random(dice.random()));
            let wal = open(&fs.restart())
                .unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
            check(&wal, &acknowledged, under_way.as_ref())
                .unwrap_or_else(|what| panic!("seed {seed}, round {round}: {what}"));
            under_way.iter().for_each(|op| acknowledged.apply(op));
            model = as_found(&wal, acknowledged.committed);
        }
    }
    assert!(tails > 40 && again > 100, "{tails} torn tails, {again} cuts while it was opened");
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
