//! `holdfast cluster`: making the cluster, looking at it, changing it.

mod replace;
mod status;

use std::path::PathBuf;

use holdfast_proto::v1;
use serde::Serialize;

use super::exit::Exit;
use super::output::{Sheet, Show};
use super::pki::Pki;
use super::views::ChangedView;
use super::{Context, Done};
use crate::client::{Address, Client};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::{NodeId, OperatorName};

/// What to do with the cluster.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ClusterCommand {
    /// Make a cluster of servers that run and are empty; once in its life
    Init(InitArgs),
    /// Show every configured member; exit code 7 if one doesn't answer, is sealed or short of disk, 3 if nobody leads, 1 if
    /// states differ
    Status,
    /// Add an empty server as a learner: it gets the log and has no vote. May take a minute, whatever --timeout says
    AddNode {
        /// The server: ID=CLIENT_HOST:PORT,PEER_HOST:PORT
        node: NodeArg,
    },
    /// Give a learner a vote, once it has caught up. May take a minute, whatever --timeout says
    Promote {
        /// Its id
        node: u64,
    },
    /// Remove a server for ever; its id must not be used again. May take a minute, whatever --timeout says
    RemoveNode {
        /// Its id
        node: u64,
    },
    /// Replace a dead server: add a new one under a new id, give it a vote, remove the old one. Waits up to an hour for it
    /// to catch up; may be repeated when it was cut off
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
    pub(super) pki: PathBuf,
    /// A server: ID=CLIENT_HOST:PORT,PEER_HOST:PORT; several times
    #[arg(long = "node", value_name = "ID=CLIENT,PEER", required = true)]
    pub(super) nodes: Vec<NodeArg>,
    /// Operator who becomes the first administrator
    #[arg(long, value_name = "NAME")]
    pub(super) admin: OperatorName,
}

/// A server and its addresses, as written on the command line.
#[derive(Debug, Clone)]
pub(super) struct NodeArg(pub(super) v1::NodeSpec);

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
        ClusterCommand::Status => return status::run(context, &client).await,
        ClusterCommand::Replace { old, node: NodeArg(node) } => {
            return replace::run(context, &client, old, node).await;
        }
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
        ClusterCommand::Transfer { node } => {
            let leader = client.transfer_leadership(node.map(NodeId::new)).await?;
            say(format!("node {leader} leads"))?;
        }
    }
    Ok(Exit::Ok)
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
    note_caller(context, &args.admin);
    Ok(Exit::Ok)
}

/// Says so if whoever made the cluster has no role in it.
pub(super) fn note_caller(context: &Context, admin: &OperatorName) {
    if let Some(caller) = context.connection.caller()
        && caller != admin.as_str()
    {
        context.printer.progress(format!(
            "note: {admin} is the administrator; {caller}, whose certificate made the cluster, has no role in it"
        ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_written_as_id_client_address_and_peer_address() {
        let NodeArg(node) = "4=db4.example:7900,[::1]:7901".parse().unwrap();
        assert_eq!((node.node_id, node.peer_address.as_str()), (4, "[::1]:7901"));
        for bad in ["4", "0=a:1,b:2", "x=a:1,b:2", "4=a:1", "4=a,b:2"] {
            assert!(bad.parse::<NodeArg>().is_err(), "{bad}");
        }
    }
}
