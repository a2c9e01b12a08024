//! Which planted bug is looked for where, and who is to see it.

use std::fmt;

use holdfast::planted::Plant;

/// Where a bug is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harness {
    /// `tests/simulation`.
    Simulation {
        /// Which faults: `all`, `probes`, `votes`, `rot`, `slow`, `elections`.
        faults: &'static str,
        /// Seeds at most, from the first daily one on.
        seeds: u64,
    },
    /// Real servers.
    Chaos {
        /// Which faults.
        faults: &'static [&'static str],
        /// How long they go on.
        seconds: u64,
        /// Seeds at most.
        seeds: u64,
    },
}

/// The first seed of a simulation.
const FIRST_SIMULATED: u64 = 3;

impl Harness {
    /// The first seed, and how many at most.
    pub const fn seeds(&self) -> (u64, u64) {
        match self {
            Self::Simulation { seeds, .. } => (FIRST_SIMULATED, *seeds),
            Self::Chaos { seeds, .. } => (1, *seeds),
        }
    }

    pub(super) fn short(&self) -> String {
        match self {
            Self::Simulation { faults, .. } => (*faults).to_owned(),
            Self::Chaos { faults, .. } => faults.join("-"),
        }
    }
}

impl fmt::Display for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulation { faults, .. } => write!(f, "simulation ({faults})"),
            Self::Chaos { faults, seconds, .. } => {
                write!(f, "chaos ({}, {seconds} s)", faults.join(", "))
            }
        }
    }
}

/// A bug, where it is looked for, and the checkers of which one is to see it.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// The bug.
    pub plant: Plant,
    /// Where.
    pub harness: Harness,
    /// By whom.
    pub expected: &'static [&'static str],
}

const fn simulated(
    plant: Plant,
    faults: &'static str,
    seeds: u64,
    expected: &'static [&'static str],
) -> Control {
    Control { plant, harness: Harness::Simulation { faults, seeds }, expected }
}

const fn real(
    plant: Plant,
    faults: &'static [&'static str],
    seconds: u64,
    expected: &'static [&'static str],
) -> Control {
    Control { plant, harness: Harness::Chaos { faults, seconds, seeds: 3 }, expected }
}

/// All of them.
pub const CONTROLS: &[Control] = &[
    simulated(Plant::LogUnsynced, "all", 10, &["durable", "ended", "lost", "log"]),
    simulated(Plant::VoteUnsynced, "votes", 10, &["durable", "leader"]),
    simulated(Plant::FsyncAgain, "all", 30, &["durable", "ended"]),
    simulated(Plant::AckBeforeCommit, "elections", 10, &["answers", "lost", "order"]),
    simulated(Plant::LocalRead, "elections", 20, &["fresh"]),
    simulated(Plant::RotCutOff, "rot", 20, &["durable", "log"]),
    simulated(Plant::SnapshotLacksTable, "all", 10, &["ended"]),
    simulated(Plant::DiscloseBeforeAudit, "elections", 20, &["audited", "order", "answers"]),
    simulated(Plant::RepeatsForgotten, "probes", 20, &["once"]),
    real(Plant::RepeatsForgotten, &["kill-follower"], 10, &["once"]),
    simulated(Plant::VersionUnbound, "probes", 10, &["bound"]),
    simulated(Plant::RolesUnchecked, "probes", 10, &["roles"]),
    simulated(Plant::TimeoutDrawnOnce, "elections", 10, &["elected"]),
    simulated(Plant::PurgeBeforeSnapshot, "all", 30, &["ended"]),
    simulated(Plant::ApplyBeforeLog, "slow", 20, &["durable"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::find_kind;

    #[test]
    fn each_planted_bug_is_looked_for_and_under_faults_that_there_are() {
        let mut looked_for: Vec<Plant> = CONTROLS.iter().map(|control| control.plant).collect();
        looked_for.dedup();
        assert_eq!(looked_for, Plant::ALL);
        for control in CONTROLS {
            assert!(!control.expected.is_empty());
            if let Harness::Chaos { faults, .. } = control.harness {
                assert!(faults.iter().all(|name| find_kind(name).is_some()), "{faults:?}");
            }
        }
    }

    #[test]
    fn the_documentation_names_each_planted_bug_and_the_checkers_that_are_to_see_it() {
        let text = include_str!("../../../docs/reliability.md");
        for control in CONTROLS {
            let start = format!("| `{}` |", control.plant.name());
            let row = text.lines().find(|line| line.starts_with(&start));
            let row = row.unwrap_or_else(|| panic!("no row {start}"));
            assert!(row.contains(control.plant.does()), "{row}");
            let named = control.expected.iter().any(|checker| row.contains(checker));
            assert!(named, "{row} names none of {:?}", control.expected);
        }
    }
}
