//! `holdfast operator`: who can open keys at all, the root key and its shares.

mod init;
mod nodes;
mod rekey;
mod rotate;
mod shares;
mod unseal;

use serde::Serialize;

use super::exit::Exit;
use super::output::{Sheet, Show, dash, time};
use super::views::ChangedView;
use super::{Context, Done};
use nodes::Member;

/// What to do with the root key.
#[derive(Debug, clap::Subcommand)]
pub(super) enum OperatorCommand {
    /// Make a cluster whose root key is split into shares, and show them once. `cluster init` makes one whose servers read
    /// the root key from a file
    Init(init::SplitInitArgs),
    /// Show for each server whether it can open keys, and what it takes; exit code 7 if one can't or doesn't answer
    Status,
    /// Give one share of the root key to each server that is sealed
    Unseal(unseal::UnsealArgs),
    /// Seal all servers at once: none opens a key or reads the root key by itself, also after a restart, until `unseal`
    Seal {
        /// Why; it is shown by `operator status`, and audited
        #[arg(long)]
        reason: String,
    },
    /// Change the root key, and split it anew: old shares open nothing that is stored from then on
    Rekey(rekey::RekeyArgs),
    /// Make a new epoch of the escrow key, to which devices seal their keys from then on. What is stored stays as it is
    Rotate,
    /// Seal stored keys to the newest epoch, while servers go on; may be repeated when it was cut off. Exit code 7 if some
    /// don't open
    Reseal,
}

pub(super) async fn run(context: &Context, command: OperatorCommand) -> Done {
    match command {
        OperatorCommand::Init(args) => init::run(context, args).await,
        OperatorCommand::Status => status(context).await,
        OperatorCommand::Unseal(args) => unseal::run(context, args).await,
        OperatorCommand::Rekey(args) => rekey::run(context, args).await,
        OperatorCommand::Rotate => rotate::rotate(context).await,
        OperatorCommand::Reseal => rotate::reseal(context).await,
        OperatorCommand::Seal { reason } => {
            let changed = context.connection.client()?.seal_cluster(&reason).await?;
            let what = "the cluster is sealed: no key is opened until `holdfast operator unseal`";
            context.printer.print(&ChangedView { what: what.to_owned(), changed })?;
            Ok(Exit::Ok)
        }
    }
}

async fn status(context: &Context) -> Done {
    let members = nodes::members(context, None).await?;
    let asked = members.into_iter().map(|member| async move {
        let status = match &member.client {
            Ok(client) => client.seal_status().await.map_err(|error| error.to_string()),
            Err(why) => Err(why.clone()),
        };
        (member, status)
    });
    let rows: Vec<_> = futures::future::join_all(asked).await;
    let view = SealStatusView::new(rows);
    context.printer.print(&view)?;
    Ok(if view.nodes.iter().all(|node| node.unsealed == Some(true)) {
        Exit::Ok
    } else {
        Exit::Partial
    })
}

/// The seal as all servers see it.
#[derive(Debug, Serialize)]
struct SealStatusView {
    /// Whether an operator sealed the cluster, as far as an answering server knows.
    cluster_sealed: bool,
    sealed_by: String,
    sealed_at_ms: u64,
    reason: String,
    /// Names the splitting that counts; empty if the root key is not split.
    share_set: String,
    shares: u32,
    threshold: u32,
    /// Newest epoch of the escrow key.
    epoch: u32,
    nodes: Vec<SealedNodeView>,
}

/// One server; of one that does not answer nothing is known.
#[derive(Debug, Serialize)]
struct SealedNodeView {
    node_id: u64,
    client_address: String,
    unsealed: Option<bool>,
    shares_given: Option<u32>,
    reads_key_file: Option<bool>,
    /// Why it can't open keys, or not those of a newer epoch, or does not answer.
    why: String,
}

impl SealStatusView {
    fn new(rows: Vec<(Member, Result<holdfast_proto::v1::GetSealStatusResponse, String>)>) -> Self {
        // Servers may be some entries apart: whatever one knows of a seal or a newer epoch counts.
        let answers = || rows.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let sealed = answers().find(|answer| answer.cluster_sealed).cloned().unwrap_or_default();
        let newest = answers().max_by_key(|answer| answer.epoch).cloned().unwrap_or_default();
        let set = newest.share_set.unwrap_or_default();
        let nodes = rows.iter().map(|(member, answer)| {
            let known = answer.as_ref().ok();
            SealedNodeView {
                node_id: member.id,
                client_address: member.address.clone(),
                unsealed: known.map(|answer| answer.unsealed),
                shares_given: known.map(|answer| answer.shares_given),
                reads_key_file: known.map(|answer| answer.reads_key_file),
                why: match answer {
                    // One of them at most is set.
                    Ok(answer) => format!("{}{}", answer.sealed_because, answer.trouble),
                    Err(why) => why.clone(),
                },
            }
        });
        Self {
            cluster_sealed: sealed.cluster_sealed,
            sealed_by: sealed.sealed_by,
            sealed_at_ms: sealed.sealed_at_ms,
            reason: sealed.reason,
            share_set: set.id,
            shares: set.shares,
            threshold: set.threshold,
            epoch: newest.epoch,
            nodes: nodes.collect(),
        }
    }
}

impl Show for SealStatusView {
    fn sheet(&self) -> Sheet {
        let sealed = if self.cluster_sealed {
            format!("by {} at {}: {}", self.sealed_by, time(self.sealed_at_ms), self.reason)
        } else {
            "no".to_owned()
        };
        let split = if self.share_set.is_empty() {
            "no: servers read it from a file".to_owned()
        } else {
            format!("{} of {} shares open it, set {}", self.threshold, self.shares, self.share_set)
        };
        let rows = self.nodes.iter().map(|node| {
            let state = match node.unsealed {
                Some(true) => "unsealed".to_owned(),
                Some(false) if self.threshold > 0 => {
                    format!(
                        "sealed, {} of {} shares",
                        node.shares_given.unwrap_or(0),
                        self.threshold
                    )
                }
                Some(false) => "sealed".to_owned(),
                None => "UNREACHABLE".to_owned(),
            };
            [node.node_id.to_string(), node.client_address.clone(), state, dash(&node.why)]
        });
        Sheet::new()
            .facts([
                ("sealed by an operator", sealed),
                ("root key split", split),
                ("escrow key epoch", self.epoch.to_string()),
            ])
            .line("")
            .table(["node", "address", "state", "why"], rows)
    }
}
