//! `holdfast cluster`: making the cluster, looking at it, changing it.

use std::path::PathBuf;

use holdfast_proto::v1;
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::output::{Sheet, Show, dash};
use super::pki::Pki;
use super::views::ChangedView;
use super::{Context, Done};
use crate::client::{Address, Client};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::{NodeId, OperatorName};

/// How long `replace` waits for the new server to catch up.
const CATCH_UP: std::time::Duration = std::time::Duration::from_secs(3600);

/// What to do with the cluster.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ClusterCommand {
    /// Make a cluster of servers that run and are empty; once in its life
    Init(InitArgs),
    /// Show every configured member; exit code 7 if one doesn't answer, 3 if nobody leads, 1 if states differ
    Status,
    /// Add an empty server as a learner: it gets the log and has no vote
    AddNode {
        /// The server: ID=CLIENT_HOST:PORT,PEER_HOST:PORT
        node: NodeArg,
    },
    /// Give a learner a vote, once it has caught up
    Promote {
        /// Its id
        node: u64,
    },
    /// Remove a server for ever; its id must not be used again
    RemoveNode {
        /// Its id
        node: u64,
    },
    /// Replace a dead server: add a new one under a new id, give it a vote, remove the old one
    Replace {
        /// Id of the dead server
        old: u64,
        /// The new server: ID=CLIENT_HOST:PORT,PEER_HOST:PORT
        node: NodeArg,
    },
    /// Hand leadership to another server
    Transfer {
        /// Its id; the one that is furthest ahead if left out
        node: Option<u64>,
    },
}

/// How to make a cluster.
#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// Directory that `holdfast pki init` made
    #[arg(long, value_name = "DIR")]
    pki: PathBuf,
    /// A server: ID=CLIENT_HOST:PORT,PEER_HOST:PORT; several times
    #[arg(long = "node", value_name = "ID=CLIENT,PEER", required = true)]
    nodes: Vec<NodeArg>,
    /// Operator who becomes the first administrator
    #[arg(long, value_name = "NAME")]
    admin: OperatorName,
}

/// A server and its addresses, as written on the command line.
#[derive(Debug, Clone)]
pub(super) struct NodeArg(v1::NodeSpec);

impl std::str::FromStr for NodeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "must be ID=CLIENT_HOST:PORT,PEER_HOST:PORT".to_owned();
        let (id, addresses) = text.split_once('=').ok_or_else(bad)?;
        let node_id: u64 = id.parse().ok().filter(|id| *id > 0).ok_or_else(bad)?;
        let (client, peer) = addresses.split_once(',').ok_or_else(bad)?;
        let address = |text: &str| text.parse::<Address>().map_err(|error| error.what.to_string());
        Ok(Self(v1::NodeSpec {
            node_id,
            client_address: address(client)?.to_string(),
            peer_address: address(peer)?.to_string(),
        }))
    }
}

pub(super) async fn run(context: &Context, command: ClusterCommand) -> Done {
    let client = context.connection.client()?;
    let say = |what: String| context.printer.print(&ChangedView { what, changed: true });
    match command {
        ClusterCommand::Init(args) => return init(context, &client, args).await,
        ClusterCommand::Status => return status(context, &client).await,
        ClusterCommand::AddNode { node: NodeArg(node) } => {
            let id = node.node_id;
            client.add_learner(node).await?;
            say(format!(
                "node {id} is a learner; give it a vote with `holdfast cluster promote {id}`"
            ))?;
        }
        ClusterCommand::Promote { node } => {
            client.promote(NodeId::new(node)).await?;
            say(format!("node {node} has a vote"))?;
        }
        ClusterCommand::RemoveNode { node } => {
            client.remove_node(NodeId::new(node)).await?;
            say(format!("node {node} is removed; never use its id again"))?;
        }
        ClusterCommand::Replace { old, node: NodeArg(node) } => {
            let new = node.node_id;
            replace(context, &client, old, node).await?;
            say(format!("node {new} has taken the place of node {old}"))?;
        }
        ClusterCommand::Transfer { node } => {
            let leader = client.transfer_leadership(node.map(NodeId::new)).await?;
            say(format!("node {leader} leads"))?;
        }
    }
    Ok(Exit::Ok)
}

async fn replace(
    context: &Context,
    client: &Client,
    old: u64,
    node: v1::NodeSpec,
) -> Result<(), CliError> {
    let new = node.node_id;
    if new == old {
        return Err(CliError::usage("the new server needs an id that was never used"));
    }
    let step = |what: &str, then: &str, error: crate::client::ClientError| {
        let error = CliError::from(error);
        CliError::new(error.exit(), format!("{what}: {error}; {then}"))
    };
    client.add_learner(node).await.map_err(|e| step("adding it failed", "nothing changed", e))?;
    context.printer.progress(format!("node {new} is a learner and catches up"));
    promote_when_level(context, client, NodeId::new(new)).await.map_err(|error| {
        let then = format!("it stays a learner: go on with `holdfast cluster promote {new}`");
        step("giving it a vote failed", &then, error)
    })?;
    context.printer.progress(format!("node {new} has a vote"));
    client.remove_node(NodeId::new(old)).await.map_err(|error| {
        let then = format!("go on with `holdfast cluster remove-node {old}`");
        step("removing the old server failed", &then, error)
    })?;
    Ok(())
}

/// Asks again while the new server catches up; each call waits a few seconds by itself.
async fn promote_when_level(
    context: &Context,
    client: &Client,
    node: NodeId,
) -> Result<(), crate::client::ClientError> {
    let deadline = tokio::time::Instant::now() + CATCH_UP;
    loop {
        match client.promote(node).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                let text = error.to_string();
                let late = tokio::time::Instant::now() >= deadline;
                if late || !text.contains("entries behind") {
                    return Err(error);
                }
                context.printer.progress(text);
            }
        }
    }
}

async fn init(context: &Context, client: &Client, args: InitArgs) -> Done {
    let signer = Pki::open(&args.pki)?.signer(SystemClock.now())?;
    let nodes = args.nodes.into_iter().map(|NodeArg(node)| node).collect();
    let made = client.init_cluster(nodes, &args.admin, &signer).await?;
    context.printer.print(&InitView {
        cluster_id: made.cluster_id,
        epoch: made.epoch,
        first_administrator: args.admin.to_string(),
    })?;
    Ok(Exit::Ok)
}

async fn status(context: &Context, client: &Client) -> Done {
    let status = StatusView::from(client.status(true).await?);
    let exit = status.exit();
    context.printer.print(&status)?;
    match exit {
        Exit::Unavailable => {
            Err(CliError::new(exit, "nobody leads: no majority of the voters answers"))
        }
        Exit::Partial => Err(CliError::new(exit, status.unreachable())),
        Exit::Failed => Err(CliError::new(exit, status.diverged())),
        other => Ok(other),
    }
}

#[derive(Debug, Serialize)]
struct InitView {
    cluster_id: String,
    epoch: u32,
    first_administrator: String,
}

impl Show for InitView {
    fn sheet(&self) -> Sheet {
        Sheet::new().facts([
            ("cluster", self.cluster_id.clone()),
            ("escrow key epoch", self.epoch.to_string()),
            ("first administrator", self.first_administrator.clone()),
        ])
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
}

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
    term: u64,
    last_log_index: u64,
    applied_index: u64,
    snapshot_index: u64,
    unsealed: bool,
    state_digest: String,
    record_count: u64,
    audit_sequence: u64,
    log_bytes: u64,
    version: String,
    /// Where its state differs from another member's; empty if it does not.
    divergence: String,
    disk_low: bool,
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
        Self {
            node_id: node.node_id,
            client_address: node.client_address,
            peer_address: node.peer_address,
            incarnation: member.incarnation,
            voter: member.voter,
            reachable: member.reachable,
            error: member.error,
            role,
            term: member.term,
            last_log_index: member.last_log_index,
            applied_index: member.applied_index,
            snapshot_index: member.snapshot_index,
            unsealed: member.unsealed,
            state_digest: hex::encode(&member.state_digest),
            record_count: member.record_count,
            audit_sequence: member.audit_head.map_or(0, |head| head.sequence),
            log_bytes: member.log_bytes,
            version: member.version,
            divergence: member.divergence,
            disk_low: member.disk_low,
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
        }
    }
}

impl StatusView {
    fn exit(&self) -> Exit {
        if self.members.iter().any(|member| !member.divergence.is_empty()) {
            Exit::Failed
        } else if self.leader_id == 0 || !self.quorum {
            Exit::Unavailable
        } else if self.members.iter().any(|member| !member.reachable) {
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

    fn unreachable(&self) -> String {
        let missing = self.members.iter().filter(|member| !member.reachable);
        let names: Vec<_> = missing
            .map(|member| format!("node {} does not answer: {}", member.node_id, member.error))
            .collect();
        names.join("; ")
    }
}

impl Show for StatusView {
    fn sheet(&self) -> Sheet {
        let rows = self.members.iter().map(|member| {
            let known = |text: String| if member.reachable { text } else { "-".to_owned() };
            [
                member.node_id.to_string(),
                if member.reachable { member.role } else { "UNREACHABLE" }.to_owned(),
                if member.voter { "yes" } else { "no" }.to_owned(),
                member.client_address.clone(),
                known(member.term.to_string()),
                known(member.last_log_index.to_string()),
                known(member.applied_index.to_string()),
                known(if member.unsealed { "yes" } else { "no" }.to_owned()),
                known(member.state_digest.get(..12).unwrap_or_default().to_owned()),
                dash(if member.divergence.is_empty() { &member.error } else { &member.divergence }),
            ]
        });
        let leader =
            if self.leader_id == 0 { "none".to_owned() } else { self.leader_id.to_string() };
        let header = [
            "node", "role", "vote", "address", "term", "log", "applied", "unsealed", "digest",
            "error",
        ];
        Sheet::new()
            .facts([
                ("cluster", dash(&self.cluster_id)),
                ("answered by node", self.answered_by.to_string()),
                ("leader", leader),
                ("majority", if self.quorum { "answers" } else { "DOES NOT ANSWER" }.to_owned()),
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
        v1::MemberStatus { node: Some(node), voter: true, reachable, error, ..Default::default() }
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
    fn a_server_is_written_as_id_client_address_and_peer_address() {
        let NodeArg(node) = "4=db4.example:7900,[::1]:7901".parse().unwrap();
        assert_eq!((node.node_id, node.peer_address.as_str()), (4, "[::1]:7901"));
        for bad in ["4", "0=a:1,b:2", "x=a:1,b:2", "4=a:1", "4=a,b:2"] {
            assert!(bad.parse::<NodeArg>().is_err(), "{bad}");
        }
    }
}
