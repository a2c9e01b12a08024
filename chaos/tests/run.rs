//! A short run for real, after one whose harness was killed in the middle.

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
use std::time::{Duration, Instant};

use holdfast_chaos::history::{Effect, Event, FaultStep};

const LIMIT: Duration = Duration::from_secs(120);

/// Whether hosts with networks and disks of their own can be made; `HOLDFAST_REQUIRE=all` says that they have to.
fn can() -> bool {
    let kinds = ["partition-follower", "kill-follower"];
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

fn start(out: &Path) -> Child {
    let program = env!("CARGO_BIN_EXE_holdfast-chaos");
    let server = Path::new(program).with_file_name("holdfast");
    assert!(server.is_file(), "{} is not built: test the whole workspace", server.display());
    let log = std::fs::File::create(out.with_extension("txt")).unwrap();
    let mut command = Command::new(program);
    command.args(["run", "--duration", "6s", "--seed", "7", "--rate", "60", "--clients", "6"]);
    command.args(["--faults", "kill-follower,partition-follower", "--out"]).arg(out);
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

#[test]
fn a_run_after_one_that_was_killed_sees_its_faults_and_leaves_nothing_of_either_behind() {
    if !can() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let before = networks();
    let killed = dir.path().join("killed");
    let mut harness = start(&killed);
    wait_until("the load runs", || {
        events(&killed).iter().any(|event| matches!(event, Event::Return(_)))
    });
    harness.kill().unwrap();
    harness.wait().unwrap();
    assert!(!left(&killed).is_empty(), "disks are mounted still");

    let out = dir.path().join("second");
    let mut harness = start(&out);
    wait_until("the second run ends", || harness.try_wait().unwrap().is_some());
    let log = std::fs::read_to_string(out.with_extension("txt")).unwrap();
    let events = events(&out);
    assert!(matches!(events.last(), Some(Event::End { .. })), "it came to its end\n{log}");
    for wanted in ["kill-follower", "partition-follower"] {
        for step in [FaultStep::Install, FaultStep::Heal] {
            let took_effect = |event: &Event| match event {
                Event::Fault(fault) if fault.kind == wanted && fault.step == step => {
                    matches!(fault.effect, Effect::Installed { .. })
                }
                _ => false,
            };
            assert!(events.iter().any(took_effect), "{wanted}, {step:?}\n{log}");
        }
    }
    let searched = |event: &Event| match event {
        Event::Finding(finding) => {
            assert!(!finding.bad, "{finding:?}\n{log}");
            finding.checker == "plaintext" && finding.what.starts_with("disk images")
        }
        _ => false,
    };
    assert!(events.iter().filter(|event| searched(event)).count() == 1, "{log}");
    assert!(out.join("report.html").is_file(), "{log}");
    assert_eq!(left(&killed), Vec::<String>::new());
    assert_eq!(left(&out), Vec::<String>::new());
    let more: Vec<_> = networks().difference(&before).cloned().collect();
    assert_eq!(more, Vec::<String>::new(), "networks are left");
}
