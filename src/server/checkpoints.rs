//! Signed checkpoints of the audit chain, for places off the servers: what is kept there shows that their chain was rewritten.
//!
//! One is kept when the chain has grown by so many records, and within a minute if it has grown at all. At least once: what
//! could not be written is tried again, and after a restart the place says where it stands.
//!
//! What was kept is also held against this node's own chain: at the start, and before anything is added. A chain that lacks
//! what was signed before is vouched for no more, and no key is opened on its account (`service::chain`).

mod file;
#[cfg(test)]
pub(super) mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::auth::Authorities;
use crate::client::evidence::{Checkpoint, EvidenceError, when};
use crate::crypto::NodeSigner;
use crate::domain::ClusterId;
use crate::service::{
    Contained, Context, Missing, ServiceError, SignedCheckpoint, local_checkpoint,
};

use super::node::ServerNode;

pub(super) use file::CheckpointFile;

/// How often the chain is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a record may wait for a checkpoint.
const INTERVAL: Duration = Duration::from_secs(60);
/// How often it is said that the chain is not the one that was signed.
const REMIND: Duration = Duration::from_secs(60 * 60);

/// Why checkpoints can't be kept in a place.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it holds is no checkpoint: it is something else.
    #[error("{}: it holds no checkpoint: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: EvidenceError,
    },
    /// It is another cluster's.
    #[error("{}: it has the checkpoints of cluster {found}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
    },
}

/// A place where checkpoints are kept.
pub(super) trait Sink: Send + Sync + 'static {
    /// Where it is.
    fn path(&self) -> &Path;

    /// Adds a checkpoint, and brings it to disk.
    fn append(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointFileError>;

    /// Whether the newest checkpoint could not be added.
    fn failing(&self) -> &AtomicBool;
}

/// When a checkpoint is due.
#[derive(Debug)]
struct Pace {
    records: u64,
    last: u64,
    written: Instant,
}

impl Pace {
    fn is_due(&self, head: u64, now: Instant) -> bool {
        let grown = head.saturating_sub(self.last);
        grown >= self.records || (grown > 0 && now.duration_since(self.written) >= INTERVAL)
    }
}

/// Keeps checkpoints in one place.
pub(super) struct Keeper<N, S> {
    context: Arc<Context<N>>,
    signer: watch::Receiver<Arc<NodeSigner>>,
    authorities: Arc<Authorities>,
    sink: Arc<S>,
    /// The newest that was kept.
    newest: Option<Checkpoint>,
    /// Whether the chain was found to contain it since the start.
    compared: bool,
    pace: Pace,
    /// When it was last said that the chain is not the one that was signed.
    said: Option<Instant>,
}

impl<N: ServerNode, S: Sink> Keeper<N, S> {
    /// For a place whose newest checkpoint is `newest`; another one is due after so many records.
    pub(super) fn new(
        context: Arc<Context<N>>,
        signer: watch::Receiver<Arc<NodeSigner>>,
        authorities: Arc<Authorities>,
        (sink, newest): (Arc<S>, Option<Checkpoint>),
        records: u64,
    ) -> Self {
        let last = newest.as_ref().map_or(0, |newest| newest.facts.head.sequence);
        let pace = Pace { records, last, written: Instant::now() };
        let compared = newest.is_none();
        Self { context, signer, authorities, sink, newest, compared, pace, said: None }
    }

    /// For ever.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if let Err(error) = self.look().await {
                tracing::error!(%error, "the audit chain can't be read");
                if let ServiceError::Store(fault) = &error {
                    self.context.report_fault(fault);
                }
                return;
            }
        }
    }

    async fn look(&mut self) -> Result<(), ServiceError> {
        if let Some(why) = self.context.chain_conflict() {
            let now = Instant::now();
            if self.said.is_none_or(|said| now.duration_since(said) >= REMIND) {
                tracing::error!(
                    why,
                    "THE AUDIT CHAIN IS NOT THE ONE THAT WAS SIGNED: this server opens no key and adds no checkpoint"
                );
                self.said = Some(now);
            }
            return Ok(());
        }
        if !self.compared {
            self.compared = self.is_contained().await?;
            return Ok(());
        }
        let signer = Arc::clone(&self.signer.borrow());
        let Some(signed) = local_checkpoint(&self.context, &signer)? else { return Ok(()) };
        if self.pace.is_due(signed.facts.head.sequence, Instant::now())
            && self.is_contained().await?
        {
            self.add(signed).await;
        }
        Ok(())
    }

    /// Whether the chain contains the newest checkpoint that was kept. That it never will is noted for all to see.
    async fn is_contained(&self) -> Result<bool, ServiceError> {
        let Some(newest) = &self.newest else { return Ok(true) };
        Ok(match self.context.chain_contains(newest.facts.head).await? {
            Contained::Yes => true,
            Contained::NotYet => false,
            Contained::No(missing) => {
                self.context.report_chain_conflict(self.describe(newest, missing));
                false
            }
        })
    }

    fn describe(&self, kept: &Checkpoint, missing: Missing) -> String {
        let (head, node, time) = (kept.facts.head, kept.node, when(kept.facts.time));
        let verified = kept.verify(&self.authorities.node(), self.context.now());
        let doubt = verified.err().map(|error| format!(" (which does not verify: {error})"));
        format!(
            "{} has a checkpoint of record {} with hash {}, signed by node {node} at {time}{}; {missing}",
            self.sink.path().display(),
            head.sequence,
            hex::encode(head.hash),
            doubt.unwrap_or_default(),
        )
    }

    async fn add(&mut self, signed: SignedCheckpoint) {
        let now = Instant::now();
        let SignedCheckpoint { cluster, facts, node, signature, signer_chain } = signed;
        let checkpoint = Checkpoint { cluster, facts, node, signature, signer_chain };
        let (sink, adding) = (Arc::clone(&self.sink), checkpoint.clone());
        let added = crate::turns::blocking(move || sink.append(&adding)).await;
        let Ok(added) = added else { return };
        report(self.sink.as_ref(), added.as_ref().err());
        if added.is_ok() {
            self.pace.last = facts.head.sequence;
            self.pace.written = now;
            self.newest = Some(checkpoint);
        }
    }
}

/// Says once that it fails, and once that it works again.
fn report(sink: &impl Sink, error: Option<&CheckpointFileError>) {
    let failed_before = sink.failing().swap(error.is_some(), Ordering::Relaxed);
    match error {
        Some(error) if !failed_before => {
            tracing::error!(%error, "checkpoints of the audit chain can't be kept; they are tried again");
        }
        None if failed_before => {
            tracing::info!(path = %sink.path().display(), "checkpoints of the audit chain are kept again");
        }
        Some(_) | None => {}
    }
}
