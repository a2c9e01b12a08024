//! A server that disclosed nothing has no key in its memory, and its memory goes to no disk and to no other program.

use std::os::unix::fs::FileExt as _;

use holdfast::cli::local_cluster::LocalCluster;
use holdfast::domain::RecoveryKey;

use crate::harness::{Harness, LIMIT, new_escrow, new_key};
use crate::planted::{Search, forms};
use crate::require;

const PAGE: usize = 4096;

/// Searches all memory of a process that it can write to. Pages of zeros, most of what an allocator sets aside, are passed over.
fn in_memory(search: &Search, pid: u32) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = Vec::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        if !rest.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let address = |text| u64::from_str_radix(text, 16).unwrap();
        let (from, to) = (address(from), address(to));
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // What was given back to the system meanwhile can't be read.
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        let pages: Vec<&[u8]> = bytes.chunks(PAGE).collect();
        // A key may lie across two pages, of which neither is all zeros.
        for run in pages.split(|page| *page == &[0; PAGE][..page.len()]) {
            found.extend(search.in_bytes(&format!("{pid} {line}"), &run.concat()));
        }
    }
    found
}

fn pids(cluster: &LocalCluster) -> Vec<u32> {
    cluster.nodes().iter().map(|node| node.pid().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_disclosed_nothing_has_no_key_in_its_memory() {
    if !require::root() {
        return;
    }
    let harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let keys: Vec<RecoveryKey> = (0..3).map(|_| new_key()).collect();
    let mut ids = Vec::new();
    for key in &keys {
        let escrow = new_escrow(harness.device);
        agent.escrow(&escrow, key, Some(b"package")).await.unwrap();
        ids.push(("an id of a key".to_owned(), escrow.protector.as_bytes().to_vec()));
    }
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    let (ids, keys) = (Search::new(ids), Search::new(keys.iter().flat_map(forms).collect()));
    for pid in pids(&harness.cluster) {
        assert!(!in_memory(&ids, pid).is_empty(), "what a server has in memory is found");
        assert_eq!(in_memory(&keys, pid), [""; 0]);
    }
    assert!(!in_memory(&keys, std::process::id()).is_empty(), "a key that is there is found");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_leaves_a_core_or_lets_its_user_read_its_memory() {
    let harness = Harness::start().await;
    for pid in pids(&harness.cluster) {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        // Nor can it be raised again.
        assert!(core.split_whitespace().skip(4).take(2).eq(["0", "0"]), "{core}");
        // What belongs to such a process is given to root by the kernel.
        let mem = std::fs::metadata(format!("/proc/{pid}/mem")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&mem), 0);
        if !rustix::process::geteuid().is_root() {
            std::fs::File::open(format!("/proc/{pid}/mem")).unwrap_err();
        }
    }
}
