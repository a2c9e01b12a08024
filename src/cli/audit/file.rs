//! The audit chain in files: exporting it, keeping signed checkpoints, and verifying both without any server.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::exit::{CliError, Exit};
use crate::cli::out_file::{OutFile, refuse_existing, sync_directory};
use crate::cli::output::{Sheet, Show, time};
use crate::cli::receipt::{failed, open, pinned_ca, read_receipt};
use crate::cli::{Context, Done};
use crate::client::evidence::{
    Anchor, Checkpoint, EvidenceError, ExportHead, ExportWriter, ReceiptWanted, Resumable,
    VerifiedExport, resumable, verify_export,
};
use crate::client::{AuditFilter, Client};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::AuditPosition;

/// What to export, and where to.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExportArgs {
    /// File to make (must not exist); until it is complete it is called FILE.part, and the same command goes on with that
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// First record
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// Last record, itself included; 0 for the newest
    #[arg(long, default_value_t = 0)]
    to: u64,
}

/// What to hold an exported file against.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct VerifyArgs {
    /// File that `audit export` made: it is verified without any server. Without a file the servers' chain is
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// File with signed checkpoints that the chain must contain, one on each line; may be given several times
    #[arg(long, value_name = "FILE", requires = "file")]
    checkpoint: Vec<PathBuf>,
    /// Receipt whose audit record the chain must contain; may be given several times
    #[arg(long, value_name = "FILE", requires = "file")]
    receipt: Vec<PathBuf>,
    /// The chain must contain this record: its number and its hash, as a receipt or an earlier `head` gave them
    #[arg(long, value_name = "NUMBER:HASH")]
    pub(super) known: Option<String>,
}

/// Exports the chain into a file, which has its name once it is complete.
pub(super) async fn export(context: &Context, client: &Client, args: &ExportArgs) -> Done {
    refuse_existing(&args.out)?;
    let checkpoint = client.audit_checkpoint(false).await?;
    let part = Part::open(&args.out)?;
    let left = part.left()?;
    let mut head =
        ExportHead::new(checkpoint.cluster, checkpoint.facts.head, SystemClock.now().as_millis());
    head.first = args.from;
    head.last = if args.to == 0 { head.head_sequence } else { args.to };
    let view = match left {
        Some(left) => {
            part.expect_same(&left.head, &head, args.to != 0)?;
            context.printer.progress(format!("going on with {}", part.path.display()));
            let complete = left.complete;
            part.file.set_len(left.length).map_err(|error| part.error(&error))?;
            (&part.file).seek(SeekFrom::End(0)).map_err(|error| part.error(&error))?;
            let head = left.head.clone();
            if complete {
                let end = verify_complete(&part)?;
                ExportedView::new(&args.out, &head, end.records, end.end)
            } else {
                let writer = ExportWriter::resume(BufWriter::new(&part.file), left);
                copy(client, &part, head, Some(writer), &args.out).await?
            }
        }
        None => {
            if head.last > head.head_sequence || head.first > head.last {
                let what = format!(
                    "there is no such record: the chain ends at record {}",
                    head.head_sequence
                );
                part.remove()?;
                return Err(CliError::new(Exit::NotFound, what));
            }
            part.file.set_len(0).map_err(|error| part.error(&error))?;
            copy(client, &part, head, None, &args.out).await?
        }
    };
    part.publish(&args.out)?;
    context.printer.print(&view)?;
    Ok(Exit::Ok)
}

fn verify_complete(part: &Part) -> Result<VerifiedExport, CliError> {
    (&part.file).seek(SeekFrom::Start(0)).map_err(|error| part.error(&error))?;
    verify_export(BufReader::new(&part.file), &[]).map_err(|error| part.unusable(&error))
}

/// Copies records into the file. Without a writer it begins one, once it knows what comes before the first record.
async fn copy<'a>(
    client: &Client,
    part: &'a Part,
    head: ExportHead,
    mut writer: Option<ExportWriter<BufWriter<&'a File>>>,
    out: &Path,
) -> Result<ExportedView, CliError> {
    let again = |mut error: CliError| {
        error.add(format!("run it again to go on with {}", part.path.display()));
        error
    };
    let broken = |error: EvidenceError| failed(&part.path, "the export is not complete", &error);
    let first = writer.as_ref().map_or(Some(head.first), ExportWriter::next);
    if let Some(first) = first {
        let filter = AuditFilter { first, last: head.last, ..AuditFilter::default() };
        let mut listing = client.audit_records(&filter);
        while let Some(page) = listing.next().await.map_err(|error| again(error.into()))? {
            for record in &page {
                let writer = match &mut writer {
                    Some(writer) => writer,
                    None => {
                        let mut head = head.clone();
                        if head.first > 1 {
                            head.previous_hash = previous_hash(&record.previous_hash)?;
                        }
                        let file = BufWriter::new(&part.file);
                        writer.insert(ExportWriter::begin(file, head).map_err(broken)?)
                    }
                };
                writer.take(record).map_err(broken)?;
            }
        }
    }
    let Some(writer) = writer else {
        return Err(CliError::failed("the servers list no record, but have a head"));
    };
    let (_, records, end) = writer.finish().map_err(broken)?;
    Ok(ExportedView::new(out, &head, records, end))
}

fn previous_hash(bytes: &[u8]) -> Result<[u8; 32], CliError> {
    bytes.try_into().map_err(|_| CliError::failed("the server's previous_hash has not 32 bytes"))
}

/// The file as long as it is not complete.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    /// Opens or makes it. Nobody else may be writing it.
    fn open(out: &Path) -> Result<Self, CliError> {
        let mut path = out.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let named = |error: std::io::Error| CliError::usage(format!("{}: {error}", path.display()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(named)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, file }),
            Err(std::fs::TryLockError::WouldBlock) => {
                let what = format!("{} is being written by another process", path.display());
                Err(CliError::new(Exit::Conflict, what))
            }
            Err(std::fs::TryLockError::Error(error)) => Err(named(error)),
        }
    }

    /// What an interrupted export has left in it; `None` if not even a header.
    fn left(&self) -> Result<Option<Resumable>, CliError> {
        let empty = self.file.metadata().map_err(|error| self.error(&error))?.len() == 0;
        if empty {
            return Ok(None);
        }
        match resumable(BufReader::new(&self.file)) {
            Ok(left) => Ok(Some(left)),
            Err(EvidenceError::Line { line: 1, source })
                if matches!(*source, EvidenceError::CutLine) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.unusable(&error)),
        }
    }

    fn unusable(&self, error: &EvidenceError) -> CliError {
        let mut error =
            failed(&self.path, "what an earlier export left can't be gone on with", error);
        error.add("look at it, then remove it".to_owned());
        error
    }

    fn expect_same(
        &self,
        left: &ExportHead,
        wanted: &ExportHead,
        bounded: bool,
    ) -> Result<(), CliError> {
        let same = left.cluster_id == wanted.cluster_id
            && left.first == wanted.first
            && (!bounded || left.last == wanted.last);
        if same {
            return Ok(());
        }
        let (path, cluster) = (self.path.display(), left.cluster_id);
        Err(CliError::new(
            Exit::Conflict,
            format!(
                "{path} is of another export: records {} to {} of cluster {cluster}; go on with the same --from and --to, or remove it",
                left.first, left.last
            ),
        ))
    }

    /// Makes it durable and gives it its name, which nobody may have taken.
    fn publish(self, out: &Path) -> Result<(), CliError> {
        self.file.sync_all().map_err(|error| self.error(&error))?;
        let named = |error: std::io::Error| CliError::failed(format!("{}: {error}", out.display()));
        std::fs::hard_link(&self.path, out).map_err(named)?;
        self.remove()?;
        sync_directory(out).map_err(named)
    }

    fn remove(&self) -> Result<(), CliError> {
        std::fs::remove_file(&self.path).map_err(|error| self.error(&error))
    }

    fn error(&self, error: &std::io::Error) -> CliError {
        CliError::failed(format!("{}: {error}", self.path.display()))
    }
}

/// Gets a signed checkpoint and keeps it in a file.
pub(super) async fn checkpoint(
    context: &Context,
    client: &Client,
    out: &Path,
    stale: bool,
) -> Done {
    let file = OutFile::create(out)?;
    let checkpoint = client.audit_checkpoint(stale).await?;
    let line = checkpoint.to_line();
    let line = line.map_err(|error| CliError::failed(format!("making JSON: {error}")))?;
    file.write(line.as_bytes())?;
    context.printer.print(&CheckpointView::from(&checkpoint))?;
    Ok(Exit::Ok)
}

/// Verifies an export against all that is known from elsewhere.
pub(super) fn verify(
    context: &Context,
    path: &Path,
    args: &VerifyArgs,
    known: Option<(u64, [u8; 32])>,
) -> Done {
    let now = SystemClock.now();
    let mut anchors = Vec::new();
    if !args.checkpoint.is_empty() || !args.receipt.is_empty() {
        let ca = pinned_ca(context)?;
        for path in &args.checkpoint {
            let checkpoints = Checkpoint::read_all(BufReader::new(open(path)?), &ca, now);
            let checkpoints = checkpoints
                .map_err(|error| failed(path, "the checkpoint doesn't verify", &error))?;
            anchors.extend(checkpoints.iter().map(Anchor::from));
        }
        for path in &args.receipt {
            let wanted = ReceiptWanted::default();
            let verified = read_receipt(path, ca.clone(), &wanted, now)?;
            anchors.push(Anchor::from(&verified.receipt));
        }
    }
    if let Some((sequence, hash)) = known {
        let position = AuditPosition { sequence, hash };
        anchors.push(Anchor { position, cluster: None, source: "what you know".to_owned() });
    }
    let verified = verify_export(BufReader::new(open(path)?), &anchors);
    let verified =
        verified.map_err(|error| failed(path, "the audit export doesn't verify", &error))?;
    context.printer.print(&FileView::from(&verified))?;
    Ok(Exit::Ok)
}

/// A finished export.
#[derive(Debug, Serialize)]
struct ExportedView {
    file: String,
    cluster_id: String,
    first: u64,
    last: u64,
    records: u64,
    head_hash: String,
}

impl ExportedView {
    fn new(out: &Path, head: &ExportHead, records: u64, end: AuditPosition) -> Self {
        Self {
            file: out.display().to_string(),
            cluster_id: head.cluster_id.to_string(),
            first: head.first,
            last: end.sequence,
            records,
            head_hash: hex::encode(end.hash),
        }
    }
}

impl Show for ExportedView {
    fn sheet(&self) -> Sheet {
        let Self { file, first, last, records, head_hash, .. } = self;
        Sheet::new().line(format!(
            "{records} records, {first} to {last}, are in {file}; the last one has the hash {head_hash}"
        ))
    }
}

/// A checkpoint that was kept.
#[derive(Debug, Serialize)]
struct CheckpointView {
    cluster_id: String,
    sequence: u64,
    hash: String,
    index: u64,
    time_ms: u64,
    signed_by_node: u64,
}

impl From<&Checkpoint> for CheckpointView {
    fn from(checkpoint: &Checkpoint) -> Self {
        let facts = &checkpoint.facts;
        Self {
            cluster_id: checkpoint.cluster.to_string(),
            sequence: facts.head.sequence,
            hash: hex::encode(facts.head.hash),
            index: facts.index,
            time_ms: facts.time.as_millis(),
            signed_by_node: checkpoint.node.get(),
        }
    }
}

impl Show for CheckpointView {
    fn sheet(&self) -> Sheet {
        Sheet::new().facts([
            ("record", self.sequence.to_string()),
            ("hash", self.hash.clone()),
            ("log index", self.index.to_string()),
            ("time", time(self.time_ms)),
            ("checkpoint", format!("verified, signed by node {}", self.signed_by_node)),
        ])
    }
}

/// An export that holds.
#[derive(Debug, Serialize)]
struct FileView {
    verified: bool,
    cluster_id: String,
    first: u64,
    last: u64,
    records: u64,
    head_hash: String,
    anchors: u64,
    known_to: u64,
}

impl From<&VerifiedExport> for FileView {
    fn from(export: &VerifiedExport) -> Self {
        Self {
            verified: true,
            cluster_id: export.head.cluster_id.to_string(),
            first: export.head.first,
            last: export.end.sequence,
            records: export.records,
            head_hash: hex::encode(export.end.hash),
            anchors: export.anchors,
            known_to: export.known_to,
        }
    }
}

impl Show for FileView {
    fn sheet(&self) -> Sheet {
        let Self { first, last, records, head_hash, anchors, known_to, .. } = self;
        let held =
            format!("the chain holds: {records} records, {first} to {last}, head {head_hash}");
        let shown = match anchors {
            0 => "nothing shows that its end was not cut off, or all of it not made up: give --checkpoint".to_owned(),
            _ if known_to == last => format!("all of it is as signed or known elsewhere ({anchors} times)"),
            _ => format!("up to record {known_to} it is as signed or known elsewhere; what follows is only unbroken"),
        };
        Sheet::new().line(held).line(shown)
    }
}
