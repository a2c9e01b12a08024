//! The workload against real servers, and the checkers over what it wrote down.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod tamperings;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use holdfast::cli::local_cluster::{LocalCluster, LocalOptions, wait_for};
use holdfast::cli::pki::IssuedPaths;
use holdfast::client::IdentityFiles;
use holdfast::domain::{DeviceId, OperatorName};
use holdfast_chaos::check::{HISTORY, Status, Verdict, check_dir, check_events};
use holdfast_chaos::history::{
    Begin, Effect, Event, FaultEvent, FaultStep, NodeStatus, Return, Sample,
};
use holdfast_chaos::recorder::Recorder;
use holdfast_chaos::workload::{self, Agent, FinalPass, Operator, WorkloadOptions};
use tokio::sync::OnceCell;
use uuid::Uuid;

use tamperings::{TAMPERINGS, repeated, with_whole_listings};

const LIMIT: Duration = Duration::from_secs(60);

/// The server of the same build. This package has no binary of that name, so it is built if it isn't there yet.
/// `HOLDFAST_TEST_BINARY` names another.
fn binary() -> PathBuf {
    if let Some(given) = std::env::var_os("HOLDFAST_TEST_BINARY") {
        return given.into();
    }
    let own = std::env::current_exe().unwrap();
    let dir = own.parent().unwrap().parent().unwrap().to_owned();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "holdfast", "--bin", "holdfast"]);
    build.arg("--target-dir").arg(dir.parent().unwrap());
    if dir.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
    dir.join("holdfast")
}

fn settings() -> toml::Table {
    toml::toml! {
        [log]
        level = "info,openraft=warn"
        [raft]
        heartbeat_ms = 60
        election_min_ms = 400
        election_max_ms = 800
        [storage]
        wal_segment_bytes = 4194304
        view_cache_bytes = 16777216
    }
}

fn files(issued: IssuedPaths) -> IdentityFiles {
    IdentityFiles { cert: issued.certificate, key: issued.private_key }
}

fn operator(cluster: &LocalCluster, name: &str) -> Operator {
    let name: OperatorName = name.parse().unwrap();
    let files = files(cluster.operator(&name).unwrap());
    Operator { name, files }
}

fn endpoints(cluster: &LocalCluster) -> Vec<(u64, String)> {
    cluster.nodes().iter().map(|node| (node.id(), node.ports().client_address())).collect()
}

fn options(cluster: &LocalCluster, recorder: &Arc<Recorder>) -> WorkloadOptions {
    let agents = (0..4).map(|_| {
        let device = Uuid::new_v4();
        Agent { device, files: files(cluster.agent(DeviceId::new(device)).unwrap()) }
    });
    WorkloadOptions {
        endpoints: endpoints(cluster),
        ca: cluster.client_ca(),
        agents: agents.collect(),
        help_desk: (0..4).map(|at| operator(cluster, &format!("helen-{at}"))).collect(),
        auditor: operator(cluster, "arthur"),
        administrator: operator(cluster, "admin"),
        seed: 7,
        clients: 9,
        rate: 300,
        expected: Duration::from_secs(8),
        recorder: Arc::clone(recorder),
    }
}

/// What each server says of itself.
async fn sample(cluster: &LocalCluster, recorder: &Recorder) {
    let admin = cluster.administrator().unwrap();
    let Ok(answer) = admin.status(true).await else { return };
    for member in answer.members {
        let node = member.node.as_ref().unwrap().node_id;
        let status = member.reachable.then(|| NodeStatus {
            term: member.term,
            leads: answer.leader_id == node,
            leader: answer.leader_id,
            last_log: member.last_log_index,
            applied: member.applied_index,
            digest: hex::encode(&member.state_digest),
            divergence: member.divergence.clone(),
        });
        let at = recorder.now();
        recorder.record(&Event::Sample(Sample { at, node, status, rss: None, descriptors: None }));
    }
}

fn fault(at: u64, until: u64, step: FaultStep) -> Event {
    Event::Fault(FaultEvent {
        at,
        until,
        number: 1,
        kind: "kill".to_owned(),
        target: "node 2".to_owned(),
        nodes: vec![2],
        step,
        effect: Effect::Installed { seen: "the process is gone".to_owned() },
    })
}

fn begin() -> Event {
    Event::Begin(Begin {
        unix_ms: 0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        seed: 7,
        nodes: vec![1, 2, 3],
        seconds: 3,
        faults: vec!["kill".to_owned()],
        left_out: vec![],
        command: "cargo test".to_owned(),
    })
}

/// A run of some seconds in which a server is killed and started again. The pauses are the time that the load has.
async fn run(dir: &Path) {
    let options_of_cluster =
        LocalOptions { binary: binary(), dir: dir.join("cluster"), extra: settings() };
    let mut cluster = LocalCluster::prepare(options_of_cluster).unwrap();
    cluster.start().await.unwrap();
    let recorder = Recorder::create(&dir.join(HISTORY)).unwrap();
    recorder.record(&begin());
    let mut load = workload::start(options(&cluster, &recorder)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    sample(&cluster, &recorder).await;
    let at = recorder.now();
    cluster.kill_node(2).await.unwrap();
    recorder.record(&fault(at, recorder.now(), FaultStep::Install));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let at = recorder.now();
    cluster.start_node(2).await.unwrap();
    recorder.record(&fault(at, recorder.now(), FaultStep::Heal));
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.stop().await.unwrap();
    let pass = FinalPass { disclosures: 40 };
    load.final_pass(&endpoints(&cluster), pass).await.unwrap();
    level(&cluster, &recorder).await;
    recorder.record(&Event::End { at: recorder.now() });
    recorder.finish().unwrap();
    cluster.stop().await.unwrap();
}

/// Waits until all servers are at the same index, so that their digests can be compared.
async fn level(cluster: &LocalCluster, recorder: &Recorder) {
    let admin = cluster.administrator().unwrap();
    wait_for("all servers are level", LIMIT, || async {
        let answer = admin.status(true).await.map_err(|error| error.to_string())?;
        let first = answer.members.first().map_or(0, |member| member.applied_index);
        let level = answer.members.iter().all(|m| m.reachable && m.applied_index == first);
        if level { Ok(()) } else { Err(format!("{:?}", answer.members)) }
    })
    .await
    .unwrap();
    sample(cluster, recorder).await;
}

fn events(dir: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(dir.join(HISTORY)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn tell(verdict: &Verdict) -> String {
    let mut text = format!("{:?}\n", verdict.judgement);
    for reason in &verdict.reasons {
        text.push_str(reason);
        text.push('\n');
    }
    for result in &verdict.results {
        text.push_str(&format!(
            "{}: {:?}, {} {}, {:?}\n",
            result.name, result.status, result.checked, result.unit, result.notes
        ));
        for violation in result.violations.iter().take(3) {
            text.push_str(&format!("    {:?} {}\n", violation.ops, violation.what));
        }
    }
    text
}

/// The history of one run, for all tests.
static RUN: OnceCell<Vec<Event>> = OnceCell::const_new();

async fn history() -> &'static [Event] {
    RUN.get_or_init(|| async {
        let dir = tempfile::Builder::new().prefix("holdfast-chaos-").tempdir().unwrap();
        run(dir.path()).await;
        let verdict = check_dir(dir.path());
        holdfast_chaos::report::write(dir.path(), &verdict).unwrap();
        if let Some(kept) = std::env::var_os("HOLDFAST_TEST_KEEP") {
            for name in [HISTORY, "report.html", "report.json"] {
                std::fs::copy(dir.path().join(name), Path::new(&kept).join(name)).unwrap();
            }
        }
        events(dir.path())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_started_again_breaks_no_promise() {
    let verdict = check_events(history().await);
    for result in &verdict.results {
        let fine = match &result.status {
            Status::Held | Status::NotApplicable { .. } => true,
            // How fast debug servers are on a busy machine is no promise of the product.
            Status::Violated if result.name == "valid" => {
                result.violations.iter().all(|v| v.what.contains("operations a second"))
            }
            Status::Violated => ["live", "available"].contains(&result.name),
            _ => false,
        };
        assert!(fine, "{}: {}", result.name, tell(&verdict));
    }
    let checked = |name: &str| verdict.result(name).unwrap().checked;
    assert!(checked("lost") > 30 && checked("linear") > 50, "{}", tell(&verdict));
    assert!(checked("live") > 0 && checked("available") > 0, "{}", tell(&verdict));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tampering_with_a_recorded_history_is_caught_by_the_checker_that_it_is_for() {
    let events = with_whole_listings(history().await);
    let before = check_events(&events).violated();
    let repeated = repeated(&events);
    let is_repeat =
        |event: &Event| matches!(event, Event::Return(Return { op, .. }) if repeated.contains(op));
    for (what, checker, change) in TAMPERINGS {
        let mut tampered = events.clone();
        // The last place is changed: what is read in the last phase counts as much as what came before. Whether a read was
        // linearizable is not in its answer, so all reads are changed.
        let most = if what.starts_with("reads") { usize::MAX } else { 1 };
        let events = tampered.iter_mut().rev().filter(|event| !is_repeat(event));
        let changed = events.filter_map(|event| change(event).then_some(())).take(most).count();
        assert!(changed > 0, "there is nothing to change for {what}");
        let verdict = check_events(&tampered);
        let caught = verdict.violated().contains(&checker);
        let by_load = checker == "valid" && before.contains(&"valid");
        assert!(
            caught && !verdict.green(),
            "{what} was not caught by {checker}\n{}",
            tell(&verdict)
        );
        assert!(by_load || !before.contains(&checker), "{checker} was violated before {what}");
    }
}
