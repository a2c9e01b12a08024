//! New shares: written to files or shown, once.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::cli::output::{Sheet, Show};
use crate::cli::{CliError, Context};
use crate::client::ClientError;
use crate::crypto::Share;

/// Whether it may have been done although the call failed.
pub(super) fn may_be_done(error: &ClientError) -> bool {
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

/// Writes each share to a new file of its own, for its owner alone.
pub(super) fn write_shares(dir: &Path, shares: &[Share]) -> Result<Vec<PathBuf>, CliError> {
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

/// Takes shares away that are of nothing.
pub(super) fn remove(files: &[PathBuf], context: &Context) {
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
pub(super) struct SharesView {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shares: Vec<Shown>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    share_files: Vec<PathBuf>,
}

impl SharesView {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.shares.len().max(self.share_files.len())
    }

    pub(super) fn new(shares: &[Share], files: Option<Vec<PathBuf>>) -> Self {
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
