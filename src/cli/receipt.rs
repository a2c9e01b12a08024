//! `holdfast receipt`: receipts that were kept, verified without any server.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::escrow::ReceiptView;
use super::exit::{CliError, Exit};
use super::output::{Sheet, Show, time};
use super::values::guid;
use super::{Context, Done};
use crate::client::evidence::{EvidenceError, ReceiptWanted, SavedReceipt, VerifiedReceipt};
use crate::client::with_causes;
use crate::clock::{Clock as _, SystemClock};
use crate::crypto::Authority;
use crate::domain::{ClusterId, DeviceId, KeyVersion, ProtectorId, Timestamp, VolumeId};

/// What to do with receipts.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ReceiptCommand {
    /// Verify a receipt that `key escrow --receipt-out` kept, from the file and --cacert alone, however old it is
    Verify(VerifyArgs),
}

/// Which receipt to verify, and what it must be about.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The receipt
    file: PathBuf,
    /// It must be of this cluster
    #[arg(long, value_name = "UUID", value_parser = guid::<ClusterId>)]
    cluster: Option<ClusterId>,
    /// It must be for this device
    #[arg(long, value_name = "UUID", value_parser = guid::<DeviceId>)]
    device: Option<DeviceId>,
    /// It must be for this volume
    #[arg(long, value_name = "UUID", value_parser = guid::<VolumeId>)]
    volume: Option<VolumeId>,
    /// It must be for this key id
    #[arg(long, value_name = "UUID", value_parser = guid::<ProtectorId>)]
    protector: Option<ProtectorId>,
    /// It must be for this version of the key
    #[arg(long)]
    key_version: Option<u32>,
    /// It must be for sealed bytes with this SHA-256, as `key escrow -o json` prints it (64 hexadecimal digits)
    #[arg(long, value_name = "HEX", value_parser = digest)]
    sealed_digest: Option<[u8; 32]>,
    /// It must be for exactly this: the encoded EscrowRecoveryKeyRequest that an agent keeps until it has the receipt
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["device", "volume", "protector", "key_version", "sealed_digest"]
    )]
    sealed_key: Option<PathBuf>,
}

pub(super) fn run(context: &Context, command: ReceiptCommand) -> Done {
    let ReceiptCommand::Verify(args) = command;
    let ca = pinned_ca(context)?;
    let wanted = match &args.sealed_key {
        Some(path) => ReceiptWanted::of_request(open(path)?)
            .map_err(|error| failed(path, "nothing is verified", &error))?,
        None => ReceiptWanted {
            cluster: None,
            device: args.device,
            volume: args.volume,
            protector: args.protector,
            version: args.key_version.map(KeyVersion::new),
            sealed_digest: args.sealed_digest,
        },
    };
    let wanted = ReceiptWanted { cluster: args.cluster, ..wanted };
    let now = SystemClock.now();
    let verified = read_receipt(&args.file, ca, &wanted, now)?;
    context.printer.print(&VerifiedView::new(&verified, now))?;
    Ok(Exit::Ok)
}

/// Reads and verifies a receipt.
pub(super) fn read_receipt(
    path: &Path,
    ca: Authority,
    wanted: &ReceiptWanted,
    now: Timestamp,
) -> Result<VerifiedReceipt, CliError> {
    let verified = SavedReceipt::read(open(path)?).and_then(|saved| saved.verify(ca, wanted, now));
    verified.map_err(|error| failed(path, "the receipt doesn't verify", &error))
}

/// The CA that everything offline is verified against.
pub(super) fn pinned_ca(context: &Context) -> Result<Authority, CliError> {
    let path = context.connection.cacert.as_deref().ok_or_else(|| {
        CliError::usage(
            "give --ca or set HOLDFAST_CACERT: the CA of the nodes, from where you trust it",
        )
    })?;
    Authority::from_pem_file("node", path).map_err(|error| CliError::usage(with_causes(&error)))
}

/// Opens a file that was named on the command line.
pub(super) fn open(path: &Path) -> Result<File, CliError> {
    let named = |error| CliError::usage(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(named)?;
    if file.metadata().map_err(named)?.is_dir() {
        return Err(CliError::usage(format!("{} is a directory", path.display())));
    }
    Ok(file)
}

/// What is wrong with a file, and what that means.
pub(super) fn failed(path: &Path, verdict: &str, error: &EvidenceError) -> CliError {
    CliError::failed(format!("{verdict}: {}: {}", path.display(), with_causes(error)))
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| "must have 64 hexadecimal digits".to_owned())?;
    Ok(bytes)
}

/// A receipt that holds.
#[derive(Serialize)]
struct VerifiedView {
    #[serde(flatten)]
    receipt: ReceiptView,
    signer: String,
    certificate_serial: String,
    certificate_not_before_ms: u64,
    certificate_not_after_ms: u64,
    certificate_expired_since: bool,
}

impl VerifiedView {
    fn new(verified: &VerifiedReceipt, now: Timestamp) -> Self {
        let signer = &verified.signer;
        Self {
            receipt: ReceiptView::from(&verified.receipt),
            signer: signer.uri.clone(),
            certificate_serial: signer.serial.clone(),
            certificate_not_before_ms: signer.not_before.as_millis(),
            certificate_not_after_ms: signer.not_after.as_millis(),
            certificate_expired_since: signer.not_after < now,
        }
    }
}

impl Show for VerifiedView {
    fn sheet(&self) -> Sheet {
        let until = time(self.certificate_not_after_ms);
        let expired = if self.certificate_expired_since { ", expired since" } else { "" };
        let valid = format!("{} to {until}{expired}", time(self.certificate_not_before_ms));
        Sheet::new().line("the receipt holds").facts([
            ("cluster", self.receipt.cluster_id.clone()),
            ("device", self.receipt.device_id.clone()),
            ("volume", self.receipt.volume_id.clone()),
            ("key id", self.receipt.protector_id.clone()),
            ("version", self.receipt.version.to_string()),
            ("sealed digest", self.receipt.sealed_digest.clone()),
            ("escrowed", time(self.receipt.escrowed_at_ms)),
            ("audit record", self.receipt.audit_sequence.to_string()),
            ("signed by", self.signer.clone()),
            ("certificate", valid),
        ])
    }
}
