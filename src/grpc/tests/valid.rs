//! Well-formed requests, each at its limits.

use bytes::Bytes;
use holdfast_proto::v1;

use crate::domain::limits;
use crate::grpc::cluster::{CERTIFICATE_BYTES, CHAIN_CERTIFICATES, PRIVATE_KEY_BYTES};

pub(super) const ID: &str = "8c9d0e1f-2a3b-4c5d-6e7f-8091a2b3c4d5";

pub(super) fn user(name: impl Into<String>) -> v1::User {
    v1::User { domain: "CORP".into(), name: name.into() }
}

pub(super) fn sealed(bytes: usize) -> v1::SealedKey {
    v1::SealedKey {
        epoch: 1,
        encapsulated_key: Bytes::from(vec![1; 32]),
        ciphertext: Bytes::from(vec![2; bytes]),
    }
}

pub(super) fn escrow() -> v1::EscrowRecoveryKeyRequest {
    v1::EscrowRecoveryKeyRequest {
        request_id: ID.into(),
        device_id: ID.into(),
        volume_id: ID.into(),
        protector_id: ID.into(),
        protector_kind: 1,
        volume_kind: 1,
        expected_version: 0,
        sealed_key: Some(sealed(limits::SEALED_KEY_BYTES)),
        sealed_key_package: Some(sealed(limits::SEALED_PACKAGE_BYTES)),
        host_name: "h".repeat(limits::NAME_BYTES),
        users: vec![user("u".repeat(limits::NAME_BYTES)); limits::DEVICE_USERS],
    }
}

pub(super) fn volume(n: u8) -> v1::VolumeCompliance {
    v1::VolumeCompliance {
        volume_id: format!("{n:02x}").repeat(16),
        volume_kind: 1,
        mount_point: "m".repeat(limits::NAME_BYTES),
        status: 2,
        reasons: (0..=16).collect(),
        encryption_state: 3,
        protection_on: true,
        cipher: "c".repeat(limits::NAME_BYTES),
        protector_types: "p".repeat(limits::NAME_BYTES),
    }
}

pub(super) fn report() -> v1::ReportComplianceRequest {
    let name = "n".repeat(limits::NAME_BYTES);
    v1::ReportComplianceRequest {
        request_id: ID.into(),
        device_id: ID.into(),
        host_name: name.clone(),
        operating_system: name.clone(),
        manufacturer: name.clone(),
        model: name,
        users: vec![user("u"); limits::DEVICE_USERS],
        volumes: (1..=64).map(volume).collect(),
    }
}

pub(super) fn disclose() -> v1::DiscloseKeyRequest {
    v1::DiscloseKeyRequest {
        request_id: ID.into(),
        protector_id: ID.into(),
        version: 0,
        reason: Some(v1::Reason { code: "OTHER".into(), text: "t".repeat(limits::TEXT_BYTES) }),
        user: Some(user("bob")),
        ticket: "t".repeat(limits::NAME_BYTES),
        include_key_package: false,
        approval_id: u64::MAX,
    }
}

pub(super) fn approval_request() -> v1::RequestApprovalRequest {
    let disclose = disclose();
    v1::RequestApprovalRequest {
        request_id: disclose.request_id,
        protector_id: disclose.protector_id,
        version: disclose.version,
        reason: disclose.reason,
        user: disclose.user,
        ticket: disclose.ticket,
    }
}

pub(super) fn decision() -> v1::DecideApprovalRequest {
    let reason = "r".repeat(limits::NAME_BYTES);
    v1::DecideApprovalRequest { request_id: ID.into(), approval_id: 17, approve: true, reason }
}

pub(super) fn policy() -> v1::SetDisclosurePolicyRequest {
    let policy = v1::DisclosurePolicy {
        requester_per_hour: limits::REQUESTER_HOUR,
        requester_per_day: limits::REQUESTER_DAY,
        cluster_per_hour: limits::CLUSTER_HOUR,
        approval_ms: *limits::APPROVAL_MS.end(),
        dual_control_groups: (0..limits::DUAL_CONTROL_GROUPS).map(|n| format!("{n:064}")).collect(),
    };
    v1::SetDisclosurePolicyRequest { request_id: ID.into(), revision: 3, policy: Some(policy) }
}

pub(super) fn proposal() -> v1::ProposeMassRecoveryRequest {
    let reason = "r".repeat(limits::NAME_BYTES);
    let duration_ms = *limits::MASS_RECOVERY_MS.end();
    v1::ProposeMassRecoveryRequest { request_id: ID.into(), duration_ms, reason }
}

pub(super) fn node(id: u64) -> v1::NodeSpec {
    v1::NodeSpec {
        node_id: id,
        peer_address: "host:7402".into(),
        client_address: "[::1]:7401".into(),
    }
}

pub(super) fn init() -> v1::InitClusterRequest {
    v1::InitClusterRequest {
        request_id: ID.into(),
        nodes: (1..=9).map(node).collect(),
        first_administrator: "alice".into(),
        signer_chain: vec![Bytes::from(vec![0; CERTIFICATE_BYTES]); CHAIN_CERTIFICATES],
        signer_private_key: Bytes::from(vec![0; PRIVATE_KEY_BYTES]),
        root_key: Bytes::new(),
        share_set: None,
    }
}

/// The same with a root key in shares.
pub(super) fn split_init() -> v1::InitClusterRequest {
    v1::InitClusterRequest {
        root_key: Bytes::from(vec![0x4b; 32]),
        share_set: Some(v1::ShareSet { id: "0f".repeat(8), shares: 32, threshold: 2 }),
        ..init()
    }
}

/// A share as an operator types it.
pub(super) fn share() -> v1::GiveShareRequest {
    let root = crate::crypto::RootKey::from_bytes([0x4b; 32]);
    let mut rng = crate::crypto::testing::rng();
    let shares =
        crate::crypto::Share::split(&root, crate::crypto::testing::CLUSTER, (5, 3), &mut rng);
    let share = Bytes::copy_from_slice(shares.unwrap()[1].expose_text().as_bytes());
    v1::GiveShareRequest { request_id: ID.into(), share }
}

pub(super) fn grant() -> v1::GrantRoleRequest {
    v1::GrantRoleRequest {
        request_id: ID.into(),
        operator: "bob".into(),
        role: v1::Role::HelpDesk.into(),
        groups: (0..limits::GRANT_GROUPS).map(|n| format!("site-{n}")).collect(),
    }
}
