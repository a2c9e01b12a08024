//! The servers of the cluster, one by one: each has a seal of its own.

use crate::cli::{CliError, Context};
use crate::client::Client;
use crate::domain::NodeId;

/// A member and how it is reached.
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) address: String,
    /// A client of it alone, or why there can't be one.
    pub(super) client: Result<Client, String>,
}

/// All members, or one.
pub(super) async fn members(
    context: &Context,
    only: Option<NodeId>,
) -> Result<Vec<Member>, CliError> {
    let status = context.connection.client()?.status(false).await?;
    let nodes = status.members.into_iter().filter_map(|member| member.node);
    let members: Vec<_> = nodes
        .filter(|node| only.is_none_or(|only| only.get() == node.node_id))
        .map(|node| Member {
            id: node.node_id,
            client: context
                .connection
                .client_of(&node.client_address)
                .map_err(|error| error.to_string()),
            address: node.client_address,
        })
        .collect();
    match (members.is_empty(), only) {
        (true, Some(only)) => Err(CliError::usage(format!("node {only} is no member"))),
        (true, None) => Err(CliError::failed("the cluster has no members")),
        (false, _) => Ok(members),
    }
}
