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

/// How often the leader's port is tried: a dying process closes its files one after another.
const TRIES: u32 = 5;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);
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

/// Looks after a leader whose stream of batches has ended. Only one look at a time.
pub(crate) fn look_after<F: Fs>(node: &Node<F>) {
    if node.ending() || node.0.suspecting.swap(true, Ordering::AcqRel) {
        return;
    }
    let node = node.clone();
    tokio::spawn(async move {
        if let Some(suspect) = suspect(&node)
            && refuses(|| node.0.link.peers.knock(&suspect.address)).await
        {
            replace(&node, &suspect).await;
        }
        node.0.suspecting.store(false, Ordering::Release);
    });
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

/// Whether nobody listens at an address: its host says so itself.
async fn refuses<T>(knock: impl Fn() -> T) -> bool
where
    T: Future<Output = io::Result<()>>,
{
    for _ in 0..TRIES {
        match tokio::time::timeout(CONNECT, knock()).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return true,
            // Its listener may be closed last.
            Ok(Ok(())) => tokio::time::sleep(PAUSE).await,
            Ok(Err(_)) | Err(_) => return false,
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
    use super::*;

    #[tokio::test]
    async fn a_port_is_closed_only_if_its_host_refuses_connections() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let knock = |address: String| async move {
            tokio::net::TcpStream::connect(address).await.map(drop)
        };
        assert!(!refuses(|| knock(address.clone())).await);
        drop(listener);
        assert!(refuses(|| knock(address.clone())).await);
        assert!(!refuses(|| knock("no.such.host.invalid:1".to_owned())).await);
    }
}
