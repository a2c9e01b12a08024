//! A server that disclosed nothing has no key in its memory, and its memory goes to no disk and to no other program.

use std::os::unix::fs::FileExt as _;

use holdfast::cli::local_cluster::LocalCluster;
use holdfast::crypto::system_rng;
use holdfast::domain::{ProtectorKind, RecoveryKey};

use crate::harness::{Harness, LIMIT, disclosure, new_escrow, new_key};
use crate::planted::{Search, forms};
use crate::require;

const PAGE: usize = 4096;
const PIECE: usize = 256 * PAGE;
const ZEROS: [u8; PAGE] = [0; PAGE];

/// Searches the memory of a process: all that is its own, and not only a file that it maps and can't write to. Pages of zeros,
/// most of what an allocator sets aside, are passed over.
fn in_memory(search: &Search, pid: u32) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut found, mut pages) = (Vec::new(), 0);
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let of_a_file = fields.get(5).is_some_and(|name| name.starts_with('/'));
        let own = fields[1].starts_with("rw") || fields[1].starts_with('r') && !of_a_file;
        if !own {
            continue;
        }
        let address = |text| usize::from_str_radix(text, 16).unwrap();
        let (from, to) = fields[0].split_once('-').unwrap();
        let (from, to) = (address(from), address(to));
        // A key may lie across two pages, of which neither is all zeros.
        let mut run = Vec::new();
        for at in (from..to).step_by(PIECE) {
            let piece = read(&memory, at, PIECE.min(to - at));
            for page in piece.chunks(PAGE) {
                if page == &ZEROS[..page.len()] {
                    found.extend(search.in_bytes(&format!("{pid} {line}"), &run));
                    run.clear();
                } else {
                    pages += 1;
                    run.extend_from_slice(page);
                }
            }
        }
        found.extend(search.in_bytes(&format!("{pid} {line}"), &run));
    }
    assert!(pages > 1000, "only {pages} pages of the memory of {pid} were searched");
    found
}

/// A piece of memory; zeros where there is nothing to read, because it was given back to the system meanwhile.
fn read(memory: &std::fs::File, at: usize, length: usize) -> Vec<u8> {
    let mut piece = vec![0; length];
    let offset = |at| u64::try_from(at).unwrap();
    if memory.read_exact_at(&mut piece, offset(at)).is_err() {
        piece.fill(0);
        for (n, page) in piece.chunks_mut(PAGE).enumerate() {
            if memory.read_exact_at(page, offset(at + n * PAGE)).is_err() {
                page.fill(0);
            }
        }
    }
    piece
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
    let luks2 = RecoveryKey::generate(ProtectorKind::Luks2RecoveryKey, &mut system_rng());
    let keys = [new_key(), new_key(), luks2];
    let (mut ids, mut protectors) = (Vec::new(), Vec::new());
    for key in &keys {
        let escrow = new_escrow(harness.device);
        agent.escrow(&escrow, key, Some(b"package")).await.unwrap();
        ids.push(("an id of a key".to_owned(), escrow.protector.as_bytes().to_vec()));
        protectors.push(escrow.protector);
    }
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    let (ids, keys) = (Search::new(ids), Search::new(keys.iter().flat_map(forms).collect()));
    let pids = pids(&harness.cluster);
    for pid in &pids {
        assert!(!in_memory(&ids, *pid).is_empty(), "what a server has in memory is found");
        assert_eq!(in_memory(&keys, *pid), [""; 0]);
    }
    assert!(!in_memory(&keys, std::process::id()).is_empty(), "a key that is there is found");

    // One server discloses all of them: it has them for a moment, and the others, of which one leads or has forwarded, never.
    let helen = harness.client_of_node(1, &harness.help_desk);
    for protector in protectors {
        helen.disclose(&disclosure(protector)).await.unwrap();
    }
    for pid in &pids[1..] {
        assert_eq!(in_memory(&keys, *pid), [""; 0]);
    }
    // What TLS and HTTP have freed is not wiped: whether something is left is chance, and nothing is promised of it.
    let left = in_memory(&keys, pids[0]);
    println!("in the memory of the server that disclosed them: {left:#?}");
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
