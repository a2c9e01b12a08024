//! `holdfast cluster status`: every configured member, and an exit code that a script can wait for.

use holdfast_proto::v1;
use serde::Serialize;

use super::super::exit::{CliError, Exit};
use super::super::output::{Sheet, Show, dash, time};
use super::super::{Context, Done};
use crate::client::Client;

pub(super) async fn run(context: &Context, client: &Client) -> Done {
    let status = StatusView::from(client.status(true).await?);
    let exit = status.exit();
    context.printer.print(&status)?;
    match exit {
        Exit::Unavailable => Err(CliError::new(exit, status.leaderless())),
        Exit::Partial => Err(CliError::new(exit, status.cares())),
        Exit::Failed => Err(CliError::new(exit, status.diverged())),
        other => Ok(other),
    }
}

/// The cluster as one node sees it.
#[derive(Debug, Serialize)]
struct StatusView {
    cluster_id: String,
    answered_by: u64,
    /// 0 if nobody leads, as far as the answering node has had proof within the last second.
    leader_id: u64,
    /// Whether a majority of the voters answers.
    quorum: bool,
    members: Vec<MemberView>,
    /// Until when quotas of disclosures are lifted; 0 if they are not.
    mass_recovery_until_ms: u64,
}

/// One member; of one that does not answer nothing is known but how it is configured.
#[derive(Debug, Serialize)]
struct MemberView {
    node_id: u64,
    client_address: String,
    peer_address: String,
    incarnation: String,
    voter: bool,
    reachable: bool,
    error: String,
    role: &'static str,
    term: Option<u64>,
    last_log_index: Option<u64>,
    applied_index: Option<u64>,
    snapshot_index: Option<u64>,
    unsealed: Option<bool>,
    state_digest: String,
    record_count: Option<u64>,
    audit_sequence: Option<u64>,
    log_bytes: Option<u64>,
    version: String,
    /// Where its state differs from another member's; empty if it does not.
    divergence: String,
    disk_low: Option<bool>,
}

impl From<v1::MemberStatus> for MemberView {
    fn from(member: v1::MemberStatus) -> Self {
        let role = match v1::MemberRole::try_from(member.role) {
            Ok(v1::MemberRole::Leader) => "leader",
            Ok(v1::MemberRole::Follower) => "follower",
            Ok(v1::MemberRole::Candidate) => "candidate",
            Ok(v1::MemberRole::Learner) => "learner",
            Ok(v1::MemberRole::IsolatedLeader) => "isolated leader",
            Ok(v1::MemberRole::Unspecified) | Err(_) => "unknown",
        };
        let node = member.node.unwrap_or_default();
        let reachable = member.reachable;
        let number = |value: u64| reachable.then_some(value);
        Self {
            node_id: node.node_id,
            client_address: node.client_address,
            peer_address: node.peer_address,
            incarnation: member.incarnation,
            voter: member.voter,
            reachable,
            error: member.error,
            role,
            term: number(member.term),
            last_log_index: number(member.last_log_index),
            applied_index: number(member.applied_index),
            snapshot_index: number(member.snapshot_index),
            unsealed: reachable.then_some(member.unsealed),
            state_digest: hex::encode(&member.state_digest),
            record_count: number(member.record_count),
            audit_sequence: number(member.audit_head.map_or(0, |head| head.sequence)),
            log_bytes: number(member.log_bytes),
            version: member.version,
            divergence: member.divergence,
            disk_low: reachable.then_some(member.disk_low),
        }
    }
}

impl From<v1::GetStatusResponse> for StatusView {
    fn from(status: v1::GetStatusResponse) -> Self {
        let members: Vec<_> = status.members.into_iter().map(MemberView::from).collect();
        let voters = members.iter().filter(|member| member.voter);
        let (all, answering) = voters.fold((0_u32, 0_u32), |(all, answering), member| {
            let answers = u32::from(member.reachable);
            (all.saturating_add(1), answering.saturating_add(answers))
        });
        Self {
            cluster_id: status.cluster_id,
            answered_by: status.node_id,
            leader_id: status.leader_id,
            quorum: answering > all / 2,
            members,
            mass_recovery_until_ms: status.mass_recovery_until_ms,
        }
    }
}

impl StatusView {
    fn exit(&self) -> Exit {
        if self.members.iter().any(|member| !member.divergence.is_empty()) {
            Exit::Failed
        } else if self.leader_id == 0 || !self.quorum {
            Exit::Unavailable
        } else if self.members.iter().any(MemberView::needs_care) {
            Exit::Partial
        } else {
            Exit::Ok
        }
    }

    fn diverged(&self) -> String {
        let diverged = self.members.iter().filter(|member| !member.divergence.is_empty());
        let names: Vec<_> = diverged
            .map(|member| format!("STATE DIVERGED: node {} {}", member.node_id, member.divergence))
            .collect();
        names.join("; ")
    }

    /// Why nobody leads, as far as can be told from what the members said.
    fn leaderless(&self) -> String {
        if self.quorum {
            return "nobody leads at the moment, although a majority of the voters answers: an election is under way; \
                    ask again in a few seconds"
                .to_owned();
        }
        let missing = self.members.iter().filter(|member| !member.reachable);
        let names: Vec<_> = missing.map(MemberView::unreachable).collect();
        format!("nobody leads: no majority of the voters answers: {}", names.join("; "))
    }

    /// What has to be seen to, one sentence for each fault.
    fn cares(&self) -> String {
        let mut cares = Vec::new();
        for member in &self.members {
            let id = member.node_id;
            if !member.reachable {
                cares.push(member.unreachable());
            }
            if member.unsealed == Some(false) {
                cares.push(format!(
                    "node {id} is sealed: it opens no keys; `holdfast operator status` says why, and whether it takes \
                     shares of the root key (`holdfast operator unseal`) or its file (auto_unseal_key_file)"
                ));
            }
            if member.disk_low == Some(true) {
                cares.push(format!("node {id} is short of disk: it takes no writes; make room"));
            }
        }
        cares.join("; ")
    }
}

impl MemberView {
    fn needs_care(&self) -> bool {
        !self.reachable || self.unsealed == Some(false) || self.disk_low == Some(true)
    }

    /// For the table's last column.
    fn fault(&self) -> &str {
        if !self.divergence.is_empty() {
            &self.divergence
        } else if self.disk_low == Some(true) && self.error.is_empty() {
            "disk low"
        } else {
            &self.error
        }
    }

    fn unreachable(&self) -> String {
        format!("node {} does not answer: {}", self.node_id, self.error)
    }
}

impl Show for StatusView {
    fn sheet(&self) -> Sheet {
        let rows = self.members.iter().map(|member| {
            let number = |value: Option<u64>| value.map_or("-".to_owned(), |n| n.to_string());
            let known = |text: &str| if member.reachable { text } else { "-" }.to_owned();
            [
                member.node_id.to_string(),
                if member.reachable { member.role } else { "UNREACHABLE" }.to_owned(),
                if member.voter { "yes" } else { "no" }.to_owned(),
                member.client_address.clone(),
                number(member.term),
                number(member.last_log_index),
                number(member.applied_index),
                known(if member.unsealed == Some(true) { "yes" } else { "NO" }),
                known(member.state_digest.get(..12).unwrap_or_default()),
                dash(member.fault()),
            ]
        });
        let leader =
            if self.leader_id == 0 { "none".to_owned() } else { self.leader_id.to_string() };
        let header = [
            "node", "role", "vote", "address", "term", "log", "applied", "unsealed", "digest",
            "error",
        ];
        let lifted = match self.mass_recovery_until_ms {
            0 => "in force".to_owned(),
            until => format!("LIFTED BY A MASS RECOVERY until {}", time(until)),
        };
        Sheet::new()
            .facts([
                ("cluster", dash(&self.cluster_id)),
                ("answered by node", self.answered_by.to_string()),
                ("leader", leader),
                ("majority", if self.quorum { "answers" } else { "DOES NOT ANSWER" }.to_owned()),
                ("quotas of disclosures", lifted),
            ])
            .line("")
            .table(header, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, reachable: bool) -> v1::MemberStatus {
        let node = v1::NodeSpec { node_id: id, ..Default::default() };
        let error = if reachable { "" } else { "connection refused" }.to_owned();
        let node = Some(node);
        let base = v1::MemberStatus { node, voter: true, reachable, error, ..Default::default() };
        v1::MemberStatus { unsealed: reachable, ..base }
    }

    #[test]
    fn an_unreachable_member_is_listed_with_its_error_and_makes_the_exit_code_partial() {
        let members = vec![member(1, true), member(2, false), member(3, true)];
        let status = v1::GetStatusResponse { leader_id: 1, members, ..Default::default() };
        let view = StatusView::from(status);
        assert_eq!(view.exit(), Exit::Partial);
        assert!(view.sheet().as_str().contains("connection refused"));
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["members"][1]["error"], "connection refused");
    }

    #[test]
    fn a_state_that_differs_is_named_and_makes_the_exit_code_failed() {
        let mut members = vec![member(1, true), member(2, true), member(3, false)];
        members[1].divergence = "differs from node 1 at log index 1024".to_owned();
        let status = v1::GetStatusResponse { leader_id: 1, members, ..Default::default() };
        let view = StatusView::from(status);
        assert_eq!(view.exit(), Exit::Failed);
        assert!(view.diverged().contains("node 2 differs from node 1"), "{}", view.diverged());
        assert!(view.sheet().as_str().contains("log index 1024"));
    }

    #[test]
    fn without_a_leader_or_a_majority_the_exit_code_is_unavailable() {
        for (leader_id, second) in [(0, true), (1, false)] {
            let members = vec![member(1, true), member(2, second), member(3, false)];
            let status = v1::GetStatusResponse { leader_id, members, ..Default::default() };
            assert_eq!(StatusView::from(status).exit(), Exit::Unavailable);
        }
    }

    #[test]
    fn of_an_unreachable_member_nothing_is_told_as_a_fact() {
        let members = vec![member(1, true), member(2, false), member(3, true)];
        let status = v1::GetStatusResponse { leader_id: 1, members, ..Default::default() };
        let json = serde_json::to_value(StatusView::from(status)).unwrap();
        for fact in ["term", "applied_index", "unsealed", "disk_low", "audit_sequence"] {
            assert!(json["members"][1][fact].is_null(), "{fact}: {json}");
            assert!(!json["members"][0][fact].is_null(), "{fact}: {json}");
        }
    }

    #[test]
    fn a_sealed_member_and_one_short_of_disk_are_named_and_make_the_exit_code_partial() {
        let mut members = vec![member(1, true), member(2, true), member(3, true)];
        members[1].unsealed = false;
        members[2].disk_low = true;
        let status = v1::GetStatusResponse { leader_id: 1, members, ..Default::default() };
        let view = StatusView::from(status);
        assert_eq!(view.exit(), Exit::Partial);
        let cares = view.cares();
        assert!(cares.contains("node 2 is sealed") && cares.contains("root key"), "{cares}");
        assert!(cares.contains("node 3 is short of disk"), "{cares}");
        assert!(!cares.contains("node 1"), "{cares}");
    }

    #[test]
    fn a_mass_recovery_is_shown_while_it_lasts() {
        for (until_ms, said) in [(0, "in force"), (1_700_000_000_000, "LIFTED BY A MASS RECOVERY")]
        {
            let status =
                v1::GetStatusResponse { mass_recovery_until_ms: until_ms, ..Default::default() };
            let view = StatusView::from(status);
            assert!(view.sheet().as_str().contains(said), "{}", view.sheet().as_str());
        }
    }

    #[test]
    fn an_election_is_told_from_a_lost_majority() {
        for (second, said, other) in
            [(true, "an election is under way", "no majority"), (false, "no majority", "election")]
        {
            let members = vec![member(1, true), member(2, second), member(3, false)];
            let status = v1::GetStatusResponse { leader_id: 0, members, ..Default::default() };
            let text = StatusView::from(status).leaderless();
            assert!(text.contains(said) && !text.contains(other), "{text}");
        }
    }
}
