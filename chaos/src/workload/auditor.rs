//! What an auditor does: look at the end of the chain, and at all of it.

use holdfast::client::{AuditFilter, ChainVerifier, Client, ClientError};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::Shared;
use super::agent::missing;
use super::calls::{Caller, Who, known};
use super::door::Door;
use crate::history::{Audit, Call, Outcome, Reply};

/// An auditor.
pub(super) struct AuditorClient {
    id: u64,
    doors: [Door; 2],
}

impl AuditorClient {
    pub(super) fn new(shared: &Shared, id: u64, bound: Option<usize>) -> Self {
        let files = &shared.options.auditor.files;
        // Now through one server, now through any: two servers that disagree are seen.
        Self { id, doors: [shared.door(files, bound, 0), shared.door(files, None, 1)] }
    }

    /// The next call. Answers whether its outcome is known.
    pub(super) async fn step(&mut self, shared: &Shared, rng: &mut StdRng) -> bool {
        let [one, any] = &mut self.doors;
        let door = if rng.random_bool(0.5) { one } else { any };
        let Ok((node, client)) = door.client(&shared.endpoints) else { return false };
        let who = Who { client: self.id, node };
        known(&head(&shared.caller, who, &client).await)
    }
}

pub(super) async fn head(caller: &Caller, who: Who, client: &Client) -> Outcome {
    let answer = async {
        let answer = client.audit_head(false).await?;
        let head = answer.head.ok_or_else(|| missing("head"))?;
        Ok(Reply::AuditHead {
            sequence: head.sequence,
            hash: hex::encode(&head.hash),
            index: answer.applied_index,
        })
    };
    caller.call(who, Call::AuditHead, answer).await
}

/// Records that are written down together. A server's own pages may be of any size.
const PAGE: usize = 500;

/// Lists and verifies the whole chain.
pub(super) async fn list(caller: &Caller, who: Who, client: &Client) -> Outcome {
    caller.call(who, Call::AuditList, listed(caller, client)).await
}

/// Each page is written down when it is full, and none twice: a chain of a million records through each server must neither
/// fill the memory nor the history.
async fn listed(caller: &Caller, client: &Client) -> Result<Reply, ClientError> {
    let mut listing = client.audit_records(&AuditFilter::default());
    let mut verifier = ChainVerifier::new();
    let (mut pages, mut records) = (Vec::new(), Vec::new());
    while let Some(page) = listing.next().await? {
        for record in page {
            verifier.take(&record)?;
            records.push(Audit {
                sequence: record.sequence,
                action: record.action,
                outcome: record.outcome,
                request: record.request_id,
                protector: record.protector_id,
                version: record.version,
                count: record.count,
                hash: hex::encode(&record.hash),
            });
            if records.len() == PAGE {
                pages.push(caller.page(std::mem::take(&mut records)));
            }
        }
    }
    let head = listing.head().ok_or_else(|| missing("head"))?;
    verifier.finish(head)?;
    Ok(Reply::AuditList { pages, records, head: hex::encode(&head.hash) })
}
