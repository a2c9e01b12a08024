//! Handing leadership on.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;

use super::api::RaftError;
use super::contact::last_answers;
use super::link::{LeaderLink, news_or_time};
use super::membership::Changed;
use crate::domain::NodeId;
use crate::fs::Fs;

/// How long a new leader may take to appear after a transfer.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(2);
/// How often it is looked whether a leader that hands over is still answered.
const LOOK: Duration = Duration::from_millis(50);

impl<F: Fs> LeaderLink<F> {
    /// Hands leadership to `to`, or to the voter that is furthest ahead.
    pub(super) async fn transfer(&self, to: Option<NodeId>) -> Result<Changed, RaftError> {
        if to == Some(self.id()) {
            return Ok(Changed { position: None, leader: to });
        }
        let target = self.transfer_target(to)?;
        self.raft
            .trigger()
            .transfer_leader(target)
            .await
            .map_err(|error| RaftError::Stopped(error.to_string()))?;
        let mut news = self.raft.server_metrics();
        let own = self.id().get();
        let taken = async {
            loop {
                let leader = news.borrow_and_update().current_leader;
                if let Some(leader) = leader.filter(|leader| *leader != own) {
                    return Ok(NodeId::new(leader));
                }
                // When all stop at once, nobody is left to take over.
                if leader == Some(own) {
                    self.transfer_target(to)?;
                }
                news_or_time(&mut news, LOOK).await?;
            }
        };
        let leader = tokio::time::timeout(TRANSFER_DEADLINE, taken)
            .await
            .map_err(|_| RaftError::Membership(format!("node {target} did not take over")))??;
        Ok(Changed { position: None, leader: Some(leader) })
    }

    fn transfer_target(&self, to: Option<NodeId>) -> Result<u64, RaftError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let own = self.id().get();
        let voters: BTreeSet<u64> =
            metrics.membership_config.voter_ids().filter(|id| *id != own).collect();
        let answering: BTreeSet<u64> = last_answers(&metrics)
            .filter(|(id, age)| voters.contains(id) && *age <= self.answers_within())
            .map(|(id, _)| id)
            .collect();
        if let Some(to) = to {
            return if answering.contains(&to.get()) {
                Ok(to.get())
            } else if voters.contains(&to.get()) {
                Err(RaftError::Membership(format!("node {to} does not answer")))
            } else {
                Err(RaftError::Membership(format!("node {to} is not another voter")))
            };
        }
        let replication = metrics.replication.iter().flatten();
        let ahead = replication
            .filter(|(id, _)| answering.contains(*id))
            .max_by_key(|(_, matched)| matched.map(|m| m.index));
        ahead
            .map(|(id, _)| *id)
            .ok_or_else(|| RaftError::Membership("no other voter answers".into()))
    }
}
