//! `holdfast demo`: the whole story with real processes and real disks, told so that somebody who never saw it can read
//! it. A step that does not hold ends it with exit code 1 and says which.

mod keys;
mod story;
mod writer;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::audit::{RecordView, RecordsView};
use super::bench::temporary_dir;
use super::dev::Stop;
use super::exit::{CliError, Exit};
use super::local_cluster::{LocalCluster, LocalError, LocalOptions, wait_for};
use super::{Context, Done};
use crate::client::{AuditFilter, ChainVerifier, Client, DisclosureRequest, KeyQuery};
use crate::domain::{DeviceId, KeyVersion, OperatorName, Reason, Role, Text, User};
use keys::DemoKey;
use story::Story;
use uuid::Uuid;
use writer::Writers;

/// How long a step may wait for something to come true.
const LIMIT: Duration = Duration::from_secs(60);
/// Background writers.
const WRITERS: usize = 4;
/// Writes that have to be acknowledged before and after a server dies.
const ENOUGH_WRITES: u64 = 50;

/// Where the demonstration takes place.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Directory for the servers' files; a temporary one that is removed afterwards if left out
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, args: DemoArgs) -> Done {
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(temporary_dir()?),
    };
    let dir = args.dir.clone().or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned()));
    let dir = dir.ok_or_else(|| CliError::failed("no directory"))?;
    let mut stop = Stop::new()?;
    let mut story = Story::new(context.printer);
    // Leaving `tell` drops the cluster, which kills its servers.
    let told = tokio::select! {
        told = tell(&mut story, dir) => Some(told),
        () = stop.wait() => None,
    };
    let told = told.ok_or_else(|| story.stopped())?;
    told.map_err(|error| story.failed(&error))?;
    story.end()?;
    Ok(Exit::Ok)
}

/// Everything that the steps share.
struct Stage {
    cluster: LocalCluster,
    help_desk: Client,
    auditor: Client,
    keys: Vec<DemoKey>,
    writer: Client,
    writer_device: DeviceId,
}

async fn tell(story: &mut Story, dir: PathBuf) -> Result<(), CliError> {
    story.say("Holdfast keeps the recovery keys of encrypted disks on three servers, and goes on when any one of them")?;
    story.say("dies. This runs three real server processes on this machine and breaks them one after the other.")?;
    let mut stage = set_up(story, dir).await?;
    escrow(story, &mut stage).await?;
    let writers = Writers::start(&stage.writer, stage.writer_device, WRITERS);
    let killed = kill_leader(story, &mut stage, &writers).await?;
    disclose(story, &stage).await?;
    restart(story, &mut stage, killed).await?;
    delete_view(story, &mut stage, killed, &writers).await?;
    let written = writers.stop().await?;
    audit(story, &stage, written).await?;
    compare(story, &stage).await?;
    story.begin("All servers are told to stop (SIGTERM)")?;
    stage.cluster.stop().await?;
    story.note("each handed over, finished what it was doing and ended with exit code 0")?;
    story.held()
}

async fn set_up(story: &mut Story, dir: PathBuf) -> Result<Stage, CliError> {
    story.begin("Three servers start, each with its own certificate and data directory")?;
    let mut cluster = LocalCluster::prepare(LocalOptions::of_this_program(&dir)?)?;
    cluster.start_nodes().await?;
    for node in cluster.nodes() {
        let (id, pid) = (node.id(), node.pid().unwrap_or_default());
        let address = node.ports().client_address();
        story.note(format!("server {id}: process {pid}, clients call {address}"))?;
    }
    story.held()?;

    story.begin("They are made into one cluster, and people get roles")?;
    cluster.ensure_initialised().await?;
    cluster.wait_healthy(LIMIT).await?;
    let help_desk: OperatorName = "helen".parse()?;
    let auditor: OperatorName = "arthur".parse()?;
    cluster.grant(&help_desk, &[Role::HelpDesk]).await?;
    cluster.grant(&auditor, &[Role::Auditor]).await?;
    story.note(format!(
        "cluster {}: server {} leads",
        cluster.pki().cluster(),
        cluster.leader().await?
    ))?;
    story.note("helen is help desk, arthur is auditor; nobody else may read anything")?;
    story.held()?;

    let writer_device = DeviceId::new(Uuid::new_v4());
    let help_desk = cluster.client(&cluster.operator(&help_desk)?)?;
    let auditor = cluster.client(&cluster.operator(&auditor)?)?;
    let writer = cluster.client(&cluster.agent(writer_device)?)?;
    let keys = keys::all(cluster.device())?;
    Ok(Stage { cluster, help_desk, auditor, keys, writer, writer_device })
}

async fn escrow(story: &mut Story, stage: &mut Stage) -> Result<(), CliError> {
    story.begin("A laptop escrows five recovery keys")?;
    story.note("Each is sealed on the laptop; servers never see it. The receipt is signed, and checked before the key is used.")?;
    let agent = stage.cluster.client(&stage.cluster.agent(stage.cluster.device())?)?;
    for key in &mut stage.keys {
        let receipt = agent.escrow(&key.escrow, &key.key, None).await?;
        story.note(format!(
            "{} {}...: stored at log index {}, receipt of server {} verified",
            key.name,
            key.escrow.protector.prefix(),
            receipt.facts.index,
            receipt.node
        ))?;
        key.receipt = Some(receipt);
    }
    story.held()
}

/// Waits until so many more writes were acknowledged.
async fn more_writes(writers: &Writers, what: &str) -> Result<(), CliError> {
    let goal = writers.acknowledged()?.saturating_add(ENOUGH_WRITES);
    wait_for(what, LIMIT, || async {
        match writers.acknowledged() {
            Ok(count) if count >= goal => Ok(Ok(())),
            Ok(count) => Err(format!("{count} of {goal}")),
            Err(error) => Ok(Err(error)),
        }
    })
    .await?
}

async fn kill_leader(
    story: &mut Story,
    stage: &mut Stage,
    writers: &Writers,
) -> Result<u64, CliError> {
    story.begin("The leader is killed (kill -9) while other machines escrow all the time")?;
    more_writes(writers, "background writes before the kill").await?;
    let leader = stage.cluster.leader().await?;
    writers.take_longest_gap();
    let killed = Instant::now();
    stage.cluster.kill_node(leader).await?;
    more_writes(writers, "background writes after the kill").await?;
    let gap = writers.take_longest_gap();
    let next = stage.cluster.leader().await?;
    if next == leader {
        return Err(CliError::failed(format!("server {leader} still counts as leader")));
    }
    story.note(format!("server {leader} led and is dead; server {next} leads now"))?;
    story.note(format!("writes stood still for {} ms, and none failed", gap.as_millis()))?;
    story.note(format!(
        "({ENOUGH_WRITES} more keys were escrowed within {:.1} s of the kill)",
        killed.elapsed().as_secs_f64()
    ))?;
    story.held()?;
    Ok(leader)
}

async fn disclose(story: &mut Story, stage: &Stage) -> Result<(), CliError> {
    story.begin(
        "With one server dead, the help desk finds each key by eight digits and discloses it",
    )?;
    story.note("The audit record of each disclosure is on the disks of a majority before the key is opened.")?;
    for key in &stage.keys {
        let prefix = key.escrow.protector.prefix();
        let found = stage.help_desk.find_keys(KeyQuery::Prefix(prefix)).await?;
        let wanted = key.escrow.protector.to_string();
        if !found.keys.iter().any(|found| found.protector_id == wanted) {
            return Err(CliError::failed(format!("key {prefix}... was not found")));
        }
        let disclosed = stage
            .help_desk
            .disclose(&DisclosureRequest {
                protector: key.escrow.protector,
                version: KeyVersion::NONE,
                reason: Reason::new(key.reason, "")?,
                user: Some(User::new("CORP", "alice")?),
                ticket: Text::name("ticket", "INC-4711")?,
                with_package: false,
                approval: None,
            })
            .await?;
        if !key.is(&disclosed) {
            return Err(CliError::failed(format!("key {prefix}... came back as another one")));
        }
        story.note(format!(
            "{prefix} -> {} (same as escrowed; {}, audit record {})",
            key.shown(),
            key.reason,
            disclosed.audit.sequence
        ))?;
    }
    story.held()
}

async fn restart(story: &mut Story, stage: &mut Stage, killed: u64) -> Result<(), CliError> {
    story.begin("The dead server is started again and catches up")?;
    let begun = Instant::now();
    stage.cluster.start_node(killed).await?;
    let index = stage.cluster.wait_caught_up(killed, LIMIT).await?;
    let took = begun.elapsed().as_secs_f64();
    story.note(format!("server {killed} has applied everything up to log index {index}, {took:.1} s after its start"))?;
    story.held()
}

async fn delete_view(
    story: &mut Story,
    stage: &mut Stage,
    killed: u64,
    writers: &Writers,
) -> Result<(), CliError> {
    story.begin("Another server is stopped, loses its database, and is started")?;
    let other = stage.cluster.nodes().iter().map(super::local_cluster::LocalNode::id);
    let other = other.into_iter().find(|id| *id != killed).ok_or(LocalError::NoNode(0))?;
    stage.cluster.stop_node(other).await?;
    let view = stage.cluster.node(other)?.data_dir().join("view");
    std::fs::remove_dir_all(&view)
        .map_err(|error| CliError::failed(format!("deleting {}: {error}", view.display())))?;
    story.note(format!(
        "server {other}: its database directory is deleted; only log and snapshots are left"
    ))?;
    more_writes(writers, "background writes without it").await?;
    stage.cluster.start_node(other).await?;
    let index = stage.cluster.wait_caught_up(other, LIMIT).await?;
    story.note(format!(
        "it has rebuilt the database and applied everything up to log index {index}"
    ))?;
    story.held()
}

async fn audit(story: &mut Story, stage: &Stage, written: u64) -> Result<(), CliError> {
    story.begin("The auditor reads the audit trail and verifies it")?;
    let writer = format!("agent/{}", stage.writer_device);
    let mut listing = stage.auditor.audit_records(&AuditFilter::default());
    let mut chain = ChainVerifier::new();
    let mut told = Vec::new();
    let mut background: u64 = 0;
    let mut receipts = 0_usize;
    while let Some(page) = listing.next().await? {
        for record in page {
            chain.take(&record)?;
            let head = chain.head();
            receipts = receipts
                .saturating_add(stage.keys.iter().filter(|key| key.is_recorded_at(head)).count());
            if record.actor == writer {
                background = background.saturating_add(1);
            } else {
                told.push(RecordView::from(record));
            }
        }
    }
    let end = chain.finish(&listing.head().cloned().unwrap_or_default())?;
    story.show(&RecordsView { records: told })?;
    story.note(format!("(and {background} escrows of the background writers)"))?;
    if background < written {
        return Err(CliError::failed(format!(
            "{written} background writes were acknowledged, but {background} are on record"
        )));
    }
    if receipts < stage.keys.len() {
        return Err(CliError::failed("the audit trail does not hold what the receipts say"));
    }
    story.note(format!(
        "The hash chain holds over all {} records; all five receipts lie on it.",
        end.sequence
    ))?;
    story.held()
}

async fn compare(story: &mut Story, stage: &Stage) -> Result<(), CliError> {
    story.begin("All three servers have the same state")?;
    let (index, digest) = stage.cluster.wait_same_digest(LIMIT).await?;
    story.note(format!("at log index {index} the digest of each server's state is"))?;
    story.note(digest)?;
    story.held()
}
