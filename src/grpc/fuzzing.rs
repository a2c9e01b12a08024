//! Requests of the public API: read as protobuf and validated as the handlers do, field by field.
//!
//! Each function gives its bytes to every method of one service that looks into its request. Nothing is served.

use holdfast_proto::v1;
use prost::Message;

use super::{
    admin, audit, cluster, compliance, decode, denials, enrolment as enrol, escrow, operator as op,
    page, recovery,
};
use crate::domain::{DenialSubject, DeviceId, FieldError};

/// Reads and validates a request. One that is refused names the field. True if it was taken.
fn taken<M: Message + Default, T>(
    bytes: &[u8],
    validate: impl FnOnce(M) -> Result<T, FieldError>,
) -> bool {
    let Ok(message) = M::decode(bytes) else { return false };
    match validate(message) {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.field.is_empty() && !error.what.is_empty(), "{error}");
            false
        }
    }
}

/// `EscrowRecoveryKey`.
pub(crate) fn escrow(bytes: &[u8]) -> bool {
    taken(bytes, escrow::decode_escrow)
}

/// `ReportCompliance`.
pub(crate) fn compliance(bytes: &[u8]) -> bool {
    taken(bytes, compliance::decode_report)
}

/// `FindKeys` and `DiscloseKey`.
pub(crate) fn recovery(bytes: &[u8]) -> bool {
    [taken(bytes, recovery::decode_find), taken(bytes, recovery::decode_disclose)].contains(&true)
}

/// `ListRecords`.
pub(crate) fn audit(bytes: &[u8]) -> bool {
    taken(bytes, audit::decode_filter)
}

/// `GrantRole`, `RevokeRole`, `DenyCertificate`, `AllowCertificate`, `GetDevice` and the three lists.
pub(crate) fn admin(bytes: &[u8]) -> bool {
    [
        taken(bytes, |m: v1::GrantRoleRequest| {
            admin::decode_grant(&m.request_id, &m.operator, m.role)
        }),
        taken(bytes, |m: v1::RevokeRoleRequest| {
            admin::decode_grant(&m.request_id, &m.operator, m.role)
        }),
        taken(bytes, denials::decode_deny),
        taken(bytes, |m: v1::AllowCertificateRequest| {
            decode::request_id(&m.request_id)?;
            decode::id::<DenialSubject>("subject", &m.subject)
        }),
        taken(bytes, |m: v1::GetDeviceRequest| decode::id::<DeviceId>("device_id", &m.device_id)),
        taken(bytes, |m: v1::ListDevicesRequest| {
            Ok((decode::page_size(m.page_size)?, page::start_of(&m.page_token)?))
        }),
        taken(bytes, |m: v1::ListGrantsRequest| {
            Ok((decode::page_size(m.page_size)?, page::grant_of(&m.page_token)?))
        }),
        taken(bytes, |m: v1::ListDenialsRequest| {
            Ok((decode::page_size(m.page_size)?, page::denial_of(&m.page_token)?))
        }),
    ]
    .contains(&true)
}

/// `InitCluster`, `AddLearner`, `PromoteNode`, `RemoveNode` and `TransferLeadership`.
pub(crate) fn cluster(bytes: &[u8]) -> bool {
    [
        taken(bytes, cluster::decode_init),
        taken(bytes, |m: v1::AddLearnerRequest| {
            decode::request_id(&m.request_id)?;
            cluster::decode_node("node", decode::present("node", m.node)?)
        }),
        taken(bytes, |m: v1::PromoteNodeRequest| {
            decode::request_id(&m.request_id)?;
            cluster::node_id("node_id", m.node_id)
        }),
        taken(bytes, |m: v1::RemoveNodeRequest| {
            decode::request_id(&m.request_id)?;
            cluster::node_id("node_id", m.node_id)
        }),
        taken(bytes, |m: v1::TransferLeadershipRequest| decode::request_id(&m.request_id)),
    ]
    .contains(&true)
}

/// `Enrol` of a device that is nobody yet, and all of `CertificateService` that looks into its request.
pub(crate) fn enrolment(bytes: &[u8]) -> bool {
    [
        taken(bytes, enrol::decode_enrol),
        taken(bytes, enrol::decode_issue),
        taken(bytes, |m: v1::RevokeTokenRequest| enrol::decode_revoke(&m)),
        taken(bytes, |m: v1::CreateAgentCaRequest| enrol::decode_create(&m)),
        // The certificate request in it is a target of its own.
        taken(bytes, |m: v1::RenewCertificateRequest| decode::request_id(&m.request_id)),
        taken(bytes, |m: v1::ListTokensRequest| {
            Ok((decode::page_size(m.page_size)?, page::token_id_of(&m.page_token)?))
        }),
    ]
    .contains(&true)
}

/// `GiveShare`, `SealCluster`, `UnsealCluster`, `RotateEscrowKey`, `RekeyRootKey` and `ResealKeys`.
pub(crate) fn operator(bytes: &[u8]) -> bool {
    [
        taken(bytes, op::decode_share),
        taken(bytes, op::decode_seal),
        taken(bytes, |m: v1::UnsealClusterRequest| decode::request_id(&m.request_id)),
        taken(bytes, |m: v1::RotateEscrowKeyRequest| op::decode_rotate(&m)),
        taken(bytes, op::decode_rekey),
        taken(bytes, |m: v1::ResealKeysRequest| page::key_of(&m.page_token)),
    ]
    .contains(&true)
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    super::tests::fuzzing_seeds()
}
