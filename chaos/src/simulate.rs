//! Many seeds of the deterministic simulation (`tests/simulation`), each in a process of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::process::Command;
use tokio::task::JoinSet;

/// How long a seed may take on the wall. It simulates some ten seconds; one that runs on does not end by itself.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(10);
/// With that many seeds, everything that is counted is to have happened in one or another.
const MANY: u64 = 200;
/// The test of one seed, and how it is asked to run.
const TEST: [&str; 5] =
    ["--ignored", "--exact", "seeds::one_seed", "--nocapture", "--test-threads=1"];
const SEED: &str = "HOLDFAST_SIM_SEED";

/// What is run.
#[derive(Debug, clap::Args)]
pub struct SimulateArgs {
    /// Seeds: A..B without B, or one
    #[arg(long, value_parser = seeds)]
    seeds: Range<u64>,
    /// Seeds at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// New file with one JSON line a seed, and one for the whole at the end
    #[arg(long)]
    out: Option<PathBuf>,
    /// The built test; if left out, cargo builds it here, optimised
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// `A..B` or one number.
fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
    let range = match text.split_once("..") {
        Some((from, to)) => number(from)?..number(to)?,
        None => number(text)?..number(text)?.saturating_add(1),
    };
    if range.is_empty() { Err(format!("{text:?} has no seeds")) } else { Ok(range) }
}

/// What became of a seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Outcome {
    seed: u64,
    /// Why it failed.
    failed: Option<String>,
    /// Number of the whole run: the same seed and program give the same one.
    hash: String,
    simulated_seconds: f64,
    /// Time that a processor worked on it.
    processor_seconds: f64,
    /// How often what was seen.
    seen: BTreeMap<String, u64>,
}

impl Outcome {
    /// Reads what the test printed. `well` is whether it ended without a failure.
    fn read(seed: u64, well: bool, stdout: &str, stderr: &str) -> Self {
        let line = stdout.lines().find_map(|line| line.split_once("SIMULATED "));
        let (facts, verdict) = line.and_then(|(_, line)| line.split_once("; ")).unwrap_or_default();
        let mut outcome = Self {
            seed,
            failed: None,
            hash: String::new(),
            simulated_seconds: 0.0,
            processor_seconds: 0.0,
            seen: BTreeMap::new(),
        };
        for (name, value) in facts.split_whitespace().filter_map(|word| word.split_once('=')) {
            let seconds = || value.trim_end_matches('s').parse().unwrap_or_default();
            match name {
                "seed" | "speed" | "wall" => {}
                "hash" => value.clone_into(&mut outcome.hash),
                "simulated" => outcome.simulated_seconds = seconds(),
                "processor" => outcome.processor_seconds = seconds(),
                _ => {
                    let times = value.parse().unwrap_or_default();
                    outcome.seen.insert(name.to_owned(), times);
                }
            }
        }
        if outcome.hash.is_empty() {
            let last = stderr.trim().lines().last().unwrap_or("it printed nothing");
            outcome.failed = Some(format!("no result: {last}"));
        } else if !well {
            outcome.failed = Some(verdict.to_owned());
        }
        outcome
    }
}

/// All seeds so far.
#[derive(Debug, Default, Serialize)]
struct Totals {
    seeds: u64,
    failed: Vec<u64>,
    simulated_seconds: f64,
    processor_seconds: f64,
    seen: BTreeMap<String, u64>,
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.failed.extend(outcome.failed.is_some().then_some(outcome.seed));
        self.simulated_seconds += outcome.simulated_seconds;
        self.processor_seconds += outcome.processor_seconds;
        for (name, times) in &outcome.seen {
            *self.seen.entry(name.clone()).or_default() += times;
        }
    }

    /// What no seed had, although there were many.
    fn never(&self) -> Vec<&str> {
        let many = self.seeds >= MANY;
        let never = self.seen.iter().filter(|(_, times)| many && **times == 0);
        never.map(|(name, _)| name.as_str()).collect()
    }

    /// Simulated seconds in a second of one processor.
    fn speed(&self) -> f64 {
        self.simulated_seconds / self.processor_seconds.max(0.001)
    }
}

/// Builds the test, and says where it lies.
async fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["test", "--release", "--package", "holdfast", "--test", "simulation", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .await
        .context("running cargo; name a built test with --binary")?;
    if !built.status.success() {
        bail!("cargo could not build the simulation: {}", built.status);
    }
    let text = String::from_utf8_lossy(&built.stdout);
    text.lines().find_map(executable).context("cargo did not say where the test lies")
}

/// The program that a line of cargo's JSON tells of, if it is the simulation.
fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let simulation = message.pointer("/target/name")?.as_str()? == "simulation";
    message.get("executable")?.as_str().filter(|_| simulation).map(PathBuf::from)
}

/// Runs one seed. The process ends with the future.
async fn one(binary: PathBuf, seed: u64) -> anyhow::Result<Outcome> {
    let child = Command::new(&binary)
        .args(TEST)
        .env(SEED, seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // An interruption from the terminal is for this process; what it means for a seed is decided here.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("running {}", binary.display()))?;
    let outcome = match tokio::time::timeout(PATIENCE, child.wait_with_output()).await {
        Ok(output) => {
            let output = output.context("waiting for a seed")?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
            Outcome::read(seed, output.status.success(), &stdout, &stderr)
        }
        Err(_) => Outcome::read(seed, false, "", &format!("not at its end after {PATIENCE:?}")),
    };
    Ok(outcome)
}

/// Runs what is asked for, and tells.
struct Run {
    seeds: Range<u64>,
    binary: PathBuf,
    /// How a seed is run again.
    again: String,
    out: Option<File>,
    running: JoinSet<anyhow::Result<Outcome>>,
    totals: Totals,
    began: Instant,
}

impl Run {
    fn say(line: &str) -> anyhow::Result<()> {
        writeln!(std::io::stdout(), "{line}").context("standard output")
    }

    fn record(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let line = serde_json::to_string(line)?;
        writeln!(out, "{line}").context("the file of --out")
    }

    fn take(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        self.totals.add(outcome);
        self.record(outcome)?;
        let Some(why) = &outcome.failed else { return Ok(()) };
        let seed = outcome.seed;
        Self::say(&format!("seed {seed} FAILED: {why}"))?;
        Self::say(&format!("    {SEED}={seed} HOLDFAST_SIM_ECHO=1 {}", self.again))
    }

    fn progress(&self) -> anyhow::Result<()> {
        let all = self.seeds.end - self.seeds.start;
        let (done, failed) = (self.totals.seeds, self.totals.failed.len());
        let took = self.began.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "an estimate for a person")]
        let left = took / (done.max(1) as f64) * ((all - done) as f64);
        let simulated = self.totals.simulated_seconds;
        Self::say(&format!(
            "{done} of {all} seeds, {failed} failed, {simulated:.0} s simulated, about {left:.0} s left"
        ))
    }

    async fn all(&mut self, jobs: usize) -> anyhow::Result<()> {
        let mut todo = self.seeds.clone();
        let mut progress = tokio::time::interval(PROGRESS);
        progress.tick().await;
        loop {
            while self.running.len() < jobs
                && let Some(seed) = todo.next()
            {
                self.running.spawn(one(self.binary.clone(), seed));
            }
            tokio::select! {
                outcome = self.running.join_next() => match outcome {
                    Some(outcome) => self.take(&outcome.context("a seed")??)?,
                    None => return Ok(()),
                },
                _ = progress.tick() => self.progress()?,
            }
        }
    }

    /// Says what came of it; whether all is well.
    fn tell(&mut self) -> anyhow::Result<bool> {
        let totals = std::mem::take(&mut self.totals);
        self.record(&totals)?;
        let count = |name: &str| totals.seen.get(name).copied().unwrap_or(0);
        let seen: Vec<_> =
            totals.seen.iter().map(|(name, times)| format!("{name} {times}")).collect();
        Self::say(&format!("seen: {}", seen.join(", ")))?;
        Self::say(&format!(
            "{} seeds, {:.0} s simulated in {:.0} s ({:.1} a processor's second), {} operations acknowledged, {} changes of the leader, \
             {} power cuts",
            totals.seeds,
            totals.simulated_seconds,
            self.began.elapsed().as_secs_f64(),
            totals.speed(),
            count("escrows") + count("disclosures"),
            count("leader_changes"),
            count("power_cuts"),
        ))?;
        let never = totals.never();
        if !never.is_empty() {
            Self::say(&format!("never seen, so nothing is known of it: {}", never.join(", ")))?;
        }
        if totals.failed.is_empty() {
            Self::say("all seeds are well")?;
        } else {
            Self::say(&format!("failing seeds: {:?}", totals.failed))?;
        }
        Ok(totals.failed.is_empty() && never.is_empty())
    }
}

fn repeat(binary: Option<&Path>) -> String {
    let test = "--ignored --exact seeds::one_seed --nocapture";
    match binary {
        Some(path) => format!("{} {test}", path.display()),
        None => format!("cargo test --release --test simulation -- {test}"),
    }
}

/// Runs the seeds; 1 if one failed, 130 if it was interrupted.
///
/// # Errors
/// If the test can't be built or run, or the file can't be written.
pub fn simulate(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let out = args
        .out
        .as_deref()
        .map(|path| File::create_new(path).with_context(|| format!("creating {}", path.display())));
    let out = out.transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let binary = match &args.binary {
            Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
            None => build().await?,
        };
        let mut run = Run {
            seeds: args.seeds,
            binary,
            again: repeat(args.binary.as_deref()),
            out,
            running: JoinSet::new(),
            totals: Totals::default(),
            began: Instant::now(),
        };
        let ran = tokio::select! {
            ran = run.all(args.jobs.into()) => Some(ran),
            () = crate::run::interrupted() => None,
        };
        // What still runs is killed, each by its process id.
        run.running.shutdown().await;
        if let Some(Err(error)) = ran {
            return Err(error);
        }
        let well = run.tell()?;
        Ok(match ran {
            None => {
                Run::say("interrupted")?;
                ExitCode::from(130)
            }
            Some(_) if well => ExitCode::SUCCESS,
            Some(_) => ExitCode::FAILURE,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "test x ... \nSIMULATED seed=7 hash=00ff simulated=10.5s wall=0.9s processor=0.5s speed=21.0 escrows=3 kills=0; ";

    #[test]
    fn a_seed_is_judged_by_what_it_printed_and_how_it_ended() {
        let well = Outcome::read(7, true, &format!("{LINE}all is well\n"), "");
        assert_eq!((well.failed.clone(), well.hash.as_str()), (None, "00ff"));
        assert!((well.simulated_seconds - 10.5).abs() < 1e-9, "{well:?}");
        assert_eq!(well.seen, BTreeMap::from([("escrows".into(), 3), ("kills".into(), 0)]));
        let bad = Outcome::read(7, false, &format!("{LINE}n1 lost the escrow at 9\n"), "");
        assert_eq!(bad.failed.as_deref(), Some("n1 lost the escrow at 9"));
        let silent = Outcome::read(7, true, "", "");
        assert_eq!(silent.failed.as_deref(), Some("no result: it printed nothing"));
        let died = Outcome::read(7, false, "", "thread panicked\nat once\n");
        assert_eq!(died.failed.as_deref(), Some("no result: at once"));
    }

    #[test]
    fn what_no_seed_of_many_had_is_told() {
        let mut totals = Totals::default();
        for seed in 0..MANY {
            assert_eq!(totals.never(), [""; 0]);
            totals.add(&Outcome::read(seed, true, &format!("{LINE}all is well"), ""));
        }
        assert_eq!(totals.never(), ["kills"]);
        assert!((totals.speed() - 21.0).abs() < 1e-6);
    }

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(seeds("3..5"), Ok(3..5));
        assert_eq!(seeds("3"), Ok(3..4));
        assert!(seeds("5..5").is_err() && seeds("x").is_err() && seeds("1..").is_err());
    }

    #[test]
    fn the_built_test_is_found_in_what_cargo_says() {
        let other =
            r#"{"reason":"compiler-artifact","target":{"name":"holdfast"},"executable":null}"#;
        let right = r#"{"target":{"name":"simulation"},"executable":"/t/simulation-1"}"#;
        assert_eq!(executable(other), None);
        assert_eq!(executable("not JSON"), None);
        assert_eq!(executable(right), Some(PathBuf::from("/t/simulation-1")));
    }
}
