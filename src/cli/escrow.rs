//! `holdfast key escrow`: seals a recovery key and escrows it, as a device's agent does, or whoever imports keys of devices.

use std::io::{IsTerminal as _, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use zeroize::Zeroizing;

use super::exit::{CliError, Exit};
use super::out_file::OutFile;
use super::output::{Sheet, Show, time};
use super::values::guid;
use super::{Context, Done};
use crate::client::{Client, ClientError, NewEscrow, Receipt, wire};
use crate::domain::{
    DeviceId, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, Text, VolumeId, VolumeKind,
};

/// Longest key file that is read, in bytes; a recovery key has 71 characters at most.
const KEY_FILE_BYTES: u64 = 4096;

/// What to escrow. The key itself is read from a file or from standard input.
#[derive(Debug, clap::Args)]
pub(super) struct EscrowArgs {
    /// The device; the certificate must be its own, or that of an operator with the role data-migration
    #[arg(long, value_name = "UUID", value_parser = guid::<DeviceId>)]
    device: DeviceId,
    /// The volume
    #[arg(long, value_name = "UUID", value_parser = guid::<VolumeId>)]
    volume: VolumeId,
    /// The key's id: BitLocker's key protector GUID
    #[arg(long, value_name = "UUID", value_parser = guid::<ProtectorId>)]
    protector: ProtectorId,
    /// Format of the key
    #[arg(long, value_enum, default_value_t)]
    kind: KeyKind,
    /// What the volume is used for
    #[arg(long, value_enum, default_value_t)]
    volume_kind: VolumeUse,
    /// The volume's key version that this one follows; 0 for the first
    #[arg(long, default_value_t = 0)]
    expected_version: u32,
    /// File that holds the recovery key and nothing else; standard input if left out
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// File with the BitLocker key package
    #[arg(long, value_name = "FILE")]
    package_file: Option<PathBuf>,
    /// Name of the device; the known one stays if left out
    #[arg(long, default_value = "")]
    host_name: String,
    /// User of the device: name, domain\name or name@domain; several times for several; the known ones stay if left out
    #[arg(long = "user")]
    users: Vec<String>,
    /// Keep the receipt in this file, to be verified by `receipt verify` at any later time (must not exist)
    #[arg(long, value_name = "FILE")]
    receipt_out: Option<PathBuf>,
}

/// Formats of recovery keys.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum KeyKind {
    /// A BitLocker numerical password
    #[default]
    Bitlocker,
    /// A LUKS2 recovery key of systemd-cryptenroll
    Luks2,
}

impl From<KeyKind> for ProtectorKind {
    fn from(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Bitlocker => Self::BitLockerRecoveryPassword,
            KeyKind::Luks2 => Self::Luks2RecoveryKey,
        }
    }
}

/// Uses of volumes.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum VolumeUse {
    /// The operating system starts from it
    #[default]
    OperatingSystem,
    /// A fixed data drive
    FixedData,
    /// A removable data drive
    RemovableData,
}

impl From<VolumeUse> for VolumeKind {
    fn from(kind: VolumeUse) -> Self {
        match kind {
            VolumeUse::OperatingSystem => Self::OperatingSystem,
            VolumeUse::FixedData => Self::FixedData,
            VolumeUse::RemovableData => Self::RemovableData,
        }
    }
}

pub(super) async fn run(context: &Context, client: &Client, args: EscrowArgs) -> Done {
    for path in [&args.key_file, &args.package_file].into_iter().flatten() {
        if let Some(warning) = others_may_read(path) {
            context.printer.progress(warning);
        }
    }
    let text = read_key(args.key_file.as_deref())?;
    let key = RecoveryKey::parse_lenient(args.kind.into(), &text)
        .map_err(|error| CliError::usage(format!("{error}; nothing was sent")))?;
    let package = args.package_file.as_deref().map(read_secret_file).transpose()?;
    let users = args.users.iter().map(|user| wire::parse_user(user));
    let escrow = NewEscrow {
        device: args.device,
        volume: args.volume,
        volume_kind: args.volume_kind.into(),
        protector: args.protector,
        expected_version: KeyVersion::new(args.expected_version),
        host_name: Text::name("host_name", args.host_name)?,
        users: users.collect::<Result<_, _>>()?,
    };
    // Before the call: a receipt has to have a place to go.
    let receipt_out = args.receipt_out.as_deref().map(OutFile::create).transpose()?;
    let sent = client.escrow(&escrow, &key, package.as_deref().map(Vec::as_slice)).await;
    let receipt = sent.map_err(|error| not_escrowed(error, &escrow))?;
    let kept = receipt_out.map(|file| keep(&receipt, file));
    context.printer.print(&ReceiptView::from(&receipt))?;
    kept.transpose()?;
    Ok(Exit::Ok)
}

fn keep(receipt: &Receipt, file: OutFile) -> Result<(), CliError> {
    let text = receipt.to_file();
    let text = text.map_err(|error| CliError::failed(format!("making JSON: {error}")))?;
    file.write(text.as_bytes()).map_err(|mut error| {
        error.add(
            "the key is escrowed and its receipt verified, but the receipt is not kept".into(),
        );
        error
    })
}

/// A repeat seals anew, and other sealed bytes are another request: so the state has to be looked at first.
fn not_escrowed(error: ClientError, escrow: &NewEscrow) -> CliError {
    let unknown = matches!(error, ClientError::Unreachable { outcome_unknown: true, .. });
    let stale = error.reason() == "STALE_VERSION";
    let mut error = CliError::from(error);
    let (id, next) = (escrow.protector, escrow.expected_version.get().saturating_add(1));
    if unknown {
        error.add(format!(
            "there is no receipt, so don't rely on this key: `holdfast key find {id}` (help desk) shows whether version {next} \
             was stored; if it was, escrow again with a new --protector and --expected-version {next}, if not, repeat this"
        ));
    } else if stale {
        error.add("give the volume's newest version as --expected-version".to_owned());
    }
    error
}

/// Reads a recovery key from a file or from standard input.
fn read_key(path: Option<&Path>) -> Result<Zeroizing<String>, CliError> {
    // Room for all of it from the start: growing would leave copies behind.
    let room = usize::try_from(KEY_FILE_BYTES).unwrap_or(4096);
    let mut text = Zeroizing::new(String::with_capacity(room));
    let (name, read) = match path {
        Some(path) => {
            let file = std::fs::File::open(path);
            let read = file.and_then(|file| file.take(KEY_FILE_BYTES).read_to_string(&mut text));
            (path.display().to_string(), read)
        }
        None => {
            let stdin = std::io::stdin();
            if stdin.is_terminal() {
                // What is typed is echoed and stays in the terminal's history; and nobody would know what to type.
                return Err(CliError::usage(
                    "give --key-file, or the recovery key on standard input",
                ));
            }
            let stdin = stdin.lock();
            ("standard input".to_owned(), stdin.take(KEY_FILE_BYTES).read_to_string(&mut text))
        }
    };
    read.map_err(|error| CliError::usage(format!("{name}: {error}")))?;
    if text.trim().is_empty() {
        return Err(CliError::usage(format!("{name} holds no recovery key; nothing was sent")));
    }
    Ok(text)
}

fn read_secret_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let bytes = std::fs::read(path);
    bytes.map(Zeroizing::new).map_err(|e| CliError::usage(format!("{}: {e}", path.display())))
}

/// A warning if others than its owner may read a file that holds a secret. It is no reason to stop: the key is wanted in escrow
/// all the more then. What can't be looked at can't be read either, and that is said where it is.
fn others_may_read(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then(|| {
        let path = path.display();
        format!("warning: {path} has mode {mode:04o}, so others than its owner may use it: run chmod 0600, or remove it afterwards")
    })
}

/// A receipt that was verified.
#[derive(Serialize)]
pub(super) struct ReceiptView {
    pub(super) cluster_id: String,
    pub(super) device_id: String,
    pub(super) volume_id: String,
    pub(super) protector_id: String,
    pub(super) version: u32,
    pub(super) sealed_digest: String,
    index: u64,
    term: u64,
    pub(super) audit_sequence: u64,
    pub(super) escrowed_at_ms: u64,
    signed_by_node: u64,
    verified: bool,
}

impl From<&Receipt> for ReceiptView {
    fn from(receipt: &Receipt) -> Self {
        let facts = &receipt.facts;
        Self {
            cluster_id: receipt.cluster.to_string(),
            device_id: facts.device.to_string(),
            volume_id: facts.volume.to_string(),
            protector_id: facts.protector.to_string(),
            version: facts.version.get(),
            sealed_digest: hex::encode(facts.sealed_digest),
            index: facts.index,
            term: facts.term,
            audit_sequence: facts.audit_sequence,
            escrowed_at_ms: facts.escrowed_at.as_millis(),
            signed_by_node: receipt.node.get(),
            // There is no other kind of receipt: the client refuses what doesn't verify.
            verified: true,
        }
    }
}

impl Show for ReceiptView {
    fn sheet(&self) -> Sheet {
        Sheet::new().facts([
            ("key id", self.protector_id.clone()),
            ("version", self.version.to_string()),
            ("escrowed", time(self.escrowed_at_ms)),
            ("log index", self.index.to_string()),
            ("audit record", self.audit_sequence.to_string()),
            ("receipt", format!("verified, signed by node {}", self.signed_by_node)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_that_others_may_read_is_warned_of_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recovery-key");
        std::fs::File::create(&path).unwrap();
        let chmod = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        chmod(0o644);
        let warning = others_may_read(&path).unwrap();
        assert!(warning.contains("recovery-key has mode 0644"), "{warning}");
        chmod(0o600);
        assert_eq!(others_may_read(&path), None);
        assert_eq!(others_may_read(&dir.path().join("none")), None);
    }
}
