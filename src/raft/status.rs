//! What members say of themselves, over the peer port.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::peer::v1 as pb;
use holdfast_proto::v1 as api;
use prost::Message as _;

use super::api::{Member, MemberReport, MemberRole};
use super::peers::{Lane, Peers};
use crate::state::AuditPosition;

/// How long a member may take to say how it is.
const DEADLINE: Duration = Duration::from_secs(1);

/// Asks a member how it is; the error is for a person.
pub(crate) async fn ask(peers: &Peers, member: &Member) -> Result<MemberReport, String> {
    let mut client = peers.client(member, Lane::Control).map_err(|error| error.to_string())?;
    let mut request = tonic::Request::new(pb::StatusRequest {});
    request.set_timeout(DEADLINE);
    let answer = tokio::time::timeout(DEADLINE, client.status(request)).await;
    let answer = answer.map_err(|_| "no answer within a second".to_owned())?;
    let response = answer.map_err(|status| status.message().to_owned())?;
    read(&response.into_inner().status).map_err(|error| error.to_string())
}

/// The report as it travels: a holdfast.v1.MemberStatus without the parts that the asker knows.
pub(crate) fn write(report: &MemberReport) -> Bytes {
    let role = match report.role {
        MemberRole::Leader => api::MemberRole::Leader,
        MemberRole::Follower => api::MemberRole::Follower,
        MemberRole::Candidate => api::MemberRole::Candidate,
        MemberRole::Learner => api::MemberRole::Learner,
        MemberRole::IsolatedLeader => api::MemberRole::IsolatedLeader,
    };
    let status = api::MemberStatus {
        role: role.into(),
        term: report.term,
        last_log_index: report.last_log_index,
        applied_index: report.applied_index,
        snapshot_index: report.snapshot_index,
        unsealed: report.unsealed,
        state_digest: Bytes::copy_from_slice(&report.state_digest),
        record_count: report.record_count,
        audit_head: Some(api::AuditHead {
            sequence: report.audit.sequence,
            hash: Bytes::copy_from_slice(&report.audit.hash),
        }),
        log_bytes: report.log_bytes,
        version: report.version.clone(),
        divergence: report.divergence.clone(),
        disk_low: report.disk_low,
        ..api::MemberStatus::default()
    };
    status.encode_to_vec().into()
}

pub(super) fn read(bytes: &[u8]) -> Result<MemberReport, super::wire::WireError> {
    use super::wire::WireError;
    let status =
        api::MemberStatus::decode(bytes).map_err(|_| WireError("status can't be decoded"))?;
    let hash = |bytes: &[u8]| {
        <[u8; 32]>::try_from(bytes).map_err(|_| WireError("a hash must have 32 bytes"))
    };
    let audit = status.audit_head.as_ref().ok_or(WireError("audit_head is missing"))?;
    Ok(MemberReport {
        role: match status.role() {
            api::MemberRole::Leader => MemberRole::Leader,
            api::MemberRole::Candidate => MemberRole::Candidate,
            api::MemberRole::Learner => MemberRole::Learner,
            api::MemberRole::IsolatedLeader => MemberRole::IsolatedLeader,
            api::MemberRole::Follower | api::MemberRole::Unspecified => MemberRole::Follower,
        },
        term: status.term,
        last_log_index: status.last_log_index,
        applied_index: status.applied_index,
        snapshot_index: status.snapshot_index,
        unsealed: status.unsealed,
        state_digest: hash(&status.state_digest)?,
        record_count: status.record_count,
        audit: AuditPosition { sequence: audit.sequence, hash: hash(&audit.hash)? },
        log_bytes: status.log_bytes,
        version: status.version.clone(),
        divergence: status.divergence,
        disk_low: status.disk_low,
    })
}
