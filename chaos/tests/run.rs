//! A short run for real, after one whose harness was killed in the middle.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_chaos::history::{Effect, Event, FaultStep};

const LIMIT: Duration = Duration::from_secs(300);

/// Whether hosts with networks and disks of their own can be made; `HOLDFAST_REQUIRE=all` says that they have to.
fn can() -> bool {
    let kinds = ["partition-follower", "kill-follower", "delay"];
    let lack = kinds.iter().find_map(|name| {
        let kind = holdfast_chaos::fault::find_kind(name).unwrap();
        holdfast_chaos::fault::lacks(kind)
    });
    let Some(lack) = lack else { return true };
    let required = std::env::var_os("HOLDFAST_REQUIRE").is_some_and(|value| value == "all");
    assert!(!required, "HOLDFAST_REQUIRE=all, and {lack}");
    drop(writeln!(std::io::stderr(), "SKIPPED: a short run: {lack}"));
    false
}

/// One test at a time: each looks at what the machine has.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(out: &Path, faults: &str, duration: &str, more: &[&str]) -> Child {
    let program = env!("CARGO_BIN_EXE_holdfast-chaos");
    let server = Path::new(program).with_file_name("holdfast");
    assert!(server.is_file(), "{} is not built: test the whole workspace", server.display());
    let log = std::fs::File::create(out.with_extension("txt")).unwrap();
    let mut command = Command::new(program);
    command.args(["run", "--duration", duration, "--seed", "7", "--rate", "60", "--clients", "6"]);
    command.args(["--faults", faults, "--out"]).arg(out).args(more);
    command.arg("--server").arg(server).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

fn events(out: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(out.join("history.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// What a run has on the machine: mounts, and processes.
fn left(out: &Path) -> Vec<String> {
    let out = out.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut left: Vec<_> = mounts.lines().filter(|m| m.contains(&out)).map(str::to_owned).collect();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&out) {
            left.push(line);
        }
    }
    left
}

fn networks() -> BTreeSet<String> {
    let Ok(all) = std::fs::read_dir("/run/netns") else { return BTreeSet::new() };
    all.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Processes that delay packets. They have no file of a run open.
fn delayers() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains("delay-packets") {
            found.insert(process.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

fn groups() -> BTreeSet<String> {
    let Ok(all) = std::fs::read_dir("/sys/fs/cgroup/cpu") else { return BTreeSet::new() };
    let names = all.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("hfc-")).collect()
}

/// What runs have on the machine outside of their directories.
fn outside() -> BTreeSet<String> {
    networks().into_iter().chain(delayers()).chain(groups()).collect()
}

fn took_effect(events: &[Event], kind: &str, wanted: FaultStep) -> bool {
    events.iter().any(|event| match event {
        Event::Fault(fault) if fault.kind == kind && fault.step == wanted => {
            matches!(fault.effect, Effect::Installed { .. })
        }
        _ => false,
    })
}

fn interrupt(harness: &Child) {
    let pid = harness.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

/// Waits for the end of a harness, which nobody lets wait for ever.
fn ended(harness: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_until("the harness ends", || {
        status = harness.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

fn nothing_is_left(out: &Path, before: &BTreeSet<String>) {
    let log = std::fs::read_to_string(out.with_extension("txt")).unwrap();
    assert_eq!(left(out), Vec::<String>::new(), "{log}");
    let more: Vec<_> = outside().difference(before).cloned().collect();
    assert_eq!(more, Vec::<String>::new(), "{log}");
}

/// All faults took effect and were healed, and nothing bad was found.
fn came_to_its_end(out: &Path, faults: &[&str]) {
    let log = std::fs::read_to_string(out.with_extension("txt")).unwrap();
    let events = events(out);
    assert!(matches!(events.last(), Some(Event::End { .. })), "it came to its end\n{log}");
    for wanted in faults {
        for step in [FaultStep::Install, FaultStep::Heal] {
            assert!(took_effect(&events, wanted, step), "{wanted}, {step:?}\n{log}");
        }
    }
    for event in &events {
        if let Event::Finding(finding) = event {
            assert!(!finding.bad, "{finding:?}\n{log}");
        }
    }
    assert!(out.join("report.html").is_file(), "{log}");
}

#[test]
fn a_run_after_one_that_was_killed_sees_its_faults_and_leaves_nothing_of_either_behind() {
    if !can() {
        return;
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let before = outside();
    let killed = dir.path().join("killed");
    let mut harness = start(&killed, "delay", "30s", &[]);
    wait_until("packets are delayed", || {
        took_effect(&events(&killed), "delay", FaultStep::Install)
    });
    harness.kill().unwrap();
    harness.wait().unwrap();
    assert!(!left(&killed).is_empty(), "disks are mounted still");
    assert!(outside().len() > before.len(), "networks and a delayer are there still");

    let out = dir.path().join("second");
    let faults = ["kill-follower", "partition-follower"];
    let mut harness = start(&out, &faults.join(","), "6s", &[]);
    ended(&mut harness);
    came_to_its_end(&out, &faults);
    let images = |event: &&Event| match event {
        Event::Finding(finding) => {
            finding.checker == "plaintext" && finding.what.starts_with("disk images")
        }
        _ => false,
    };
    assert_eq!(events(&out).iter().filter(images).count(), 1, "the disks were searched");
    nothing_is_left(&killed, &before);
    nothing_is_left(&out, &before);
}

#[test]
fn a_run_that_is_interrupted_heals_and_takes_everything_away_at_whatever_moment() {
    if !can() {
        return;
    }
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let before = outside();

    let early = dir.path().join("early");
    let mut harness = start(&early, "pause-follower", "30s", &[]);
    wait_until("hosts are being made", || outside().len() > before.len());
    interrupt(&harness);
    assert_eq!(ended(&mut harness), Some(130));
    nothing_is_left(&early, &before);

    let late = dir.path().join("late");
    let mut harness = start(&late, "pause-follower", "30s", &[]);
    wait_until("a server stands still", || {
        took_effect(&events(&late), "pause-follower", FaultStep::Install)
    });
    interrupt(&harness);
    assert_eq!(ended(&mut harness), Some(130));
    assert!(took_effect(&events(&late), "pause-follower", FaultStep::Heal), "it is healed first");
    nothing_is_left(&late, &before);
}

#[test]
fn without_root_links_are_cut_and_slowed_by_a_proxy() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("plain");
    let before = outside();
    let faults = ["partition-leader", "delay"];
    let mut harness = start(&out, &faults.join(","), "20s", &["--plain"]);
    ended(&mut harness);
    came_to_its_end(&out, &faults);
    nothing_is_left(&out, &before);
}
