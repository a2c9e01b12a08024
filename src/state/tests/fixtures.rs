//! Small values by number, and a machine that is ready for work.

mod controls;
mod enrolment;
mod groups;
mod keyring;
mod rig;

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::*;
use crate::state::*;

pub(super) use controls::*;
pub(super) use enrolment::*;
pub(super) use groups::*;
pub(super) use keyring::*;
pub(super) use rig::*;

pub(super) const CLUSTER: ClusterId = ClusterId::from_bytes([0xcc; 16]);
/// The first administrator.
pub(super) const ROOT: &str = "root";
/// Help desk.
pub(super) const HUGO: &str = "hugo";
/// Advanced help desk.
pub(super) const ADA: &str = "ada";
/// Auditor.
pub(super) const ODO: &str = "odo";
/// Imports keys.
pub(super) const MIA: &str = "mia";

pub(super) fn device(n: u8) -> DeviceId {
    DeviceId::from_bytes([n; 16])
}

pub(super) fn volume(n: u8) -> VolumeId {
    VolumeId::from_bytes([n; 16])
}

/// Two neighbours, an even one and the next, have the first eight digits in common.
pub(super) fn protector(n: u8) -> ProtectorId {
    let mut bytes = [n; 16];
    bytes[..4].fill(n / 2);
    ProtectorId::from_bytes(bytes)
}

pub(super) fn request(n: u64) -> RequestId {
    RequestId::new(uuid::Uuid::from_u128(u128::from(n)))
}

pub(super) fn agent(n: u8) -> Actor {
    Actor::Agent(device(n))
}

pub(super) fn operator(name: &str) -> Actor {
    Actor::Operator(name.parse().unwrap())
}

pub(super) fn node(n: u64) -> Actor {
    Actor::Node(NodeId::new(n))
}

/// A membership of these nodes.
pub(super) fn membership(bytes: &'static [u8], nodes: &[u64]) -> Entry {
    let members = nodes.iter().copied().map(NodeId::new).collect();
    Entry::Membership { bytes: Bytes::from_static(bytes), members }
}

pub(super) fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

pub(super) fn version(n: u32) -> KeyVersion {
    KeyVersion::new(n)
}

pub(super) fn name(text: &str) -> Text {
    Text::name("name", text).unwrap()
}

pub(super) fn user(name: &str) -> User {
    User::new("CORP", name).unwrap()
}

pub(super) fn users(count: usize) -> Vec<User> {
    (0..count).map(|n| user(&format!("user{n}"))).collect()
}

pub(super) fn sealed(epoch: u32, fill: u8) -> Sealed {
    Sealed {
        epoch: Epoch::new(epoch),
        encapsulated_key: [fill; 32],
        ciphertext: Bytes::from(vec![fill; 64]),
    }
}

pub(super) fn bootstrap() -> CommandBody {
    CommandBody::Bootstrap(Bootstrap {
        cluster: CLUSTER,
        administrator: ROOT.parse().unwrap(),
        root_check: [1; 32],
        signer: Signer {
            chain: vec![Bytes::from_static(b"leaf"), Bytes::from_static(b"ca")],
            private_key: Wrapped(Bytes::from_static(b"wrapped signer")),
        },
        epoch: EpochRecord {
            epoch: Epoch::new(1),
            public_key: [2; 32],
            private_key: Wrapped(Bytes::from_static(b"wrapped epoch")),
            signature: Bytes::from_static(b"signature"),
        },
        shares: None,
        disclosure_policy: None,
    })
}

/// Three of five.
pub(super) fn share_set() -> ShareSet {
    ShareSet::new(ShareSetId::from_bytes([0x55; 8]), 5, 3).unwrap()
}

/// The same with a root key that is split.
pub(super) fn bootstrap_with_shares() -> CommandBody {
    let CommandBody::Bootstrap(made) = bootstrap() else { unreachable!() };
    CommandBody::Bootstrap(Bootstrap { shares: Some(share_set()), ..made })
}

/// An escrow of a volume of `device` with contents that follow from `fill`.
pub(super) fn escrow_of(d: u8, v: u8, p: u8, expected: u32, fill: u8) -> Escrow {
    Escrow {
        device: device(d),
        volume: volume(v),
        protector: protector(p),
        protector_kind: ProtectorKind::BitLockerRecoveryPassword,
        volume_kind: VolumeKind::OperatingSystem,
        expected_version: version(expected),
        key: sealed(1, fill),
        package: None,
        host_name: name(&format!("pc-{d}")),
        users: vec![user("eve")],
    }
}

pub(super) fn compliance(v: u8, status: ComplianceStatus) -> VolumeCompliance {
    VolumeCompliance {
        volume: volume(v),
        kind: VolumeKind::FixedData,
        mount_point: name("D:"),
        status,
        codes: vec![1, 13],
        encryption: EncryptionState::Encrypted,
        protection_on: true,
        cipher: name("XTS-AES-256"),
        protector_types: name("TPM"),
    }
}

pub(super) fn report_of(d: u8, volumes: Vec<VolumeCompliance>) -> ReportCompliance {
    ReportCompliance {
        device: device(d),
        host_name: name(&format!("pc-{d}")),
        operating_system: name("Windows 11"),
        manufacturer: name("ACME"),
        model: name("Anvil 3"),
        users: vec![user("eve")],
        volumes,
    }
}

pub(super) fn disclose_of(p: u8, v: u32, for_user: Option<&str>) -> CommandBody {
    CommandBody::Disclose(Disclose {
        protector: protector(p),
        version: version(v),
        reason: Reason::new("LOST_PIN", "").unwrap(),
        user: for_user.map(user),
        ticket: name("INC-7"),
        approval: None,
    })
}

pub(super) fn grant(to: &str, role: Role) -> CommandBody {
    CommandBody::Grant { operator: to.parse().unwrap(), role, reach: Reach::ALL }
}

pub(super) fn revoke(from: &str, role: Role) -> CommandBody {
    CommandBody::Revoke { operator: from.parse().unwrap(), role }
}

pub(super) fn deny(subject: &str) -> CommandBody {
    CommandBody::Deny { subject: subject.parse().unwrap(), reason: name("laptop stolen") }
}

pub(super) fn allow(subject: &str) -> CommandBody {
    CommandBody::Allow { subject: subject.parse().unwrap() }
}

/// A certificate by number; none for 0.
pub(super) fn certificate(n: u8) -> Option<Fingerprint> {
    (n > 0).then(|| Fingerprint::from_bytes([n; 32]))
}
