//! `holdfast operator rekey`: another root key. As at the making of a cluster it is made and split here.

use std::path::PathBuf;

use serde::Serialize;

use super::shares::{SharesView, may_be_done, remove, write_shares};
use crate::cli::exit::Exit;
use crate::cli::output::{Sheet, Show};
use crate::cli::{CliError, Context, Done};
use crate::client::{Client, ClientError};
use crate::crypto::{RootKey, Share, system_rng};
use crate::domain::ClusterId;

/// What the new root key is.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["key_shares", "key_file"]))]
pub(in crate::cli) struct RekeyArgs {
    /// How many shares are made of it, at most 32
    #[arg(long, value_name = "N", requires = "key_threshold")]
    key_shares: Option<u8>,
    /// How many of them unseal a server, 2 or more
    #[arg(long, value_name = "N", requires = "key_shares")]
    key_threshold: Option<u8>,
    /// Write each share to a file of its own in this directory instead of showing it
    #[arg(long, value_name = "DIR", requires = "key_shares")]
    share_dir: Option<PathBuf>,
    /// Take the root key in this file, which `holdfast pki root-key` made, and make no shares. Put it on every server
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, args: RekeyArgs) -> Done {
    let client = context.connection.client()?;
    match (args.key_file, args.key_shares, args.key_threshold) {
        (Some(path), ..) => {
            let root = RootKey::load_elsewhere(&path)
                .map_err(|error| CliError::usage(error.to_string()))?;
            let changed = client.rekey(&root, None).await?;
            context.printer.print(&RekeyView { changed, ..RekeyView::default() })?;
            context.printer.progress(format!(
                "note: {} has to take the place of auto_unseal_key_file on every server before it restarts",
                path.display()
            ));
            Ok(Exit::Ok)
        }
        (None, Some(shares), Some(threshold)) => {
            split(context, &client, (shares, threshold), args.share_dir).await
        }
        (None, ..) => Err(CliError::usage("give --key-shares and --key-threshold, or --key-file")),
    }
}

async fn split(
    context: &Context,
    client: &Client,
    splitting: (u8, u8),
    share_dir: Option<PathBuf>,
) -> Done {
    let cluster = client.status(false).await?.cluster_id;
    let cluster: ClusterId = cluster.parse().map_err(ClientError::Field)?;
    let root = RootKey::generate(&mut system_rng());
    let shares = Share::split(&root, cluster, splitting, &mut system_rng())
        .map_err(|error| CliError::usage(crate::client::with_causes(&error)))?;
    let Some(set) = shares.first().map(|share| share.label().set) else {
        return Err(CliError::usage("--key-shares: must be 2 or more"));
    };
    let files = share_dir.map(|dir| write_shares(&dir, &shares)).transpose()?;
    let changed = client.rekey(&root, Some(set)).await;
    drop(root);
    match changed {
        Ok(changed) => {
            context.printer.print(&RekeyView {
                changed,
                share_set: set.id().to_string(),
                threshold: set.threshold(),
                shares: Some(SharesView::new(&shares, files)),
            })?;
            context.printer.progress(
                "note: the old shares and the old root key open nothing that is stored from now on. Servers go on; give each \
                 its new shares with `holdfast operator unseal` before it restarts",
            );
            Ok(Exit::Ok)
        }
        Err(error) if may_be_done(&error) => {
            context.printer.print(&SharesView::new(&shares, files))?;
            let mut error = CliError::from(error);
            error.add(format!(
                "the shares above count only if the root key was changed: `holdfast operator status` then names set {}",
                set.id()
            ));
            Err(error)
        }
        Err(error) => {
            remove(files.as_deref().unwrap_or_default(), context);
            Err(error.into())
        }
    }
}

#[derive(Default, Serialize)]
struct RekeyView {
    changed: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    share_set: String,
    threshold: u8,
    #[serde(flatten)]
    shares: Option<SharesView>,
}

impl Show for RekeyView {
    fn sheet(&self) -> Sheet {
        let note = if self.changed { "" } else { " (nothing changed)" };
        let sheet = Sheet::new().line(format!("the root key is another one{note}"));
        let Some(shares) = &self.shares else { return sheet };
        sheet
            .facts([
                ("shares", format!("{} of {} unseal a server", self.threshold, shares.count())),
                ("share set", self.share_set.clone()),
            ])
            .line("")
            .line(shares.sheet().as_str().trim_end())
    }
}
