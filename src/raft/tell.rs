//! Says in the log who leads and which members are silent: once for each change, not with every message that fails.
//!
//! The consensus library warns of each heartbeat that doesn't get through, dozens a second; those lines are left out at a
//! bare level (see `telemetry`), and what an operator needs to know of them is said here.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use super::contact::last_answers;
use super::node::Node;
use crate::domain::NodeId;
use crate::fs::Fs;

/// How often a node looks.
const LOOK: Duration = Duration::from_millis(250);
/// A member that has not answered its leader for so long is called silent.
const SILENT: Duration = Duration::from_secs(1);

/// What is to be seen now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    /// Who leads, by proof of a quorum, and its term.
    leader: Option<(NodeId, u64)>,
    /// The members that don't answer; only the leader knows.
    silent: BTreeSet<u64>,
}

/// One change.
#[derive(Debug, PartialEq, Eq)]
enum Tiding {
    Leads(NodeId, u64),
    NobodyLeads,
    Silent(u64),
    Answers(u64),
}

/// Tells of changes; ends with the node.
pub(crate) async fn watch<F: Fs>(node: Node<F>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Seen::default();
    // How long this node has led: a member had no chance to answer before.
    let mut led_since = None;
    loop {
        let now = tick.tick().await;
        if node.ending() {
            return;
        }
        let mut seen = look(&node);
        let leads = seen.leader.is_some_and(|(leader, _)| leader == node.0.identity.id);
        led_since = if leads { led_since.or(Some(now)) } else { None };
        if led_since.is_none_or(|since| now.duration_since(since) < SILENT) {
            seen.silent.clear();
        }
        for tiding in changes(&told, &seen, leads) {
            tell(&tiding, node.0.identity.id);
        }
        told = seen;
    }
}

fn look<F: Fs>(node: &Node<F>) -> Seen {
    let metrics = node.0.link.raft.metrics();
    let metrics = metrics.borrow_watched();
    let leader = node.known_leader(&metrics).map(|leader| (leader, metrics.current_term));
    let answering: BTreeSet<u64> =
        last_answers(&metrics).filter(|(_, age)| *age < SILENT).map(|(id, _)| id).collect();
    let members = metrics.membership_config.nodes().map(|(id, _)| *id);
    let silent = members.filter(|id| *id != metrics.id && !answering.contains(id)).collect();
    Seen { leader, silent }
}

/// What is new. Whether a member answers is told by the leader alone; who stops leading has nothing to say of them.
fn changes(told: &Seen, seen: &Seen, leads: bool) -> Vec<Tiding> {
    let mut news = Vec::new();
    if told.leader != seen.leader {
        news.push(match seen.leader {
            Some((leader, term)) => Tiding::Leads(leader, term),
            None => Tiding::NobodyLeads,
        });
    }
    news.extend(seen.silent.difference(&told.silent).map(|id| Tiding::Silent(*id)));
    if leads {
        news.extend(told.silent.difference(&seen.silent).map(|id| Tiding::Answers(*id)));
    }
    news
}

fn tell(tiding: &Tiding, own: NodeId) {
    match tiding {
        Tiding::Leads(leader, term) if *leader == own => {
            tracing::info!(term, "this node leads");
        }
        Tiding::Leads(leader, term) => {
            tracing::info!(leader = leader.get(), term, "another node leads");
        }
        Tiding::NobodyLeads => tracing::warn!("no leader is known that a majority follows"),
        Tiding::Silent(member) => tracing::warn!(member, "a member does not answer"),
        Tiding::Answers(member) => tracing::info!(member, "a member answers again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(leader: Option<(u64, u64)>, silent: &[u64]) -> Seen {
        let leader = leader.map(|(id, term)| (NodeId::new(id), term));
        Seen { leader, silent: silent.iter().copied().collect() }
    }

    #[test]
    fn each_change_is_told_once_and_what_stays_is_not() {
        let (none, leads) = (seen(None, &[]), seen(Some((1, 2)), &[]));
        assert_eq!(changes(&none, &leads, true), [Tiding::Leads(NodeId::new(1), 2)]);
        assert_eq!(changes(&leads, &leads, true), []);
        let silent = seen(Some((1, 2)), &[3]);
        assert_eq!(changes(&leads, &silent, true), [Tiding::Silent(3)]);
        assert_eq!(changes(&silent, &silent, true), []);
        assert_eq!(changes(&silent, &leads, true), [Tiding::Answers(3)]);
    }

    #[test]
    fn who_stops_leading_does_not_say_that_a_silent_member_answers() {
        let silent = seen(Some((1, 2)), &[3]);
        assert_eq!(changes(&silent, &seen(None, &[]), false), [Tiding::NobodyLeads]);
        let other = seen(Some((2, 3)), &[]);
        assert_eq!(changes(&silent, &other, false), [Tiding::Leads(NodeId::new(2), 3)]);
    }
}
