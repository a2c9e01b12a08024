//! Keys of the tables. They are part of the stored format, like the messages.

use super::{Bytes, DeviceId, KeyRef, OperatorName, ProtectorId, TokenId};
use crate::domain::{Actor, ApprovalId, DenialSubject, Epoch, Fingerprint};

pub(in crate::state) const HEADS: &[u8] = b"heads";
pub(in crate::state) const ROOT: &[u8] = b"root";
pub(in crate::state) const SIGNER: &[u8] = b"signer";
pub(in crate::state) const SHARES: &[u8] = b"shares";
pub(in crate::state) const SEAL: &[u8] = b"seal";
pub(in crate::state) const EPOCH_PREFIX: &[u8] = b"epoch";
pub(in crate::state) const AGENT_CA_PREFIX: &[u8] = b"agent-ca";
pub(in crate::state) const POLICY: &[u8] = b"policy";
pub(in crate::state) const MASS_RECOVERY: &[u8] = b"mass-recovery";
/// All requesters together. No actor is printed so.
pub(in crate::state) const CLUSTER_TALLIES: &[u8] = b"cluster";

pub(in crate::state) fn device(id: DeviceId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(in crate::state) fn key(at: KeyRef) -> Bytes {
    let mut key = Vec::with_capacity(20);
    key.extend_from_slice(at.protector.as_bytes());
    key.extend_from_slice(&(!at.version.get()).to_be_bytes());
    key.into()
}

/// What [`key`] was made from; `None` if it wasn't.
pub(in crate::state) fn key_ref(key: &[u8]) -> Option<KeyRef> {
    let (protector, version) = key.split_at_checked(16)?;
    let version = u32::from_be_bytes(version.try_into().ok()?);
    Some(KeyRef {
        protector: ProtectorId::from_slice(protector).ok()?,
        version: crate::domain::KeyVersion::new(!version),
    })
}

pub(in crate::state) fn sequence(sequence: u64) -> Bytes {
    Bytes::copy_from_slice(&sequence.to_be_bytes())
}

pub(in crate::state) fn grants_of(operator: &OperatorName) -> Vec<u8> {
    let mut key = Vec::with_capacity(operator.as_str().len() + 2);
    key.extend_from_slice(operator.as_str().as_bytes());
    key.push(0);
    key
}

pub(in crate::state) fn epoch(epoch: Epoch) -> Bytes {
    let mut key = Vec::with_capacity(9);
    key.extend_from_slice(EPOCH_PREFIX);
    key.extend_from_slice(&epoch.get().to_be_bytes());
    key.into()
}

pub(in crate::state) fn agent_ca(number: u32) -> Bytes {
    [AGENT_CA_PREFIX, number.to_be_bytes().as_slice()].concat().into()
}

pub(in crate::state) fn token(id: TokenId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

const IDENTITY: u8 = 1;
const CERTIFICATE: u8 = 2;

pub(in crate::state) fn denied_identity(actor: &Actor) -> Bytes {
    [&[IDENTITY], actor.to_string().as_bytes()].concat().into()
}

pub(in crate::state) fn denied_certificate(certificate: &Fingerprint) -> Bytes {
    [&[CERTIFICATE], certificate.as_bytes().as_slice()].concat().into()
}

pub(in crate::state) fn denial(subject: &DenialSubject) -> Bytes {
    match subject {
        DenialSubject::Identity(actor) => denied_identity(actor),
        DenialSubject::Certificate(certificate) => denied_certificate(certificate),
    }
}

/// What [`denial`] was made from; `None` if it wasn't.
pub(in crate::state) fn denial_subject(key: &[u8]) -> Option<DenialSubject> {
    match key {
        [IDENTITY, actor @ ..] => {
            std::str::from_utf8(actor).ok()?.parse().ok().map(DenialSubject::Identity)
        }
        [CERTIFICATE, certificate @ ..] => {
            Fingerprint::from_slice(certificate).ok().map(DenialSubject::Certificate)
        }
        _ => None,
    }
}

pub(in crate::state) fn approval(id: ApprovalId) -> Bytes {
    Bytes::copy_from_slice(&id.get().to_be_bytes())
}

pub(in crate::state) fn quota(actor: &Actor) -> Bytes {
    Bytes::from(actor.to_string().into_bytes())
}
