//! Checkpoints of three servers, against a cluster that is put back to an older state.

use std::io::Write as _;
use std::path::PathBuf;

use holdfast::cli::local_cluster::{LocalNode, http_get, wait_for};
use holdfast::client::Client;

use crate::data_dir::copy_dir;
use crate::harness::{Harness, LIMIT, disclosure, new_escrow, new_key};

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

/// Number of the newest record.
async fn head(auditor: &Client) -> u64 {
    auditor.audit_checkpoint(false).await.unwrap().facts.head.sequence
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
