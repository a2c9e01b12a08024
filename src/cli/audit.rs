//! `holdfast audit`: reading the audit chain, and verifying it on this machine.

mod file;

use std::path::PathBuf;

use holdfast_proto::v1;
use serde::Serialize;

use self::file::{ExportArgs, VerifyArgs};
use super::exit::{CliError, Exit};
use super::output::{Sheet, Show, dash, time};
use super::values::guid;
use super::views::user_text;
use super::{Context, Done};
use crate::client::{AuditFilter, ChainVerifier, Client};
use crate::domain::{AuditAction, DeviceId, ProtectorId};

/// What to do with the audit chain.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditCommand {
    /// List records; all filters that are given must match
    List(ListArgs),
    /// Show the newest record's number and hash
    Head {
        /// Take what the called node has, without asking the cluster
        #[arg(long)]
        stale: bool,
    },
    /// Verify the hash chain here: that of a file, or that of the servers, up to what you may know from elsewhere
    Verify(VerifyArgs),
    /// Export the chain into a file that can be verified without any server
    Export(ExportArgs),
    /// Keep the head of the chain as a node signs it; off the servers it shows a chain that was rewritten or cut off later
    Checkpoint {
        /// File to make (must not exist)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Take what the called node has, without asking the cluster
        #[arg(long)]
        stale: bool,
    },
}

/// Which records to list.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// First number
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Last number, itself included; 0 for the newest
    #[arg(long, default_value_t = 0)]
    to: u64,
    /// Only this actor, such as operator/alice
    #[arg(long, default_value = "")]
    actor: String,
    /// Only this action
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(AuditAction::ALL.map(AuditAction::as_str)))]
    action: Option<String>,
    /// Only this device
    #[arg(long, value_name = "UUID", value_parser = guid::<DeviceId>)]
    device: Option<DeviceId>,
    /// Only this key id
    #[arg(long, value_name = "UUID", value_parser = guid::<ProtectorId>)]
    protector: Option<ProtectorId>,
    /// Only at or after this time (RFC 3339, such as 2026-11-22T08:00:00Z)
    #[arg(long)]
    since: Option<jiff::Timestamp>,
    /// Only before this time, itself excluded (RFC 3339)
    #[arg(long)]
    until: Option<jiff::Timestamp>,
    /// Take what the called node has, without asking the cluster
    #[arg(long)]
    stale: bool,
}

pub(super) async fn run(context: &Context, command: AuditCommand) -> Done {
    if let AuditCommand::Verify(args) = &command
        && let Some(path) = &args.file
    {
        return file::verify(context, path, args, known(args)?);
    }
    let client = context.connection.client()?;
    match command {
        AuditCommand::List(args) => {
            let records = list(&client, args).await?;
            context.printer.print(&RecordsView { records })?;
        }
        AuditCommand::Head { stale } => {
            let answer = client.audit_head(stale).await?;
            let head = answer.head.unwrap_or_default();
            context.printer.print(&HeadView {
                sequence: head.sequence,
                hash: hex::encode(&head.hash),
                applied_index: answer.applied_index,
            })?;
        }
        AuditCommand::Verify(args) => {
            context.printer.print(&verify(&client, known(&args)?).await?)?;
        }
        AuditCommand::Export(args) => return file::export(context, &client, &args).await,
        AuditCommand::Checkpoint { out, stale } => {
            return file::checkpoint(context, &client, &out, stale).await;
        }
    }
    Ok(Exit::Ok)
}

async fn list(client: &Client, args: ListArgs) -> Result<Vec<RecordView>, CliError> {
    let millis = |time: Option<jiff::Timestamp>| {
        time.map_or(0, |time| u64::try_from(time.as_millisecond()).unwrap_or(0))
    };
    let filter = AuditFilter {
        first: args.from,
        last: args.to,
        actor: args.actor,
        action: args.action.unwrap_or_default(),
        device: args.device.map(|id| id.to_string()).unwrap_or_default(),
        protector: args.protector.map(|id| id.to_string()).unwrap_or_default(),
        since_ms: millis(args.since),
        until_ms: millis(args.until),
        stale: args.stale,
    };
    let mut listing = client.audit_records(&filter);
    let mut records = Vec::new();
    while let Some(page) = listing.next().await? {
        records.extend(page.into_iter().map(RecordView::from));
    }
    Ok(records)
}

fn known(args: &VerifyArgs) -> Result<Option<(u64, [u8; 32])>, CliError> {
    args.known.as_deref().map(parse_known).transpose()
}

fn parse_known(text: &str) -> Result<(u64, [u8; 32]), CliError> {
    let bad = || CliError::usage("--known must be NUMBER:HASH with 64 hexadecimal digits");
    let (number, hash) = text.split_once(':').ok_or_else(bad)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(hash, &mut bytes).map_err(|_| bad())?;
    Ok((number.parse().map_err(|_| bad())?, bytes))
}

/// Streams all records and follows the chain; `known` must be on it.
pub(super) async fn verify(
    client: &Client,
    known: Option<(u64, [u8; 32])>,
) -> Result<VerifiedView, CliError> {
    let mut listing = client.audit_records(&AuditFilter::default());
    let mut chain = ChainVerifier::new();
    while let Some(page) = listing.next().await? {
        for record in &page {
            chain.take(record)?;
            if let Some((number, hash)) = known
                && number == record.sequence
                && chain.head().hash != hash
            {
                return Err(CliError::failed(format!(
                    "record {number} has another hash than you know"
                )));
            }
        }
    }
    let head = listing.head().cloned().unwrap_or_default();
    let end = chain.finish(&head)?;
    if let Some((number, _)) = known
        && number > end.sequence
    {
        let what = format!("record {number} is missing: the chain ends at record {}", end.sequence);
        return Err(CliError::failed(what));
    }
    Ok(VerifiedView { verified: true, records: end.sequence, head_hash: hex::encode(end.hash) })
}

/// The head of the chain.
#[derive(Debug, Serialize)]
struct HeadView {
    sequence: u64,
    hash: String,
    applied_index: u64,
}

impl Show for HeadView {
    fn sheet(&self) -> Sheet {
        Sheet::new().facts([
            ("record", self.sequence.to_string()),
            ("hash", self.hash.clone()),
            ("log index", self.applied_index.to_string()),
        ])
    }
}

/// A chain that holds.
#[derive(Debug, Serialize)]
pub(super) struct VerifiedView {
    verified: bool,
    pub(super) records: u64,
    pub(super) head_hash: String,
}

impl Show for VerifiedView {
    fn sheet(&self) -> Sheet {
        Sheet::new()
            .line(format!("the chain holds: {} records, head {}", self.records, self.head_hash))
    }
}

/// One record.
#[derive(Debug, Serialize)]
pub(super) struct RecordView {
    sequence: u64,
    time_ms: u64,
    actor: String,
    action: String,
    outcome: String,
    request_id: String,
    device_id: String,
    volume_id: String,
    protector_id: String,
    version: u32,
    reason_code: String,
    reason_text: String,
    user: String,
    ticket: String,
    detail: String,
    count: u64,
    index: u64,
    previous_hash: String,
    hash: String,
}

impl From<v1::AuditRecord> for RecordView {
    fn from(record: v1::AuditRecord) -> Self {
        let reason = record.reason.unwrap_or_default();
        Self {
            user: record.user.as_ref().map(user_text).unwrap_or_default(),
            index: record.position.map_or(0, |position| position.index),
            previous_hash: hex::encode(&record.previous_hash),
            hash: hex::encode(&record.hash),
            reason_code: reason.code,
            reason_text: reason.text,
            sequence: record.sequence,
            time_ms: record.time_ms,
            actor: record.actor,
            action: record.action,
            outcome: record.outcome,
            request_id: record.request_id,
            device_id: record.device_id,
            volume_id: record.volume_id,
            protector_id: record.protector_id,
            version: record.version,
            ticket: record.ticket,
            detail: record.detail,
            count: record.count,
        }
    }
}

impl RecordView {
    /// What the record is about, in a few words.
    fn about(&self) -> String {
        let mut parts = Vec::new();
        if !self.protector_id.is_empty() {
            parts.push(format!("key {}", self.protector_id.get(..8).unwrap_or_default()));
        }
        if self.protector_id.is_empty() && !self.device_id.is_empty() {
            parts.push(format!("device {}", self.device_id));
            if !self.volume_id.is_empty() {
                parts.push(format!("volume {}", self.volume_id));
            }
        }
        if !self.user.is_empty() {
            parts.push(format!("for {}", self.user));
        }
        if !self.reason_code.is_empty() {
            parts.push(self.reason_code.clone());
        }
        if !self.reason_text.is_empty() {
            parts.push(format!("{:?}", self.reason_text));
        }
        if !self.ticket.is_empty() {
            parts.push(format!("ticket {}", self.ticket));
        }
        if !self.detail.is_empty() {
            parts.push(self.detail.clone());
        }
        if self.count > 1 {
            parts.push(format!("{} times", self.count));
        }
        parts.join(", ")
    }
}

/// Some records.
#[derive(Debug, Serialize)]
pub(super) struct RecordsView {
    pub(super) records: Vec<RecordView>,
}

impl Show for RecordsView {
    fn sheet(&self) -> Sheet {
        let rows = self.records.iter().map(|record| {
            [
                record.sequence.to_string(),
                time(record.time_ms),
                record.actor.clone(),
                record.action.clone(),
                record.outcome.clone(),
                dash(&record.about()),
                record.hash.get(..12).unwrap_or_default().to_owned(),
            ]
        });
        Sheet::new().table(["#", "time", "who", "what", "outcome", "about", "hash"], rows)
    }
}
