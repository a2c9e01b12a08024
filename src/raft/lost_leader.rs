//! A leader whose process has died is replaced at once, without waiting for its lease.
//!
//! When a process dies, the kernel closes its connections, and its port refuses new ones: far earlier than silence says
//! so. A follower that sees both ends the dead leader's lease and asks for a pre-vote. The others grant that only if they
//! have seen the same, and a leader that a quorum still answers refuses it itself, so one follower alone can't disturb
//! anybody. Nothing rests on the lease: reads are confirmed by a quorum each time (ReadIndex), and votes are counted as
//! ever. A host that dies without a word is still noticed by its silence.

use std::future::Future;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;

use super::node::Node;
use super::types::{TypeConfig, Vote};
use crate::fs::Fs;

/// Pauses between the tries of the leader's port, in milliseconds. A dying process closes its files one after another, and a busy
/// machine takes its time with that.
const PAUSES_MS: [u64; 8] = [10, 20, 20, 50, 100, 200, 400, 800];
/// A port that takes longer to refuse is not known to be closed.
const CONNECT: Duration = Duration::from_millis(200);
/// Voters stand one after another, so that they don't take each other's votes.
const STEP: Duration = Duration::from_millis(40);
/// How often a node asks for votes; then the ordinary timeouts go on.
const ROUNDS: u32 = 8;

/// What is known of the leader that is suspected.
struct Suspect {
    leader: u64,
    address: String,
    vote: Vote,
    /// Voters that stand before this node.
    before: u32,
    /// Voters that may stand.
    voters: u32,
}

/// Looks after a leader whose stream of batches has ended. One look at a time; a stream that ends meanwhile is followed by another
/// look, since the one under way may have seen the leader alive just before.
pub(crate) fn look_after<F: Fs>(node: &Node<F>) {
    if node.ending() || node.0.suspicions.fetch_add(1, Ordering::AcqRel) > 0 {
        return;
    }
    let node = node.clone();
    tokio::spawn(async move {
        loop {
            let known = node.0.suspicions.load(Ordering::Acquire);
            look(&node).await;
            let last =
                node.0.suspicions.compare_exchange(known, 0, Ordering::AcqRel, Ordering::Acquire);
            if last.is_ok() || node.ending() {
                return;
            }
        }
    });
}

async fn look<F: Fs>(node: &Node<F>) {
    let Some(suspect) = suspect(node) else { return };
    let before = node.0.heard_ms.load(Ordering::Relaxed);
    let heard = || node.ending() || node.0.heard_ms.load(Ordering::Relaxed) > before;
    if refuses(|| node.0.link.peers.knock(&suspect.address), heard).await {
        replace(node, &suspect).await;
    }
}

fn suspect<F: Fs>(node: &Node<F>) -> Option<Suspect> {
    let metrics = node.0.link.raft.metrics();
    let metrics = metrics.borrow_watched();
    let leader = metrics.current_leader.filter(|leader| *leader != metrics.id)?;
    let membership = &metrics.membership_config;
    let mut voters: Vec<u64> = membership.voter_ids().filter(|id| *id != leader).collect();
    voters.sort_unstable();
    voters.dedup();
    let before = voters.iter().position(|id| *id == metrics.id)?;
    Some(Suspect {
        leader,
        address: membership.get_node(&leader)?.peer_address.clone(),
        vote: metrics.vote,
        before: u32::try_from(before).ok()?,
        voters: u32::try_from(voters.len()).ok()?,
    })
}

/// Whether nobody listens at a door: its host says so itself. The tries end when the leader is heard again.
async fn refuses<T>(knock: impl Fn() -> T, heard: impl Fn() -> bool) -> bool
where
    T: Future<Output = io::Result<()>>,
{
    for pause in PAUSES_MS {
        match tokio::time::timeout(CONNECT, knock()).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
            // Its listener may be closed last, and resets those that wait at it.
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Ok(Err(_)) | Err(_) => return false,
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if heard() {
            return false;
        }
    }
    false
}

async fn replace<F: Fs>(node: &Node<F>, suspect: &Suspect) {
    let raft = &node.0.link.raft;
    tracing::info!(leader = suspect.leader, "the leader's process has ended; its lease is over");
    // Openraft's word for "the leader gives up its lease": what the leader itself says when it hands over.
    let over: TransferLeaderRequest<TypeConfig> =
        TransferLeaderRequest::new(suspect.vote, suspect.leader, None);
    if raft.handle_transfer_leader(over).await.is_err() {
        return;
    }
    tokio::time::sleep(STEP * suspect.before).await;
    for _ in 0..ROUNDS {
        // A vote that has changed is an election under way, or its end.
        let same = raft.metrics().borrow_watched().vote == suspect.vote;
        if !same || node.ending() || raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(STEP * suspect.voters.max(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::TryFutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_port_is_closed_only_if_its_host_refuses_connections() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let knock = |address: String| async move {
            tokio::net::TcpStream::connect(address).await.map(drop)
        };
        assert!(!refuses(|| knock(address.clone()), || true).await);
        drop(listener);
        assert!(refuses(|| knock(address.clone()), || false).await);
        assert!(!refuses(|| knock("no.such.host.invalid:1".to_owned()), || false).await);
    }

    #[tokio::test]
    async fn a_process_that_closes_its_port_long_after_its_connections_is_found_dead() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let looks = std::cell::Cell::new(0);
        let listener = std::cell::RefCell::new(Some(listener));
        let heard = || {
            looks.set(looks.get() + 1);
            // As late as the last try but one.
            if looks.get() == PAUSES_MS.len() - 2 {
                listener.borrow_mut().take();
            }
            false
        };
        assert!(refuses(|| tokio::net::TcpStream::connect(&address).map_ok(drop), heard).await);
    }
}
