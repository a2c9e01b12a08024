//! `holdfast operator unseal`: one share at a time, for all servers or one.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use holdfast_proto::v1;
use serde::Serialize;
use zeroize::Zeroizing;

use super::nodes::{self, Member};
use crate::cli::exit::Exit;
use crate::cli::output::{Sheet, Show, dash};
use crate::cli::views::ChangedView;
use crate::cli::{CliError, Context, Done};
use crate::client::ClientError;
use crate::crypto::Share;
use crate::domain::NodeId;

/// Longest file that may hold a share, in bytes.
const MOST_BYTES: u64 = 1024;

/// How to unseal.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct UnsealArgs {
    /// Give the share to this server only
    #[arg(long, value_name = "ID")]
    node: Option<u64>,
    /// File that holds the share, - for standard input; asked for without echo if left out
    #[arg(long, value_name = "FILE", conflicts_with = "auto")]
    share_file: Option<PathBuf>,
    /// Give no share, but let servers read the root key from their files again, after `operator seal`; takes an
    /// administrator
    #[arg(long, conflicts_with = "node")]
    auto: bool,
}

pub(super) async fn run(context: &Context, args: UnsealArgs) -> Done {
    if args.auto {
        let changed = context.connection.client()?.unseal_cluster().await?;
        let what = "servers may read the root key from their files".to_owned();
        context.printer.print(&ChangedView { what, changed })?;
        return Ok(Exit::Ok);
    }
    // Who is to get it first: nobody types a share in vain.
    let members = nodes::members(context, args.node.map(NodeId::new)).await?;
    let share = read_share(args.share_file.as_deref())?;
    let given = members.iter().map(|member| give(member, &share));
    let given = futures::future::join_all(given).await;
    let view = UnsealView {
        share: share.label().number,
        threshold: share.label().set.threshold(),
        share_set: share.label().set.id().to_string(),
        nodes: members.iter().zip(&given).map(|(member, given)| node_view(member, given)).collect(),
    };
    let failed = given.iter().filter(|given| given.is_err()).count();
    if failed == given.len() {
        return Err(given.into_iter().find_map(Result::err).map_or_else(
            || CliError::failed("there is no server"),
            |error| CliError::new(error.exit(), format!("share {}: {error}", share.label().number)),
        ));
    }
    context.printer.print(&view)?;
    Ok(if failed > 0 { Exit::Partial } else { Exit::Ok })
}

async fn give(member: &Member, share: &Share) -> Result<v1::GiveShareResponse, CliError> {
    match &member.client {
        Ok(client) => client.give_share(share).await.map_err(|error: ClientError| error.into()),
        Err(why) => Err(CliError::failed(why.clone())),
    }
}

fn read_share(path: Option<&Path>) -> Result<Share, CliError> {
    let (text, from) = match path {
        None => {
            let typed = rpassword::prompt_password("share: ").map_err(|error| {
                CliError::usage(format!(
                    "no share can be asked for here ({error}): give --share-file"
                ))
            })?;
            (Zeroizing::new(typed.into_bytes()), "the share".to_owned())
        }
        Some(path) if path == Path::new("-") => {
            (read_short(std::io::stdin().lock(), path)?, "standard input".to_owned())
        }
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|error| unreadable(path, &error))?;
            (read_short(file, path)?, path.display().to_string())
        }
    };
    Share::parse(&text).map_err(|fault| CliError::usage(format!("{from}: {fault}")))
}

fn read_short(from: impl std::io::Read, path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    // With room from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * 1024));
    from.take(MOST_BYTES).read_to_end(&mut text).map_err(|error| unreadable(path, &error))?;
    Ok(text)
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::usage(format!("{}: {error}", path.display()))
}

#[derive(Debug, Serialize)]
struct UnsealView {
    /// Number of the share that was given.
    share: u8,
    threshold: u8,
    share_set: String,
    nodes: Vec<NodeView>,
}

#[derive(Debug, Serialize)]
struct NodeView {
    node_id: u64,
    client_address: String,
    unsealed: Option<bool>,
    /// How many shares it has; absent if it took none.
    shares_given: Option<u32>,
    /// Why it did not take the share; empty if it did.
    error: String,
}

fn node_view(member: &Member, given: &Result<v1::GiveShareResponse, CliError>) -> NodeView {
    let known = given.as_ref().ok();
    NodeView {
        node_id: member.id,
        client_address: member.address.clone(),
        unsealed: known.map(|given| given.unsealed),
        shares_given: known.map(|given| given.shares_given),
        error: given.as_ref().err().map(CliError::to_string).unwrap_or_default(),
    }
}

impl Show for UnsealView {
    fn sheet(&self) -> Sheet {
        let rows = self.nodes.iter().map(|node| {
            let state = match (node.unsealed, node.shares_given) {
                (Some(true), _) => "unsealed".to_owned(),
                (_, Some(given)) => format!("{given} of {}", self.threshold),
                (_, None) => "NOT TAKEN".to_owned(),
            };
            [node.node_id.to_string(), node.client_address.clone(), state, dash(&node.error)]
        });
        Sheet::new()
            .line(format!("share {} of set {}", self.share, self.share_set))
            .table(["node", "address", "state", "error"], rows)
    }
}
