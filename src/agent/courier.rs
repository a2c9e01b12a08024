//! Brings what waits in the spool to the servers, and does what their answers mean.
//!
//! An entry is sent with the same bytes until a receipt for exactly these bytes is durable, or until a server says that it
//! will never take them. What is no verdict on the bytes (no server, no certificate, a receipt that doesn't verify) leaves
//! the entry where it is.

#[cfg(all(test, feature = "server"))]
mod tests;

use std::future::Future;
use std::time::Duration;

use holdfast_proto::v1;

use super::spool::{Spool, SpoolError, SpooledEscrow};
use crate::client::{
    Client, ClientError, ErrorKind, NewEscrow, Receipt, SealedEscrow, with_causes,
};
use crate::domain::{KeyVersion, RecoveryKey, VolumeId};
use crate::fs::Fs;

/// Reasons that are a verdict on the bytes: no repetition of them can end otherwise.
const FOR_GOOD: [&str; 4] =
    ["STALE_VERSION", "UNKNOWN_EPOCH", "FOREIGN_VOLUME", "REQUEST_ID_REUSED"];

/// The servers, as the courier needs them.
pub trait Servers {
    /// Seals a recovery key to the cluster's escrow key, whose chain to the pinned CA is checked. Nothing but that key is asked for.
    fn seal(
        &self,
        escrow: &NewEscrow,
        key: &RecoveryKey,
    ) -> impl Future<Output = Result<SealedEscrow, ClientError>> + Send;

    /// Sends a sealed key and checks the receipt.
    fn escrow(
        &self,
        sealed: &SealedEscrow,
    ) -> impl Future<Output = Result<Receipt, ClientError>> + Send;

    /// Sends a compliance report.
    fn report(
        &self,
        request: &v1::ReportComplianceRequest,
    ) -> impl Future<Output = Result<v1::ReportComplianceResponse, ClientError>> + Send;
}

impl Servers for Client {
    async fn seal(
        &self,
        escrow: &NewEscrow,
        key: &RecoveryKey,
    ) -> Result<SealedEscrow, ClientError> {
        Self::seal(self, escrow, key, None).await
    }

    async fn escrow(&self, sealed: &SealedEscrow) -> Result<Receipt, ClientError> {
        self.send(sealed).await
    }

    async fn report(
        &self,
        request: &v1::ReportComplianceRequest,
    ) -> Result<v1::ReportComplianceResponse, ClientError> {
        self.report_compliance(request.clone()).await
    }
}

/// Something that became of an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A majority of the servers has the key, and its receipt is on this disk.
    Escrowed {
        /// The entry.
        number: u64,
        /// Its receipt.
        receipt: Box<Receipt>,
    },
    /// The servers will never take these bytes. The volume needs a new key.
    Refused {
        /// The entry.
        number: u64,
        /// Its volume.
        volume: VolumeId,
        /// The server's reason in UPPER_SNAKE.
        reason: String,
        /// The version of the volume's key that the servers have, where that was the reason.
        current: Option<KeyVersion>,
    },
    /// The report was taken.
    Reported {
        /// Volumes whose key is to be replaced by a new one.
        rotation_due: Vec<VolumeId>,
    },
}

/// Why something still waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What it means.
    pub kind: ErrorKind,
    /// For a person.
    pub what: String,
    /// When a server says that another attempt may help.
    pub retry_after: Option<Duration>,
}

/// What one round has done.
#[derive(Debug, Default)]
pub struct Round {
    /// What became of entries, in order.
    pub events: Vec<Event>,
    /// The first thing that was in the way; `None` if nothing waits any more.
    pub obstacle: Option<Obstacle>,
}

/// Delivers what waits, until nothing does or something is in the way.
///
/// # Errors
/// If the spool can't keep what it was told. What happened before that stands in no round, but in the spool.
pub async fn deliver<F: Fs>(
    spool: &mut Spool<F>,
    servers: &(impl Servers + Sync),
) -> Result<Round, SpoolError> {
    let mut round = Round::default();
    let mut passed_over = Vec::new();
    while let Some(entry) = next(spool, &passed_over) {
        match servers.escrow(&entry.sealed).await {
            Ok(receipt) => {
                spool.delivered(entry.number, &receipt)?;
                let number = entry.number;
                round.events.push(Event::Escrowed { number, receipt: Box::new(receipt) });
            }
            Err(error) if is_final(&error) => {
                spool.set_aside(entry.number)?;
                round.events.push(refused(&entry, &error));
            }
            Err(error) => {
                let of_this_volume = error.kind() == ErrorKind::Exhausted;
                round.obstacle.get_or_insert_with(|| obstacle(&error));
                if !of_this_volume {
                    return Ok(round);
                }
                passed_over.push(entry.sealed.volume());
            }
        }
    }
    report(spool, servers, &mut round).await;
    Ok(round)
}

fn next<F: Fs>(spool: &Spool<F>, passed_over: &[VolumeId]) -> Option<SpooledEscrow> {
    spool.next_escrows().find(|entry| !passed_over.contains(&entry.sealed.volume())).cloned()
}

async fn report<F: Fs>(spool: &mut Spool<F>, servers: &(impl Servers + Sync), round: &mut Round) {
    let Some(waiting) = spool.report().cloned() else { return };
    match servers.report(&waiting.request).await {
        Ok(answer) => {
            spool.report_delivered(waiting.number);
            let due = answer.rotation_due_volume_ids.iter().filter_map(|id| match id.parse() {
                Ok(volume) => Some(volume),
                Err(error) => {
                    tracing::warn!(%error, "a server orders a rotation of what is no volume");
                    None
                }
            });
            round.events.push(Event::Reported { rotation_due: due.collect() });
        }
        // The next one says everything anew.
        Err(error) if error.kind() == ErrorKind::Invalid => {
            tracing::error!(error = %with_causes(&error), "the servers don't take a compliance report");
            spool.report_delivered(waiting.number);
        }
        Err(error) => {
            round.obstacle.get_or_insert_with(|| obstacle(&error));
        }
    }
}

fn is_final(error: &ClientError) -> bool {
    // A field that is not well-formed stays so; only a server's word counts, not one of this client.
    let of_server = matches!(error, ClientError::Refused(_));
    of_server && (error.kind() == ErrorKind::Invalid || FOR_GOOD.contains(&error.reason()))
}

fn refused(entry: &SpooledEscrow, error: &ClientError) -> Event {
    let volume = entry.sealed.volume();
    tracing::warn!(%volume, version = %entry.sealed.version(), %error, "a sealed key is refused for good");
    let current = match error {
        ClientError::Refused(refusal) => refusal.current_version,
        _ => None,
    };
    Event::Refused { number: entry.number, volume, reason: error.reason().to_owned(), current }
}

fn obstacle(error: &ClientError) -> Obstacle {
    let retry_after = match error {
        ClientError::Refused(refusal) => refusal.retry_after,
        _ => None,
    };
    Obstacle { kind: error.kind(), what: with_causes(error), retry_after }
}
