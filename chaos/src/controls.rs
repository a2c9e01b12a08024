//! Does it see anything? Each planted bug of the product (`holdfast::planted`) under the harness that is to catch it, and the
//! same faults without the bug, which must be green.

mod build;
mod simulated;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::Context as _;
use holdfast::planted::Plant;
use serde::Serialize;

use crate::check::{self, Judgement};

pub use build::Programs;
pub use table::{CONTROLS, Control, Harness};

/// The variable that names the bug, for programs that have it.
pub(crate) const PLANT: &str = "HOLDFAST_PLANT";

/// What a run under one seed came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Checkers that found something; none if all was well.
    pub checkers: Vec<String>,
    /// The first thing that was found.
    pub what: String,
    /// Operations until then.
    pub operations: u64,
}

/// What became of one planted bug.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The bug.
    pub plant: &'static str,
    /// What it does.
    pub does: &'static str,
    /// Where it was looked for.
    pub harness: String,
    /// The checkers that are to see it.
    pub expected: &'static [&'static str],
    /// Seeds that were run until it was seen, or in all.
    pub seeds: u64,
    /// The last of them.
    pub seed: u64,
    /// What was seen under it.
    pub seen: Seen,
    /// What was seen under the same faults and seed without the bug.
    pub without: Seen,
    /// Why this proves nothing; none if the bug was caught by a checker that is to see it, and all is well without it.
    pub fault: Option<String>,
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only this bug.
    pub only: Option<Plant>,
    /// Directory for what the runs leave.
    pub out: PathBuf,
    /// The programs with planted bugs.
    pub programs: Programs,
    /// Simulations at the same time.
    pub jobs: usize,
}

/// The planted bug of a name.
///
/// # Errors
/// If there is none.
pub fn plant(name: &str) -> Result<Plant, String> {
    let found = Plant::ALL.iter().copied().find(|plant| plant.name() == name);
    let names = || Plant::ALL.iter().map(|plant| plant.name()).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("there is no planted bug {name:?}; there are {}", names()))
}

/// Runs all controls; each outcome is told as soon as it is known.
///
/// # Errors
/// If a harness can't be run.
pub fn run(options: &Options, tell: &(dyn Fn(&Outcome) + Sync)) -> anyhow::Result<Vec<Outcome>> {
    let chosen = |control: &&Control| options.only.is_none_or(|only| only == control.plant);
    let simulated = |control: &&&Control| matches!(control.harness, Harness::Simulation { .. });
    let all: Vec<&Control> = CONTROLS.iter().filter(chosen).collect();
    let controls = Controls { options, without: Mutex::default(), done: Mutex::default(), tell };
    let todo = Mutex::new(all.iter().filter(simulated));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let next = locked(&todo).next();
                    let Some(control) = next else { return };
                    if let Err(error) = controls.one(control) {
                        locked(&failed).push(error);
                    }
                }
            });
        }
    });
    if let Some(error) = locked(&failed).pop() {
        return Err(error);
    }
    // Real servers want the machine for themselves.
    for control in all.iter().filter(|control| !simulated(control)) {
        controls.one(control)?;
    }
    let Controls { done, .. } = controls;
    let mut outcomes = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes
        .sort_by_key(|outcome| Plant::ALL.iter().position(|plant| plant.name() == outcome.plant));
    Ok(outcomes)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Controls<'a> {
    options: &'a Options,
    /// Runs without a bug, which several bugs may share.
    without: Mutex<BTreeMap<(String, u64), Seen>>,
    done: Mutex<Vec<Outcome>>,
    tell: &'a (dyn Fn(&Outcome) + Sync),
}

impl Controls<'_> {
    fn one(&self, control: &Control) -> anyhow::Result<()> {
        let plant = control.plant.name();
        let (first, most) = control.harness.seeds();
        let mut seed = first;
        let mut seen = self.under(control, Some(plant), seed)?;
        while seen.checkers.is_empty() && seed + 1 < first + most {
            seed += 1;
            seen = self.under(control, Some(plant), seed)?;
        }
        let without = self.without(control, seed)?;
        let outcome = Outcome {
            plant,
            does: control.plant.does(),
            harness: control.harness.to_string(),
            expected: control.expected,
            seeds: seed - first + 1,
            seed,
            fault: fault(control.expected, &seen, &without),
            seen,
            without,
        };
        (self.tell)(&outcome);
        locked(&self.done).push(outcome);
        Ok(())
    }

    fn without(&self, control: &Control, seed: u64) -> anyhow::Result<Seen> {
        let key = (control.harness.to_string(), seed);
        if let Some(known) = locked(&self.without).get(&key) {
            return Ok(known.clone());
        }
        let seen = self.under(control, None, seed)?;
        locked(&self.without).insert(key, seen.clone());
        Ok(seen)
    }

    fn under(&self, control: &Control, plant: Option<&str>, seed: u64) -> anyhow::Result<Seen> {
        let name = format!("{}-{}-{seed}", plant.unwrap_or("none"), control.harness.short());
        let out = self.options.out.join(name);
        match &control.harness {
            Harness::Simulation { faults, .. } => {
                let program = &self.options.programs.simulation;
                simulated::run(program, plant, faults, seed, &out.with_extension("txt"))
            }
            Harness::Chaos { faults, seconds, .. } => {
                chaos(&self.options.programs.server, plant, faults, *seconds, seed, &out)
            }
        }
    }
}

/// Why an outcome proves nothing.
fn fault(expected: &[&str], seen: &Seen, without: &Seen) -> Option<String> {
    if !without.checkers.is_empty() {
        return Some(format!(
            "without the bug as well: {}: {}",
            without.checkers.join(", "),
            without.what
        ));
    }
    if seen.checkers.is_empty() {
        return Some("not caught".to_owned());
    }
    let right = seen.checkers.iter().any(|name| expected.contains(&name.as_str()));
    (!right).then(|| {
        format!("caught by {} instead of {}", seen.checkers.join(", "), expected.join(" or "))
    })
}

/// A run of this program against servers with the bug.
fn chaos(
    server: &Path,
    plant: Option<&str>,
    faults: &[&str],
    seconds: u64,
    seed: u64,
    out: &Path,
) -> anyhow::Result<Seen> {
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let said = std::fs::File::create(out.join("said.txt"))?;
    let status = Command::new(std::env::current_exe()?)
        .args(["run", "--duration", &format!("{seconds}s"), "--seed", &seed.to_string()])
        .args(["--faults", &faults.join(","), "--server"])
        .arg(server)
        .arg("--out")
        .arg(out)
        .env(PLANT, plant.unwrap_or_default())
        .stdout(said.try_clone()?)
        .stderr(said)
        .status()
        .context("running holdfast-chaos")?;
    let verdict = check::check_dir(out);
    anyhow::ensure!(verdict.begin.is_some(), "no run ({status}): {}", out.display());
    let log = std::fs::read_to_string(out.join("host-1").join("log.txt"))?;
    let awake = format!("\"bug\":\"{}\"", plant.unwrap_or("none"));
    anyhow::ensure!(log.contains(&awake), "the servers did not run with {awake}");
    let mut checkers: Vec<String> = verdict.violated().into_iter().map(str::to_owned).collect();
    // Too little load on a slow machine says nothing about the servers.
    checkers.retain(|name| name != "valid");
    if checkers.is_empty() && verdict.judgement == Judgement::Red {
        checkers.push("unknown".to_owned());
    }
    let what = verdict.reasons.first().cloned().unwrap_or_default();
    Ok(Seen { checkers, what, operations: verdict.figures.outcomes.iter().sum() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(checkers: &[&str]) -> Seen {
        let checkers = checkers.iter().map(|name| (*name).to_owned()).collect();
        Seen { checkers, what: String::new(), operations: 1 }
    }

    #[test]
    fn only_a_bug_that_the_right_checker_saw_and_that_is_not_seen_without_it_is_caught() {
        let well = seen(&[]);
        assert_eq!(fault(&["lost"], &seen(&["lost"]), &well), None);
        assert_eq!(fault(&["lost"], &seen(&["live", "lost"]), &well), None);
        assert!(fault(&["lost"], &well, &well).unwrap().contains("not caught"));
        assert!(
            fault(&["lost"], &seen(&["live"]), &well).unwrap().contains("live instead of lost")
        );
        assert!(fault(&["lost"], &seen(&["lost"]), &seen(&["lost"])).unwrap().contains("without"));
    }

    #[test]
    fn a_bug_is_chosen_by_its_name() {
        assert_eq!(plant("local-read"), Ok(Plant::LocalRead));
        assert!(plant("lokal-read").unwrap_err().contains("lokal-read"));
    }
}
