//! What the checkers say, and what follows from it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::Figures;
use crate::history::{Begin, OpId};

/// Violations that a result keeps in full.
const KEPT: usize = 50;

/// What a run is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Everything was checked, and everything held.
    Green,
    /// Nothing is known to be broken, but the run proves less than it should.
    Invalid,
    /// Something that was promised did not hold.
    Red,
}

/// Something that should not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Calls that show it.
    pub ops: Vec<OpId>,
    /// A sentence for a person.
    pub what: String,
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// It holds.
    Held,
    /// It does not hold.
    Violated,
    /// The search was given up: nobody knows.
    Undecided {
        /// Why.
        why: String,
    },
    /// It could not be checked although it should have been.
    NotChecked {
        /// Why.
        why: String,
    },
    /// There was nothing in the run that it is about.
    NotApplicable {
        /// Why.
        why: String,
    },
}

/// A checker's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// The checker's name.
    pub name: &'static str,
    /// What it proves.
    pub claim: &'static str,
    /// How many things it looked at.
    pub checked: u64,
    /// What it counts.
    pub unit: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub status: Status,
    /// The first violations.
    pub violations: Vec<Violation>,
    /// How many there are in all.
    pub violated: u64,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

impl CheckResult {
    /// A result that holds so far.
    pub(crate) const fn new(name: &'static str, claim: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            claim,
            checked: 0,
            unit,
            status: Status::Held,
            violations: Vec::new(),
            violated: 0,
            notes: Vec::new(),
        }
    }

    /// Counts one more thing that was looked at.
    pub(crate) const fn count(&mut self) {
        self.checked = self.checked.saturating_add(1);
    }

    /// Notes a violation.
    pub(crate) fn violate(&mut self, ops: impl IntoIterator<Item = OpId>, what: String) {
        self.status = Status::Violated;
        self.violated = self.violated.saturating_add(1);
        if self.violations.len() < KEPT {
            self.violations.push(Violation { ops: ops.into_iter().collect(), what });
        }
    }

    /// Notes a violation unless this holds.
    pub(crate) fn hold(&mut self, holds: bool, ops: &[OpId], what: impl FnOnce() -> String) {
        self.count();
        if !holds {
            self.violate(ops.iter().copied(), what());
        }
    }

    /// Says that it could not be checked; a violation that was found says more.
    pub(crate) fn not_checked(&mut self, why: String) {
        if self.status != Status::Violated {
            self.status = Status::NotChecked { why };
        }
    }

    /// Says that there was nothing to check.
    pub(crate) fn not_applicable(&mut self, why: &str) {
        if self.status == Status::Held {
            self.status = Status::NotApplicable { why: why.to_owned() };
        }
    }

    /// Says that the search was given up; a violation that was found says more.
    pub(crate) fn undecided(&mut self, why: String) {
        if self.status != Status::Violated {
            self.status = Status::Undecided { why };
        }
    }
}

/// All that is known of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// What it is worth.
    pub judgement: Judgement,
    /// Why it is worth no more.
    pub reasons: Vec<String>,
    /// What was run; none if the history doesn't say.
    pub begin: Option<Begin>,
    /// Each checker's result.
    pub results: Vec<CheckResult>,
    /// Numbers and the timeline.
    pub figures: Figures,
}

/// Checkers whose failure says that the run is worth nothing, and nothing about the servers.
const OF_THE_RUN: [&str; 1] = ["valid"];

impl Verdict {
    pub(crate) fn new(begin: Option<&Begin>, results: Vec<CheckResult>, figures: Figures) -> Self {
        let mut reasons = BTreeMap::new();
        let mut judgement = Judgement::Green;
        for result in &results {
            let (worth, why) = match &result.status {
                Status::Held | Status::NotApplicable { .. } => continue,
                Status::Violated => {
                    let of_the_run = OF_THE_RUN.contains(&result.name);
                    let worth = if of_the_run { Judgement::Invalid } else { Judgement::Red };
                    let first = result.violations.first().map(|violation| violation.what.as_str());
                    (worth, format!("{}; {} in all", first.unwrap_or_default(), result.violated))
                }
                Status::Undecided { why } | Status::NotChecked { why } => {
                    (Judgement::Invalid, why.clone())
                }
            };
            judgement = judgement.max(worth);
            reasons.insert((std::cmp::Reverse(worth), result.name), why);
        }
        let reasons = reasons.into_iter();
        let reasons = reasons.map(|((_, name), why)| format!("{name}: {why}")).collect();
        Self { judgement, reasons, begin: begin.cloned(), results, figures }
    }

    /// Whether everything was checked, and held.
    pub fn green(&self) -> bool {
        self.judgement == Judgement::Green
    }

    /// A checker's result.
    pub fn result(&self, name: &str) -> Option<&CheckResult> {
        self.results.iter().find(|result| result.name == name)
    }

    /// The names of checkers that found a violation.
    pub fn violated(&self) -> Vec<&'static str> {
        let violated = self.results.iter().filter(|result| result.status == Status::Violated);
        violated.map(|result| result.name).collect()
    }
}
