//! A disk that fails stops its server: nothing is tried again, and nothing that was acknowledged is lost.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use holdfast::cli::local_cluster::wait_for;
use tokio::net::TcpStream;

use crate::harness::{Harness, LIMIT};
use crate::load::Load;
use crate::require;

/// A running strace that makes system calls of a server fail.
struct Fault(Child);

impl Drop for Fault {
    fn drop(&mut self) {
        drop(self.0.kill());
        self.0.wait().unwrap();
    }
}

/// From now on, the next call on one of the files of a server's log fails.
async fn inject(harness: &Harness, node: u64, call: &str, error: &str) -> Fault {
    let segments = segments(&harness.cluster.node(node).unwrap().data_dir());
    let paths: Vec<_> = segments.into_iter().flat_map(|path| ["-P".into(), path]).collect();
    trace(harness, node, call, &format!("{error}:when=1"), &paths).await
}

/// Makes calls of a server fail: those on these files, or all if none are named.
async fn trace(harness: &Harness, node: u64, calls: &str, error: &str, paths: &[PathBuf]) -> Fault {
    let pid = harness.cluster.node(node).unwrap().pid().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={calls}:error={error}")]).args(paths);
    let fault = Fault(command.args(["-p", &pid.to_string()]).spawn().unwrap());
    wait_for("strace has attached, or its work is done", LIMIT, || async {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let untraced = status.lines().any(|line| line == "TracerPid:\t0");
        let ended = status.lines().any(|line| line.starts_with("State:\tZ"));
        if untraced && !ended { Err(status) } else { Ok(()) }
    })
    .await
    .unwrap();
    fault
}

fn segments(data_dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(data_dir.join("wal")).unwrap().map(|file| file.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_or_fsync_stops_the_server_with_a_clear_last_word_and_loses_nothing() {
    if !(require::root() && require::tool("strace")) {
        return;
    }
    let mut harness = Harness::start().await;
    let load = Load::start(&harness.client(&harness.agent), harness.device, 3);
    for (leads, call, error, words) in [
        (true, "fdatasync", "EIO", "fdatasync"),
        (false, "fdatasync", "EIO", "fdatasync"),
        (true, "pwrite64", "ENOSPC", "No space left on device"),
    ] {
        load.more(10).await;
        let leader = harness.cluster.leader().await.unwrap();
        let node = if leads { leader } else { leader % 3 + 1 };
        let fault = inject(&harness, node, call, error).await;
        let (code, last) = harness.last_word(node).await;
        drop(fault);
        assert_eq!(code, Some(70), "{last}");
        assert!(last.contains("the node can't go on"), "{last}");
        assert!(last.contains(words) && last.contains("/wal/"), "{last}");
        assert!(last.contains("failed write or fsync"), "{last}");
        let ports = harness.cluster.node(node).unwrap().ports();
        for address in [ports.client_address(), ports.peer_address(), ports.http_address()] {
            assert!(TcpStream::connect(&address).await.is_err(), "{address} still answers");
        }
        // The other two go on, and have everything.
        load.more(10).await;
        harness.cluster.start_node(node).await.unwrap();
        harness.cluster.wait_caught_up(node, LIMIT).await.unwrap();
    }
    let written = load.stop();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    written.all_are_there(&harness.client(&harness.agent)).await;
    harness.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_as_a_whole_gives_the_same_last_word_and_no_panic() {
    if !(require::root() && require::tool("strace")) {
        return;
    }
    let mut harness = Harness::start().await;
    let load = Load::start(&harness.client(&harness.agent), harness.device, 3);
    load.more(10).await;
    let node = harness.cluster.leader().await.unwrap();
    // Also what the view's engine would do on being closed.
    let fault = trace(&harness, node, "fsync,fdatasync", "EIO", &[]).await;
    let (code, last) = harness.last_word(node).await;
    drop(fault);
    assert_eq!(code, Some(70), "{last}");
    assert!(last.contains("the node can't go on") && last.contains("/wal/"), "{last}");
    load.more(10).await;
    harness.cluster.start_node(node).await.unwrap();
    let written = load.stop();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    written.all_are_there(&harness.client(&harness.agent)).await;
    harness.cluster.stop().await.unwrap();
}
