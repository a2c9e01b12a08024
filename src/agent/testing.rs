//! What the tests of this room share: one device, its disk, and what it escrows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]

use std::path::Path;

use bytes::Bytes;
use holdfast_proto::v1;

use super::spool::Spool;
use crate::client::{Receipt, SealedEscrow};
use crate::crypto::ReceiptFacts;
use crate::domain::{
    ClusterId, DeviceId, Epoch, NodeId, ProtectorId, Sealed, Timestamp, VolumeId, sealed_digest,
};
use crate::fs::Fs as _;
use crate::fs::sim::SimFs;

const DIR: &str = "/var/lib/holdfast-agent/spool";
pub(crate) const DEVICE: DeviceId = DeviceId::from_bytes([0xd1; 16]);
pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(crate) fn dir() -> &'static Path {
    Path::new(DIR)
}

pub(crate) fn disk() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir_all(dir().parent().unwrap()).unwrap();
    for parent in dir().ancestors().skip(1) {
        fs.sync_dir(parent).unwrap();
    }
    fs
}

pub(crate) fn open(fs: &SimFs) -> Spool<SimFs> {
    Spool::open(fs.clone(), dir(), DEVICE).unwrap()
}

pub(crate) fn volume(number: u8) -> VolumeId {
    VolumeId::from_bytes([number; 16])
}

pub(crate) fn sealed_part(fill: u8, bytes: usize) -> v1::SealedKey {
    v1::SealedKey {
        epoch: 1,
        encapsulated_key: Bytes::from(vec![fill; 32]),
        ciphertext: Bytes::from(vec![fill; bytes]),
    }
}

/// An escrow of this version of the key of a volume.
pub(crate) fn request(of: u8, version: u8) -> v1::EscrowRecoveryKeyRequest {
    v1::EscrowRecoveryKeyRequest {
        request_id: crate::client::new_request_id(),
        device_id: DEVICE.to_string(),
        volume_id: volume(of).to_string(),
        protector_id: ProtectorId::from_bytes([of ^ version; 16]).to_string(),
        protector_kind: v1::ProtectorKind::Luks2RecoveryKey.into(),
        volume_kind: v1::VolumeKind::FixedData.into(),
        expected_version: u32::from(version) - 1,
        sealed_key: Some(sealed_part(version, 87)),
        sealed_key_package: None,
        host_name: "fd-0007".to_owned(),
        users: Vec::new(),
    }
}

pub(crate) fn sealed(of: u8, version: u8) -> SealedEscrow {
    SealedEscrow::from_message(CLUSTER, request(of, version)).unwrap()
}

/// A receipt as the client gives it out after it was checked.
pub(crate) fn receipt(escrow: &SealedEscrow) -> Receipt {
    let key = escrow.message().sealed_key.as_ref().unwrap();
    let part = Sealed::new(
        "sealed_key",
        Epoch::new(key.epoch),
        &key.encapsulated_key,
        key.ciphertext.clone(),
        1024,
    );
    let facts = ReceiptFacts {
        device: escrow.device(),
        volume: escrow.volume(),
        protector: escrow.protector(),
        version: escrow.version(),
        sealed_digest: sealed_digest(&part.unwrap(), None),
        term: 1,
        index: 7,
        audit_sequence: 3,
        audit_hash: [4; 32],
        escrowed_at: NOW,
    };
    let message = v1::Receipt::default();
    Receipt { cluster: escrow.cluster(), facts, node: NodeId::new(1), message }
}

pub(crate) fn report(host: &str) -> v1::ReportComplianceRequest {
    v1::ReportComplianceRequest {
        request_id: crate::client::new_request_id(),
        device_id: DEVICE.to_string(),
        host_name: host.to_owned(),
        ..v1::ReportComplianceRequest::default()
    }
}
