//! Seeds, each in a process of its own.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::nemesis::Faults;
use super::run::run;

const SEED: &str = "HOLDFAST_SIM_SEED";
const SEEDS: &str = "HOLDFAST_SIM_SEEDS";
/// Which faults: `all`, `probes`, `votes`, `rot`, `slow`, `elections`.
const FAULTS: &str = "HOLDFAST_SIM_FAULTS";
const JOBS: &str = "HOLDFAST_SIM_JOBS";
const ECHO: &str = "HOLDFAST_SIM_ECHO";
/// What `cargo test` runs every day: some 4 s of processor time each, unoptimised. Enough for all sights to be seen.
const DAILY: std::ops::Range<u64> = 100..124;
/// Seeds at the same time.
const DAILY_JOBS: usize = 2;

/// Runs a seed in a process of its own; what it printed in one line, and whether all was well.
fn child(seed: u64) -> (String, bool) {
    child_under(seed, &variable(FAULTS).unwrap_or_default())
}

fn child_under(seed: u64, faults: &str) -> (String, bool) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "seeds::one_seed", "--nocapture", "--test-threads=1"])
        .env(SEED, seed.to_string())
        .env(FAULTS, faults)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.split_once("SIMULATED ").map(|(_, line)| line));
    let what = match line {
        Some(line) => line.to_owned(),
        None => format!("seed={seed} {}", String::from_utf8_lossy(&output.stderr)),
    };
    // A process that ran no seed ends well too.
    (what, output.status.success() && line.is_some())
}

/// The `name=times` of a line.
fn counts(line: &str) -> Vec<(String, u64)> {
    let words = line.split(';').next().unwrap_or_default().split_whitespace();
    let pairs = words.filter_map(|word| word.split_once('='));
    pairs.filter_map(|(name, times)| Some((name.to_owned(), times.parse().ok()?))).collect()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `A..B` or one number.
fn range(text: &str) -> std::ops::Range<u64> {
    match text.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => {
            let seed = text.parse().unwrap();
            seed..seed + 1
        }
    }
}

/// How long a seed may take, a hundred times what it takes where the test is not optimised.
const LIMIT: Duration = Duration::from_secs(600);

/// Ends this process, as a failed test does, if what is returned was not dropped by then: a step of the simulation that never
/// ends can't be interrupted.
fn end_after(limit: Duration, seed: u64) -> Sender<()> {
    let (running, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        if end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            println!("\nSIMULATED seed={seed} is not done after {} s", limit.as_secs());
            std::process::exit(101);
        }
    });
    running
}

#[test]
#[ignore = "one seed a process; the other tests start it"]
fn one_seed() {
    let seed = variable(SEED).map_or(0, |seed| seed.parse().unwrap());
    let faults = Faults::named(&variable(FAULTS).unwrap_or_default());
    let _running = end_after(LIMIT, seed);
    let report = run(seed, faults, variable(ECHO).is_some());
    let speed = report.simulated.as_secs_f64() / report.processor.as_secs_f64();
    println!(
        "\nSIMULATED seed={seed} hash={:016x} simulated={:.1}s wall={:.2}s processor={:.2}s speed={speed:.1} {}; {}",
        report.hash,
        report.simulated.as_secs_f64(),
        report.wall.as_secs_f64(),
        report.processor.as_secs_f64(),
        report.sights,
        report.violations.first().map_or("all is well", String::as_str),
    );
    if !report.violations.is_empty() {
        let last = report.events.len().saturating_sub(40);
        panic!("{}\n{}", report.violations.join("\n"), report.events[last..].join("\n"));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let hash = |(line, well): (String, bool)| {
        assert!(well, "{line}");
        line.split_whitespace().find(|word| word.starts_with("hash=")).unwrap().to_owned()
    };
    let first = hash(child(1));
    assert_eq!(first, hash(child(1)));
    assert_ne!(first, hash(child(2)));
}

#[test]
fn a_node_is_believed_again_when_its_wrong_clock_was_set_right() {
    // A node that was ten years ahead refused certificates on connections that it had; what it thought of them is not to stick to the
    // connections.
    let (line, well) = child(266);
    assert!(well, "{line}");
    assert!(counts(&line).iter().any(|(name, times)| name == "refused_for_time" && *times > 0));
}

#[test]
fn a_snapshot_whose_connection_died_without_a_word_is_sent_anew() {
    // A new member waited for it, and nobody knew, for a minute.
    let (line, well) = child(6245);
    assert!(well, "{line}");
}

#[test]
fn promises_that_are_put_to_the_test_one_by_one_hold() {
    let (line, well) = child_under(5, "probes");
    assert!(well, "{line}");
}

#[test]
fn a_vote_is_not_forgotten_when_the_power_goes_right_after_it() {
    let (line, well) = child_under(5, "votes");
    assert!(well, "{line}");
}

#[test]
fn a_leader_that_falls_silent_is_replaced_soon_time_after_time() {
    let (line, well) = child_under(5, "elections");
    assert!(well, "{line}");
}

#[test]
fn nothing_that_was_promised_breaks_under_many_seeds() {
    let seeds = variable(SEEDS).map_or(DAILY, |text| range(&text));
    let jobs = variable(JOBS).and_then(|text| text.parse().ok()).unwrap_or(DAILY_JOBS);
    let began = Instant::now();
    let seen = Mutex::new(BTreeMap::<String, u64>::new());
    let todo = Mutex::new(seeds.clone());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let Some(seed) = todo.lock().unwrap().next() else { return };
                    let (line, well) = child(seed);
                    println!("{line}");
                    for (name, times) in counts(&line) {
                        *seen.lock().unwrap().entry(name).or_default() += times;
                    }
                    if !well {
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let took: Duration = began.elapsed();
    println!("seeds {seeds:?} in {:.0} s, failed: {failed:?}", took.as_secs_f64());
    assert!(
        failed.is_empty(),
        "failing seeds: {failed:?}. To repeat one: {SEED}={} {ECHO}=1 cargo test --test simulation -- --ignored --exact \
         seeds::one_seed --nocapture",
        failed[0]
    );
    let never: Vec<_> =
        seen.into_inner().unwrap().into_iter().filter(|(_, times)| *times == 0).collect();
    assert!(seeds != DAILY || never.is_empty(), "no seed had any of this: {never:?}");
}
