//! `holdfast key`: finding, disclosing and escrowing recovery keys.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use serde::Serialize;
use zeroize::Zeroizing;

use super::exit::{CliError, Exit};
use super::output::{Sheet, Show, dash, time};
use super::secret_file::SecretFile;
use super::values::{bare, guid};
use super::views::{FoundView, KeyView};
use super::{Context, Done};
use crate::client::{
    Client, ClientError, Disclosure, DisclosureRequest, KeyQuery, NewEscrow, Receipt, wire,
};
use crate::domain::{
    DeviceId, KeyIdPrefix, KeyVersion, ProtectorId, ProtectorKind, Reason, RecoveryKey, Text,
    VolumeId, VolumeKind,
};

/// Longest key file that is read, in bytes; a recovery key has 71 characters at most.
const KEY_FILE_BYTES: u64 = 4096;

/// What to do with recovery keys.
#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Find keys by the digits that the locked machine shows, by volume or by device; the search is audited
    Find(FindArgs),
    /// Disclose one key; the audit record is written first
    Disclose(DiscloseArgs),
    /// Seal a recovery key and escrow it, as the device's agent does
    Escrow(EscrowArgs),
    /// List the reasons that a disclosure takes
    Reasons,
}

/// What to search for.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("query").required(true).args(["id", "device"]))]
pub(super) struct FindArgs {
    /// First 8 digits of the key id, or all 32
    id: Option<String>,
    /// All keys of this device
    #[arg(long, value_name = "UUID", value_parser = guid::<DeviceId>)]
    device: Option<DeviceId>,
    /// Only keys of this volume of the device
    #[arg(long, value_name = "UUID", value_parser = guid::<VolumeId>, requires = "device")]
    volume: Option<VolumeId>,
}

/// Which key to disclose, and why.
#[derive(Debug, clap::Args)]
pub(super) struct DiscloseArgs {
    /// Key id, all 32 digits; `holdfast key find` shows it
    #[arg(value_parser = guid::<ProtectorId>)]
    id: ProtectorId,
    /// Version of the key; the newest if left out
    #[arg(long, default_value_t = 0)]
    key_version: u32,
    /// Reason code; `holdfast key reasons` lists them
    #[arg(long, default_value = "")]
    reason: String,
    /// Reason in words; required without a code or with OTHER
    #[arg(long, default_value = "")]
    reason_text: String,
    /// User that the key is for: name, domain\name or name@domain
    #[arg(long)]
    user: Option<String>,
    /// Ticket number in your own system
    #[arg(long, default_value = "")]
    ticket: String,
    /// Write the key package to this file, if there is one (mode 0600; must not exist)
    #[arg(long, value_name = "FILE")]
    package_out: Option<PathBuf>,
}

/// What to escrow. The key itself is read from a file or from standard input.
#[derive(Debug, clap::Args)]
pub(super) struct EscrowArgs {
    /// The device; the certificate must be its own
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

pub(super) async fn run(context: &Context, command: KeyCommand) -> Done {
    let client = context.connection.client()?;
    match command {
        KeyCommand::Find(args) => find(context, &client, &args).await,
        KeyCommand::Disclose(args) => disclose(context, &client, args).await,
        KeyCommand::Escrow(args) => escrow(context, &client, args).await,
        KeyCommand::Reasons => {
            let reasons = client.reasons().await?.into_iter().map(|reason| ReasonView {
                code: reason.code,
                title: reason.title,
                text_required: reason.text_required,
            });
            context.printer.print(&ReasonsView { reasons: reasons.collect() })?;
            Ok(Exit::Ok)
        }
    }
}

async fn find(context: &Context, client: &Client, args: &FindArgs) -> Done {
    let id = args.id.as_deref().map(bare);
    let query = match (id, args.device, args.volume) {
        (Some(id), _, _) if id.len() <= 8 => KeyQuery::Prefix(id.parse::<KeyIdPrefix>()?),
        (Some(id), _, _) => KeyQuery::Protector(id.parse()?),
        (None, Some(device), Some(volume)) => KeyQuery::Volume(device, volume),
        (None, Some(device), None) => KeyQuery::Device(device),
        (None, None, _) => return Err(CliError::usage("give a key id or --device")),
    };
    let found = client.find_keys(query).await?;
    let view = FoundView {
        keys: found.keys.into_iter().map(KeyView::from).collect(),
        truncated: found.truncated,
        audit_sequence: found.audit.map_or(0, |audit| audit.sequence),
    };
    context.printer.print(&view)?;
    if view.keys.is_empty() {
        return Err(CliError::new(Exit::NotFound, "no key matches; check the digits"));
    }
    Ok(Exit::Ok)
}

async fn disclose(context: &Context, client: &Client, args: DiscloseArgs) -> Done {
    let wanted = DisclosureRequest {
        protector: args.id,
        version: KeyVersion::new(args.key_version),
        reason: Reason::new(&args.reason, args.reason_text)?,
        user: args.user.as_deref().map(wire::parse_user).transpose()?,
        ticket: Text::name("ticket", args.ticket)?,
        with_package: args.package_out.is_some(),
    };
    // Before the call: a file that can't be made must not cost a disclosure.
    let file = args.package_out.as_deref().map(SecretFile::create).transpose()?;
    let disclosure = match client.disclose(&wanted).await {
        Ok(disclosure) => disclosure,
        Err(error) => {
            if let Some(left) = file.and_then(SecretFile::discard) {
                context.printer.progress(left);
            }
            return Err(error.into());
        }
    };
    // The key is printed whatever becomes of the package: it is on record as disclosed.
    let package = match (file, &disclosure.package) {
        (Some(file), Some(package)) => file.write(package).map(Some),
        (Some(file), None) => {
            Ok(file.discard().or(Some("no key package was escrowed with this key".to_owned())))
        }
        (None, _) => Ok(None),
    };
    if disclosure.malformed {
        context.printer.progress(
            "warning: this is not a well-formed key; the device's agent sealed something else",
        );
    }
    context.printer.print(&DisclosureView::from(&disclosure))?;
    if let Some(said) = package? {
        context.printer.progress(said);
    }
    Ok(Exit::Ok)
}

async fn escrow(context: &Context, client: &Client, args: EscrowArgs) -> Done {
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
    let sent = client.escrow(&escrow, &key, package.as_deref().map(Vec::as_slice)).await;
    let receipt = sent.map_err(|error| not_escrowed(error, &escrow))?;
    context.printer.print(&ReceiptView::from(&receipt))?;
    Ok(Exit::Ok)
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

/// A disclosed key. It is made to be printed, once, to whoever asked for it.
#[derive(Serialize)]
struct DisclosureView<'a> {
    recovery_key: &'a str,
    key: KeyView,
    audit_sequence: u64,
    malformed: bool,
    repeated: bool,
}

impl<'a> From<&'a Disclosure> for DisclosureView<'a> {
    fn from(disclosure: &'a Disclosure) -> Self {
        Self {
            recovery_key: disclosure.recovery_key.expose_secret(),
            key: disclosure.key.clone().into(),
            audit_sequence: disclosure.audit.sequence,
            malformed: disclosure.malformed,
            repeated: disclosure.repeated,
        }
    }
}

impl Show for DisclosureView<'_> {
    fn sheet(&self) -> Sheet {
        Sheet::new().line(self.recovery_key).line("").facts([
            ("key id", self.key.protector_id.clone()),
            ("version", self.key.version.to_string()),
            ("state", self.key.state.to_owned()),
            ("host", dash(&self.key.host_name)),
            ("audit record", self.audit_sequence.to_string()),
        ])
    }
}

#[derive(Serialize)]
struct ReceiptView {
    cluster_id: String,
    device_id: String,
    volume_id: String,
    protector_id: String,
    version: u32,
    sealed_digest: String,
    index: u64,
    term: u64,
    audit_sequence: u64,
    escrowed_at_ms: u64,
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

#[derive(Serialize)]
struct ReasonsView {
    reasons: Vec<ReasonView>,
}

#[derive(Serialize)]
struct ReasonView {
    code: String,
    title: String,
    text_required: bool,
}

impl Show for ReasonsView {
    fn sheet(&self) -> Sheet {
        let rows = self.reasons.iter().map(|reason| {
            let needs = if reason.text_required { "with --reason-text" } else { "" };
            [reason.code.clone(), reason.title.clone(), needs.to_owned()]
        });
        Sheet::new().table(["code", "reason", ""], rows)
    }
}
