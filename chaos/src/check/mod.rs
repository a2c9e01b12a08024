//! The checkers: each reads the history, and nothing else, and says whether one promise held.
//!
//! A checker is a pure function over the [`index::History`], so that a recorded run can be checked again, by this program or
//! a later one. What could not be decided is said and is never green.

mod audited;
mod available;
mod chain;
mod claims;
mod damage;
mod digest;
mod figures;
mod findings;
mod index;
mod leader;
mod leak;
mod linear;
mod live;
mod lost;
mod members;
#[cfg(test)]
mod naive;
mod once;
mod project;
#[cfg(test)]
mod testing;
mod valid;
mod verdict;
mod windows;
mod witness;

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::Context as _;

pub use available::Gap;
pub(crate) use available::bound;
pub(crate) use chain::page_name;
pub use claims::NOT_DONE;
pub use figures::{Figures, KINDS, Latency, Second, Spread};
pub(crate) use project::prefix;
pub use verdict::{CheckResult, Judgement, Status, Verdict, Violation};
pub use windows::Window;

use crate::history::Event;
use index::History;

/// Name of the history in a run's directory.
pub const HISTORY: &str = "history.jsonl";

/// Checks the run that was recorded in a directory. What can't be read is part of the verdict.
pub fn check_dir(dir: &Path) -> Verdict {
    let (events, problem) = match read(&dir.join(HISTORY)) {
        Ok(read) => read,
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    };
    check_with(&events, problem)
}

/// Checks a history.
pub fn check_events(events: &[Event]) -> Verdict {
    check_with(events, None)
}

fn check_with(events: &[Event], problem: Option<String>) -> Verdict {
    let mut history = History::new(events);
    history.problems.extend(problem);
    let checkers = [
        valid::check,
        lost::check,
        linear::check,
        witness::check,
        once::check,
        audited::check,
        chain::check,
        digest::check,
        leader::check,
        live::check,
        available::check,
        members::check,
        damage::check,
        claims::check,
        findings::check,
        leak::check,
    ];
    let results = checkers.iter().map(|check| check(&history)).collect();
    Verdict::new(history.begin, results, figures::figures(&history))
}

/// The events of a file up to the first line that is none, and what is wrong with that line.
fn read(path: &Path) -> anyhow::Result<(Vec<Event>, Option<String>)> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut events = Vec::new();
    for (number, line) in (1_u64..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        match serde_json::from_str(&line) {
            Ok(event) => events.push(event),
            Err(error) => return Ok((events, Some(format!("line {number}: {error}")))),
        }
    }
    Ok((events, None))
}
