//! `holdfast operator init`: the root key is made and split here, before any server hears of it, so that no lost answer can
//! lose the shares.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::cli::cluster::{InitArgs as ClusterArgs, NodeArg, note_caller};
use crate::cli::exit::Exit;
use crate::cli::output::{Sheet, Show};
use crate::cli::pki::Pki;
use crate::cli::{CliError, Context, Done};
use crate::client::ClientError;
use crate::clock::{Clock as _, SystemClock};
use crate::crypto::{RootKey, Share, system_rng};

/// How to make a cluster with a root key in shares.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InitArgs {
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

pub(super) async fn run(context: &Context, args: InitArgs) -> Done {
    let InitArgs { cluster: args, key_shares, key_threshold, share_dir } = args;
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
        Err(error) if may_be_made(&error) => {
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

/// Whether the cluster may have been made although the call failed.
fn may_be_made(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { outcome_unknown, .. } => *outcome_unknown,
        // A server that says no has made nothing; what it could not tell it says by another reason.
        ClientError::Refused(refusal) => {
            ["INTEGRITY_CHECK_FAILED", "LOCAL_FAULT", "BUG", ""].contains(&refusal.reason.as_str())
        }
        ClientError::IdentityRefused { .. }
        | ClientError::ServerNotTrusted { .. }
        | ClientError::File { .. }
        | ClientError::Field(_)
        | ClientError::Format(_)
        | ClientError::Seal(_)
        | ClientError::EscrowKey(_)
        | ClientError::Receipt(_)
        | ClientError::AuditChain(_) => false,
        ClientError::Answer(_) => true,
    }
}

fn write_shares(dir: &Path, shares: &[Share]) -> Result<Vec<PathBuf>, CliError> {
    let fault = |path: &Path, error: std::io::Error| {
        CliError::usage(format!("{}: {error}; nothing was made", path.display()))
    };
    std::fs::create_dir_all(dir).map_err(|error| fault(dir, error))?;
    let mut files = Vec::with_capacity(shares.len());
    for share in shares {
        let label = share.label();
        let path = dir.join(format!("share-{}-of-{}.txt", label.number, label.set.shares()));
        let mut text = share.expose_text();
        text.push('\n');
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(
                |mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()),
            );
        written.map_err(|error| fault(&path, error))?;
        files.push(path);
    }
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| fault(dir, error))?;
    Ok(files)
}

/// Takes shares away that are of no cluster.
fn remove(files: &[PathBuf], context: &Context) {
    for path in files {
        if let Err(error) = std::fs::remove_file(path) {
            let what = format!("{} stays behind, a share of nothing: {error}", path.display());
            context.printer.progress(what);
        }
    }
}

/// A share as it is shown.
struct Shown(Zeroizing<String>);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Shares, or the files that they are in.
#[derive(Serialize)]
struct SharesView {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shares: Vec<Shown>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    share_files: Vec<PathBuf>,
}

impl SharesView {
    fn new(shares: &[Share], files: Option<Vec<PathBuf>>) -> Self {
        match files {
            Some(share_files) => Self { shares: Vec::new(), share_files },
            None => {
                let shares = shares.iter().map(|share| Shown(share.expose_text())).collect();
                Self { shares, share_files: Vec::new() }
            }
        }
    }
}

impl Show for SharesView {
    fn sheet(&self) -> Sheet {
        let shares = self.shares.iter().zip(1..);
        let sheet = shares.fold(Sheet::new(), |sheet, (share, number)| {
            sheet.line(format!("share {number}: {}", share.0.as_str()))
        });
        self.share_files.iter().fold(sheet, |sheet, path| sheet.line(path.display().to_string()))
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
        let count = self.shares.shares.len().max(self.shares.share_files.len());
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
