//! Which fault comes when. Everything follows from the seed but what the servers make of it.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::fault::Kind;

/// A fault that is about to come.
#[derive(Debug, Clone, Copy)]
pub struct Next {
    /// Which.
    pub kind: &'static Kind,
    /// How long it stays, in milliseconds.
    pub hold: u64,
    /// How long all is well after it, in milliseconds.
    pub rest: u64,
    /// What its own choices follow from.
    pub seed: u64,
}

/// Faults without end: each kind once in some order, then each once more in another.
#[derive(Debug)]
pub struct Schedule {
    kinds: Vec<&'static Kind>,
    rng: StdRng,
    round: VecDeque<&'static Kind>,
    /// The most that a fault of the first round may stay, so that each kind gets its turn.
    most: u64,
}

impl Schedule {
    /// The faults of a seed. `millis` is how long they go on: with many kinds and little time each stays shorter.
    pub fn new(kinds: Vec<&'static Kind>, seed: u64, millis: u64) -> Self {
        let count = u64::try_from(kinds.len().max(1)).unwrap_or(1);
        // The rest of a turn goes to putting in place, healing and recovery.
        let most = (millis / count / 3).max(300);
        let rng = StdRng::seed_from_u64(seed ^ 0x6368_616f_735f_6e65);
        Self { kinds, rng, round: VecDeque::new(), most }
    }

    /// The kinds.
    pub fn kinds(&self) -> &[&'static Kind] {
        &self.kinds
    }
}

impl Iterator for Schedule {
    type Item = Next;

    fn next(&mut self) -> Option<Next> {
        if self.round.is_empty() {
            let mut round = self.kinds.clone();
            round.shuffle(&mut self.rng);
            self.round = round.into();
        }
        let kind = self.round.pop_front()?;
        let (least, longest) = kind.hold;
        let drawn = self.rng.random_range(least..=longest.max(least));
        let hold = drawn.min(self.most.max(least));
        let rest = self.rng.random_range(500..1500).min(self.most.max(500));
        Some(Next { kind, hold, rest, seed: self.rng.random() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fault::CATALOGUE;

    fn names(seed: u64, count: usize) -> Vec<(&'static str, u64, u64)> {
        let schedule = Schedule::new(CATALOGUE.iter().collect(), seed, 120_000);
        schedule.take(count).map(|next| (next.kind.name, next.hold, next.seed)).collect()
    }

    #[test]
    fn a_seed_gives_the_same_faults_again_and_another_seed_gives_others() {
        assert_eq!(names(7, 200), names(7, 200));
        assert_ne!(names(7, 200), names(8, 200));
    }

    #[test]
    fn each_kind_comes_once_before_any_comes_again() {
        let count = CATALOGUE.len();
        let all = names(7, 2 * count);
        for round in all.chunks(count) {
            let kinds: BTreeSet<_> = round.iter().map(|(name, ..)| name).collect();
            assert_eq!(kinds.len(), count);
        }
    }

    #[test]
    fn with_little_time_for_many_kinds_each_stays_no_longer_than_its_share_or_its_least() {
        for (name, hold, _) in names(7, CATALOGUE.len()) {
            let kind = crate::fault::find_kind(name).unwrap();
            let share = 120_000 / u64::try_from(CATALOGUE.len()).unwrap() / 3;
            assert!(hold <= share.max(300).max(kind.hold.0), "{name} stays {hold} ms");
        }
    }
}
