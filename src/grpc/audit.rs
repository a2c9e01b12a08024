//! `holdfast.v1.AuditService`.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use holdfast_proto::v1;
use holdfast_proto::v1::audit_service_server::AuditService as Api;
use tonic::{Request, Response, Status};

use crate::auth::Action;
use crate::domain::{Actor, AuditAction, AuditRecord, FieldError, Timestamp};
use crate::service::{
    AuditService, Consensus, Filter, Head, Listing, ServiceError, SignedCheckpoint, Staleness,
};

use super::gate::Gate;
use super::page::Budget;
use super::{decode, encode};

/// Serves auditors.
pub(super) struct AuditApi<C> {
    pub(super) gate: Arc<Gate<C>>,
    pub(super) service: AuditService<C>,
}

impl<C: Consensus> AuditApi<C> {
    async fn list(
        &self,
        request: Request<v1::ListRecordsRequest>,
    ) -> Result<Listing<C>, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let stale = request.stale;
        let filter = decode_filter(request)?;
        let staleness = Staleness::of_read(stale);
        let permit = self.gate.permit_read(&caller, Action::ReadAudit, staleness)?;
        self.service.list(&permit, filter, stale).await
    }

    async fn head(
        &self,
        request: Request<v1::GetHeadRequest>,
    ) -> Result<(Head, Option<SignedCheckpoint>), ServiceError> {
        let caller = self.gate.caller(&request)?;
        let stale = request.get_ref().stale;
        let staleness = Staleness::of_read(stale);
        let permit = self.gate.permit_read(&caller, Action::ReadAudit, staleness)?;
        self.service.head(&permit, stale).await
    }
}

type Records = Pin<Box<dyn Stream<Item = Result<v1::ListRecordsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl<C: Consensus> Api for AuditApi<C> {
    type ListRecordsStream = Records;

    async fn list_records(
        &self,
        request: Request<v1::ListRecordsRequest>,
    ) -> Result<Response<Records>, Status> {
        let mut listing = self.list(request).await.map_err(|error| self.gate.status(error))?;
        let gate = Arc::clone(&self.gate);
        let records = async_stream::stream! {
            // The first message always comes, so that an empty listing has its head too.
            let mut sent_any = false;
            loop {
                match listing.next_page().await {
                    Ok(Some(page)) => {
                        for message in messages(&page, &listing.head) {
                            sent_any = true;
                            yield Ok(message);
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        yield Err(gate.status(error));
                        return;
                    }
                }
            }
            if !sent_any {
                yield Ok(message(Vec::new(), &listing.head));
            }
        };
        Ok(Response::new(Box::pin(records)))
    }

    async fn get_head(
        &self,
        request: Request<v1::GetHeadRequest>,
    ) -> Result<Response<v1::GetHeadResponse>, Status> {
        let answer = self.head(request).await.map_err(|error| self.gate.status(error))?;
        let (head, checkpoint) = answer;
        Ok(Response::new(v1::GetHeadResponse {
            head: Some(encode::audit_head(&head.audit)),
            applied_index: head.read.applied_index,
            age_ms: encode::age_ms(head.read.age),
            checkpoint: checkpoint.map(encode_checkpoint),
        }))
    }
}

fn encode_checkpoint(signed: SignedCheckpoint) -> v1::AuditCheckpoint {
    let SignedCheckpoint { cluster, facts, node, signature, signer_chain } = signed;
    v1::AuditCheckpoint {
        cluster_id: cluster.to_string(),
        head: Some(encode::audit_head(&facts.head)),
        position: Some(v1::LogPosition { term: facts.term, index: facts.index }),
        time_ms: facts.time.as_millis(),
        node_id: node.get(),
        signature,
        signer_chain,
    }
}

pub(super) fn decode_filter(request: v1::ListRecordsRequest) -> Result<Filter, FieldError> {
    if request.last_sequence != 0 && request.last_sequence < request.first_sequence {
        return Err(FieldError::new("last_sequence", "is less than first_sequence"));
    }
    if request.until_ms != 0 && request.until_ms <= request.since_ms {
        return Err(FieldError::new("until_ms", "is not after since_ms"));
    }
    let time = |ms: u64| (ms != 0).then_some(Timestamp::from_millis(ms));
    Ok(Filter {
        first: request.first_sequence,
        last: request.last_sequence,
        actor: decode::optional_id::<Actor>("actor", &request.actor)?,
        action: decode::optional_id::<AuditAction>("action", &request.action)?,
        device: decode::optional_id("device_id", &request.device_id)?,
        protector: decode::optional_id("protector_id", &request.protector_id)?,
        since: time(request.since_ms),
        until: time(request.until_ms),
    })
}

/// A page, cut into messages that are not too large.
fn messages(page: &[AuditRecord], head: &Head) -> Vec<v1::ListRecordsResponse> {
    let mut out = Vec::new();
    let mut budget = Budget::default();
    let mut records = Vec::new();
    for record in page.iter().map(encode_record) {
        if !budget.takes(&record) {
            out.push(message(std::mem::take(&mut records), head));
            budget = Budget::default();
            budget.takes(&record);
        }
        records.push(record);
    }
    if !records.is_empty() {
        out.push(message(records, head));
    }
    out
}

fn message(records: Vec<v1::AuditRecord>, head: &Head) -> v1::ListRecordsResponse {
    v1::ListRecordsResponse {
        records,
        head: Some(encode::audit_head(&head.audit)),
        applied_index: head.read.applied_index,
        age_ms: encode::age_ms(head.read.age),
    }
}

fn encode_record(record: &AuditRecord) -> v1::AuditRecord {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    v1::AuditRecord {
        sequence: record.sequence,
        time_ms: record.time.as_millis(),
        actor: text(record.actor.as_ref()),
        action: record.action.to_string(),
        outcome: record.outcome.as_str().to_owned(),
        request_id: text(record.request_id),
        device_id: text(record.device),
        volume_id: text(record.volume),
        protector_id: text(record.protector),
        version: record.version.get(),
        reason: record.reason.as_ref().map(|reason| v1::Reason {
            code: reason.code().to_owned(),
            text: reason.text().to_owned(),
        }),
        user: record.user.as_ref().map(encode::user),
        ticket: record.ticket.to_string(),
        detail: record.detail.to_string(),
        count: record.count,
        position: Some(v1::LogPosition { term: record.log_term, index: record.log_index }),
        previous_hash: Bytes::copy_from_slice(&record.previous_hash),
        hash: Bytes::copy_from_slice(&record.hash()),
        canonical: Bytes::from(record.canonical()),
    }
}
