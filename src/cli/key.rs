//! `holdfast key`: finding and disclosing recovery keys.

use std::path::PathBuf;

use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::escrow::{self, EscrowArgs};
use super::exit::{CliError, Exit};
use super::output::{Sheet, Show, dash};
use super::secret_file::SecretFile;
use super::values::{bare, guid};
use super::views::{FoundView, KeyView};
use super::{Context, Done};
use crate::client::{ApprovalRequest, Client, Disclosure, DisclosureRequest, KeyQuery, wire};
use crate::domain::{
    ApprovalId, DeviceId, KeyIdPrefix, KeyVersion, ProtectorId, Reason, Text, VolumeId,
};

/// What to do with recovery keys.
#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// Find keys by the digits that the locked machine shows, by volume or by device; the search is audited
    Find(FindArgs),
    /// Disclose one key; the audit record is written first
    Disclose(DiscloseArgs),
    /// Seal a recovery key and escrow it, as the device's agent does, or as an operator who imports it for the device
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

/// Which key is wanted, for whom, and why.
#[derive(Debug, clap::Args)]
pub(super) struct WantedArgs {
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
}

impl WantedArgs {
    /// The same in the words of a request.
    pub(super) fn request(self) -> Result<ApprovalRequest, CliError> {
        Ok(ApprovalRequest {
            protector: self.id,
            version: KeyVersion::new(self.key_version),
            reason: Reason::new(&self.reason, self.reason_text)?,
            user: self.user.as_deref().map(wire::parse_user).transpose()?,
            ticket: Text::name("ticket", self.ticket)?,
        })
    }
}

/// Which key to disclose, and why.
#[derive(Debug, clap::Args)]
pub(super) struct DiscloseArgs {
    #[command(flatten)]
    wanted: WantedArgs,
    /// Number of the approval that it is made by; it is used up by it
    #[arg(long, value_name = "N")]
    approval: Option<ApprovalId>,
    /// Write the key package to this file, if there is one (mode 0600; must not exist)
    #[arg(long, value_name = "FILE")]
    package_out: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, command: KeyCommand) -> Done {
    let client = context.connection.client()?;
    match command {
        KeyCommand::Find(args) => find(context, &client, &args).await,
        KeyCommand::Disclose(args) => disclose(context, &client, args).await,
        KeyCommand::Escrow(args) => escrow::run(context, &client, args).await,
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
    let ApprovalRequest { protector, version, reason, user, ticket } = args.wanted.request()?;
    let wanted = DisclosureRequest {
        protector,
        version,
        reason,
        user,
        ticket,
        with_package: args.package_out.is_some(),
        approval: args.approval,
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
            ("imported by", dash(&self.key.imported_by)),
            ("audit record", self.audit_sequence.to_string()),
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
