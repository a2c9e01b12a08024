//! One seed of the simulation, in a process of its own.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use super::{PLANT, Seen};

/// How long a seed may take before it counts as one that hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs a seed; what it says goes to a file.
pub(super) fn run(
    program: &Path,
    plant: Option<&str>,
    faults: &str,
    seed: u64,
    said: &Path,
) -> anyhow::Result<Seen> {
    let file = File::create(said).with_context(|| said.display().to_string())?;
    let mut command = Command::new(program);
    command
        .args(["--ignored", "--exact", "seeds::one_seed", "--nocapture", "--test-threads=1"])
        .env(PLANT, plant.unwrap_or_default())
        .env("HOLDFAST_SIM_SEED", seed.to_string())
        .env("HOLDFAST_SIM_FAULTS", faults)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .kill_on_drop(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut child =
            command.spawn().with_context(|| format!("running {}", program.display()))?;
        // One that hangs is killed when it is dropped.
        tokio::time::timeout(LIMIT, child.wait()).await.ok().transpose().context("waiting")
    })?;
    let text = std::fs::read_to_string(said)?;
    Ok(match (ended, read(&text)) {
        (Some(_), Some(seen)) => seen,
        (ended, _) => {
            let name = if ended.is_some() { "crash" } else { "hang" };
            let what = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Seen { checkers: vec![name.to_owned()], what: what.to_owned(), operations: 0 }
        }
    })
}

/// What a run says in its line `SIMULATED`; none if it has none.
fn read(text: &str) -> Option<Seen> {
    let line = text.lines().find_map(|line| line.split_once("SIMULATED ").map(|(_, rest)| rest))?;
    let (facts, what) = line.split_once("; ")?;
    let counted = facts.split(' ').filter_map(|word| word.split_once('='));
    let counts: std::collections::BTreeMap<&str, &str> = counted.collect();
    let count = |name| counts.get(name).and_then(|times| times.parse::<u64>().ok()).unwrap_or(0);
    let checker = what.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let checkers = match checker {
        Some((checker, _)) => vec![checker.to_owned()],
        None if what == "all is well" => Vec::new(),
        None => vec!["unknown".to_owned()],
    };
    Some(Seen {
        checkers,
        what: what.to_owned(),
        operations: count("escrows") + count("disclosures"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checker_and_the_operations_are_read_from_what_a_seed_says() {
        let line = |end: &str| {
            format!(
                "x\ntest one ... SIMULATED seed=3 hash=0 wall=1s escrows=9 disclosures=2 kills=1; {end}\n"
            )
        };
        let seen = read(&line("[lost] n1 lost; all")).unwrap();
        assert_eq!((seen.checkers, seen.operations), (vec!["lost".to_owned()], 11));
        assert_eq!(read(&line("all is well")).unwrap().checkers, [""; 0]);
        assert_eq!(read(&line("something")).unwrap().checkers, ["unknown"]);
        assert_eq!(read("panicked"), None);
    }
}
