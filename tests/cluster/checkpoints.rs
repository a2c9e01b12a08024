//! Checkpoints of three servers: to a collector that goes and comes, and against a cluster that is put back to an older state.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast::cli::local_cluster::{LocalNode, http_get, wait_for};
use holdfast::client::Client;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::data_dir::copy_dir;
use crate::harness::{Harness, LIMIT, disclosure, new_escrow, new_key, write_file};

/// A place beside the data directory of a node.
fn beside(node: &LocalNode, name: &str) -> PathBuf {
    node.data_dir().with_file_name(name)
}

/// Servers with more lines in the table `audit` of their configurations.
async fn with_audit(lines: impl Fn(&LocalNode) -> String) -> Harness {
    Harness::start_mounted(toml::Table::new(), |cluster| {
        for node in cluster.nodes() {
            let mut file = std::fs::File::options().append(true).open(node.config_path()).unwrap();
            write!(file, "\n[audit]\ncheckpoint_records = 1\n{}\n", lines(node)).unwrap();
        }
        Vec::new()
    })
    .await
}

/// Waits until a server shows this line among its metrics.
async fn metric(node: &LocalNode, line: &str) {
    let address = node.ports().http_address();
    wait_for(line, LIMIT, || async {
        let page = http_get(&address, "/metrics").await.map_err(|error| error.to_string())?.1;
        if page.lines().any(|found| found == line) { Ok(()) } else { Err(page) }
    })
    .await
    .unwrap();
}

/// A collector of logs, until it is dropped.
struct Collector {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    async fn start(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let hears = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                // Whoever dies in the middle says all of it once more.
                if stream.read_to_end(&mut bytes).await.is_ok() {
                    hears.lock().extend(messages(&bytes));
                    drop(stream.shutdown().await);
                }
            }
        });
        Self { port, heard, task }
    }

    async fn kill(mut self) -> (u16, Vec<String>) {
        self.task.abort();
        drop((&mut self.task).await);
        (self.port, std::mem::take(&mut *self.heard.lock()))
    }

    /// The newest record that each node has sent a checkpoint of.
    fn newest(&self) -> BTreeMap<u64, u64> {
        let mut newest = BTreeMap::new();
        for message in self.heard.lock().iter() {
            let number = |name: &str| {
                let (_, rest) = message.split_once(&format!(" {name}=\"")).unwrap();
                rest.split_once('"').unwrap().0.parse().unwrap()
            };
            let sequence: u64 = number("sequence");
            newest.entry(number("node")).and_modify(|n| *n = sequence.max(*n)).or_insert(sequence);
        }
        newest
    }

    async fn has_heard(&self, nodes: &[u64], sequence: u64) {
        wait_for("the collector is level", LIMIT, || async {
            let newest = self.newest();
            let level = nodes.iter().all(|node| newest.get(node).is_some_and(|n| *n >= sequence));
            if level { Ok(()) } else { Err(format!("{newest:?}, not {sequence}")) }
        })
        .await
        .unwrap();
    }
}

/// The messages of a stream, each after its length.
fn messages(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(blank) = bytes.iter().position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(&bytes[..blank]).unwrap().parse().unwrap();
        let (message, rest) = bytes[blank + 1..].split_at(length);
        found.push(String::from_utf8(message.to_vec()).unwrap());
        bytes = rest;
    }
    found
}

/// Number of the newest record.
async fn head(auditor: &Client) -> u64 {
    auditor.audit_checkpoint(false).await.unwrap().facts.head.sequence
}

#[tokio::test(flavor = "multi_thread")]
async fn every_checkpoint_reaches_a_collector_that_dies_while_a_leader_dies() {
    let collector = Collector::start(0).await;
    let port = collector.port;
    let mut harness = with_audit(|node| {
        let spool = beside(node, "syslog").display().to_string();
        format!("syslog = \"tcp://127.0.0.1:{port}\"\nsyslog_spool = {spool:?}")
    })
    .await;
    let (agent, auditor) = (harness.client(&harness.agent), harness.client(&harness.auditor));
    let escrow = || async {
        agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();
    };
    escrow().await;
    collector.has_heard(&[1, 2, 3], head(&auditor).await).await;

    let (port, mut heard) = collector.kill().await;
    escrow().await;
    for node in harness.cluster.nodes() {
        metric(node, "holdfast_audit_syslog_failing 1.0").await;
    }
    let leader = harness.cluster.leader().await.unwrap();
    harness.cluster.kill_node(leader).await.unwrap();
    let agent = harness.client(&harness.agent);
    agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();
    let missed = head(&auditor).await;
    let others: Vec<u64> = (1..=3).filter(|node| *node != leader).collect();
    let collector = Collector::start(port).await;
    collector.has_heard(&others, missed).await;
    harness.cluster.start_node(leader).await.unwrap();
    collector.has_heard(&[1, 2, 3], missed).await;
    for node in harness.cluster.nodes() {
        metric(node, "holdfast_audit_syslog_waiting 0.0").await;
        metric(node, "holdfast_audit_syslog_failing 0.0").await;
    }

    // What the collector has is what an auditor needs, and nothing else.
    heard.extend(collector.kill().await.1);
    let lines = heard.iter().map(|message| message.split_once("] ").unwrap().1.to_owned() + "\n");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (checkpoints, export) = (path("checkpoints"), path("export"));
    write_file(Path::new(&checkpoints), lines.collect::<String>().as_bytes());
    let auditor = harness.auditor.clone();
    harness.run(&auditor, &["audit", "export", "--out", &export]).await.ends_with(0);
    let verify = ["audit", "verify", &export, "--checkpoint", &checkpoints, "-o", "json"];
    let held = harness.run(&auditor, &verify).await.ends_with(0).json();
    assert_eq!(held["anchors"].as_u64(), Some(u64::try_from(heard.len()).unwrap()));
}

/// Somebody stops all servers, and puts older copies of all their disks back: nothing in them contradicts that.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_put_back_to_an_older_state_is_given_away_by_its_checkpoints() {
    let mut harness = with_audit(|node| {
        format!("checkpoint_file = {:?}", beside(node, "checkpoints").display().to_string())
    })
    .await;
    let agent = harness.client(&harness.agent);
    let first = new_escrow(harness.device);
    agent.escrow(&first, &new_key(), None).await.unwrap();
    harness.cluster.stop().await.unwrap();
    for node in harness.cluster.nodes() {
        copy_dir(&node.data_dir(), &beside(node, "older"));
    }
    harness.cluster.start_nodes().await.unwrap();
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
    let helen = harness.client(&harness.help_desk);
    helen.disclose(&disclosure(first.protector)).await.unwrap();
    let newest = head(&harness.client(&harness.auditor)).await;
    let noted = format!("\"sequence\":{newest},");
    for node in harness.cluster.nodes() {
        wait_for("a checkpoint of the disclosure", LIMIT, || async {
            let file = std::fs::read_to_string(beside(node, "checkpoints")).unwrap_or_default();
            if file.contains(&noted) { Ok(()) } else { Err(file) }
        })
        .await
        .unwrap();
    }

    harness.cluster.stop().await.unwrap();
    for node in harness.cluster.nodes() {
        std::fs::rename(node.data_dir(), beside(node, "newer")).unwrap();
        std::fs::rename(beside(node, "older"), node.data_dir()).unwrap();
    }
    harness.cluster.start_nodes().await.unwrap();
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
    for node in harness.cluster.nodes() {
        metric(node, "holdfast_audit_chain_conflict 1.0").await;
    }
    let (addresses, ca) = (harness.cluster.endpoints(), harness.cluster.client_ca());
    let helen = harness.hasty(&addresses, &ca, &harness.help_desk);
    let refused = helen.disclose(&disclosure(first.protector)).await.unwrap_err().to_string();
    assert!(refused.contains("AUDIT_CHAIN_CONFLICT"), "{refused}");
    // A laptop does not wait for that.
    agent.escrow(&new_escrow(harness.device), &new_key(), None).await.unwrap();

    // Whoever has looked takes the evidence away.
    harness.cluster.stop().await.unwrap();
    for node in harness.cluster.nodes() {
        std::fs::rename(beside(node, "checkpoints"), beside(node, "evidence")).unwrap();
    }
    harness.cluster.start_nodes().await.unwrap();
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
    let helen = harness.client(&harness.help_desk);
    helen.disclose(&disclosure(first.protector)).await.unwrap();
}
