//! `holdfast cluster replace`: three changes in a row, any of which may have been made by an attempt before.

use holdfast_proto::v1;

use super::super::exit::{CliError, Exit};
use super::super::views::ChangedView;
use super::super::{Context, Done};
use crate::client::{Client, ClientError};
use crate::domain::NodeId;

/// How long the new server may take to catch up.
const CATCH_UP: std::time::Duration = std::time::Duration::from_secs(3600);

/// How a server stands in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Absent,
    Learner,
    Voter,
}

fn standing(status: &v1::GetStatusResponse, id: u64) -> Standing {
    let is_it = |member: &&v1::MemberStatus| member.node.as_ref().is_some_and(|n| n.node_id == id);
    match status.members.iter().find(is_it) {
        None => Standing::Absent,
        Some(member) if member.voter => Standing::Voter,
        Some(_) => Standing::Learner,
    }
}

pub(super) async fn run(context: &Context, client: &Client, old: u64, node: v1::NodeSpec) -> Done {
    let new = node.node_id;
    if new == old {
        return Err(CliError::usage("the new server needs an id that was never used"));
    }
    // Before any step: a mistyped id must not leave a cluster with a member more.
    let status = client.status(true).await?;
    let say = |what: String, changed: bool| context.printer.print(&ChangedView { what, changed });
    match (standing(&status, old), standing(&status, new)) {
        (Standing::Absent, Standing::Voter) => {
            say(
                format!("nothing to do: node {new} has a vote, and node {old} is no member"),
                false,
            )?;
            return Ok(Exit::Ok);
        }
        (Standing::Absent, Standing::Absent | Standing::Learner) => {
            let members: Vec<_> = status.members.iter().filter_map(|m| m.node.as_ref()).collect();
            let ids: Vec<_> = members.iter().map(|node| node.node_id.to_string()).collect();
            let what = format!(
                "node {old} is no member of the cluster; the members are {}; nothing was changed",
                ids.join(", ")
            );
            return Err(CliError::new(Exit::NotFound, what));
        }
        (Standing::Learner | Standing::Voter, standing) => {
            steps(context, client, old, node, standing).await?;
        }
    }
    say(format!("node {new} has taken the place of node {old}"), true)?;
    Ok(Exit::Ok)
}

async fn steps(
    context: &Context,
    client: &Client,
    old: u64,
    node: v1::NodeSpec,
    standing: Standing,
) -> Result<(), CliError> {
    let new = node.node_id;
    let step = |what: &str, then: &str, error: ClientError| {
        let error = CliError::from(error);
        CliError::new(error.exit(), format!("{what}: {error}; {then}"))
    };
    // Also for one that is a member already: the servers check that its addresses are the same.
    client.add_learner(node).await.map_err(|e| step("adding it failed", "nothing changed", e))?;
    if standing == Standing::Voter {
        context.printer.progress(format!("node {new} has a vote already"));
    } else {
        context.printer.progress(format!("node {new} is a learner and catches up"));
        promote_when_level(context, client, NodeId::new(new)).await.map_err(|error| {
            let then = format!("it stays a learner: go on with `holdfast cluster promote {new}`");
            step("giving it a vote failed", &then, error)
        })?;
        context.printer.progress(format!("node {new} has a vote"));
    }
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
) -> Result<(), ClientError> {
    let deadline = tokio::time::Instant::now() + CATCH_UP;
    loop {
        match client.promote(node).await {
            Ok(_) => return Ok(()),
            Err(error) => {
                let text = error.to_string();
                let late = tokio::time::Instant::now() >= deadline;
                if late || !text.contains("when it has caught up") {
                    return Err(error);
                }
                context.printer.progress(text);
            }
        }
    }
}
