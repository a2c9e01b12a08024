//! `holdfast operator init`: the root key is made and split here, before any server hears of it, so that no lost answer can
//! lose the shares.

use std::path::PathBuf;

use serde::Serialize;

use super::shares::{SharesView, may_be_done, remove, write_shares};

use crate::cli::cluster::{InitArgs as ClusterArgs, NodeArg, note_caller};
use crate::cli::exit::Exit;
use crate::cli::output::{Sheet, Show};
use crate::cli::pki::Pki;
use crate::cli::{CliError, Context, Done};
use crate::clock::{Clock as _, SystemClock};
use crate::crypto::{RootKey, Share, system_rng};

/// How to make a cluster with a root key in shares.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SplitInitArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How many shares are made, at most 32; each for another person
    #[arg(long, value_name = "N")]
    key_shares: u8,
    /// How many of them unseal a server, 2 or more
    #[arg(long, value_name = "N")]
    key_threshold: u8,
    /// Write each share to a file of its own in this directory instead of showing it
    #[arg(long, value_name = "DIR")]
    share_dir: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, args: SplitInitArgs) -> Done {
    let SplitInitArgs { cluster: args, key_shares, key_threshold, share_dir } = args;
    let pki = Pki::open(&args.pki)?;
    let signer = pki.signer(SystemClock.now())?;
    let root = RootKey::generate(&mut system_rng());
    let splitting = (key_shares, key_threshold);
    let shares = Share::split(&root, pki.cluster(), splitting, &mut system_rng())
        .map_err(|error| CliError::usage(crate::client::with_causes(&error)))?;
    let Some(set) = shares.first().map(|share| share.label().set) else {
        return Err(CliError::usage("--key-shares: must be 2 or more"));
    };
    let files = share_dir.map(|dir| write_shares(&dir, &shares)).transpose()?;
    let client = context.connection.client()?;
    let nodes = args.nodes.into_iter().map(|NodeArg(node)| node).collect();
    let made = client.init_split_cluster(nodes, &args.admin, &signer, (&root, set)).await;
    drop(root);
    let shown = |files: Option<Vec<PathBuf>>| SharesView::new(&shares, files);
    match made {
        Ok(made) => {
            context.printer.print(&InitView {
                cluster_id: made.cluster_id,
                epoch: made.epoch,
                first_administrator: args.admin.to_string(),
                share_set: set.id().to_string(),
                threshold: set.threshold(),
                shares: shown(files),
            })?;
            context.printer.progress(
                "note: only the server that was called is unsealed; give the others their shares with `holdfast operator \
                 unseal`. The shares are not kept anywhere and are never shown again",
            );
            note_caller(context, &args.admin);
            Ok(Exit::Ok)
        }
        Err(error) if may_be_done(&error) => {
            // They may be the only way into a cluster that is there.
            context.printer.print(&shown(files))?;
            let mut error = CliError::from(error);
            error.add(format!(
                "the shares above count only if the cluster was made with them: `holdfast operator status` then names set {}",
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

#[derive(Serialize)]
struct InitView {
    cluster_id: String,
    epoch: u32,
    first_administrator: String,
    share_set: String,
    threshold: u8,
    #[serde(flatten)]
    shares: SharesView,
}

impl Show for InitView {
    fn sheet(&self) -> Sheet {
        let count = self.shares.count();
        Sheet::new()
            .facts([
                ("cluster", self.cluster_id.clone()),
                ("escrow key epoch", self.epoch.to_string()),
                ("first administrator", self.first_administrator.clone()),
                ("shares", format!("{} of {count} unseal a server", self.threshold)),
                ("share set", self.share_set.clone()),
            ])
            .line("")
            .line(self.shares.sheet().as_str().trim_end())
    }
}
