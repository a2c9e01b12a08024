//! What an agent does: escrow, rotate, repeat, report.

use bytes::Bytes;
use holdfast::client::{
    Client, ClientError, EncodedEscrow, EscrowKey, Method, NewEscrow, SealedEscrow,
};
use holdfast::clock::{Clock as _, SystemClock};
use holdfast::domain::{
    DeviceId, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, Sealed, Text, User, VolumeId,
    VolumeKind, limits, sealed_digest,
};
use holdfast_proto::v1;
use prost::Message as _;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use uuid::Uuid;

use super::Shared;
use super::calls::{Who, known};
use super::door::Door;
use super::registry::{KnownKey, KnownVolume, new_uuid};
use crate::history::{Call, Outcome, Position, Reply};

/// Earlier escrows that may be repeated.
const REMEMBERED: usize = 16;

/// An agent.
pub(super) struct AgentClient {
    id: u64,
    device: Uuid,
    door: Door,
    /// The escrow whose outcome is not known.
    pending: Option<Escrow>,
    earlier: Vec<Escrow>,
}

/// An escrow in the bytes that are sent every time.
#[derive(Clone)]
struct Escrow {
    call: Call,
    bytes: Bytes,
    encoded: EncodedEscrow,
    volume: Uuid,
    key: KnownKey,
}

impl AgentClient {
    pub(super) fn new(shared: &Shared, id: u64, index: usize, bound: Option<usize>) -> Self {
        let agents = &shared.options.agents;
        let agent = index.checked_rem(agents.len()).and_then(|index| agents.get(index));
        let (device, files) = agent.map_or_else(
            || (Uuid::nil(), shared.options.administrator.files.clone()),
            |agent| (agent.device, agent.files.clone()),
        );
        let door = shared.door(&files, bound, index);
        Self { id, device, door, pending: None, earlier: Vec::new() }
    }

    /// The next call. Answers whether its outcome is known.
    pub(super) async fn step(&mut self, shared: &Shared, rng: &mut StdRng) -> bool {
        let Ok((node, client)) = self.door.client(&shared.endpoints) else { return false };
        let who = Who { client: self.id, node };
        if let Some(escrow) = self.pending.take()
            && rng.random_bool(0.8)
        {
            return self.send(shared, who, &client, escrow).await;
        }
        let again = if rng.random_bool(0.06) { self.earlier.choose(rng).cloned() } else { None };
        if let Some(escrow) = again {
            return self.send(shared, who, &client, escrow).await;
        }
        if rng.random_bool(0.15) {
            return self.report(shared, who, &client, rng).await;
        }
        match self.prepare(shared, rng) {
            Some(escrow) => self.send(shared, who, &client, escrow).await,
            None => self.report(shared, who, &client, rng).await,
        }
    }

    /// A new escrow; none if the device is full, or the key can't be sealed.
    fn prepare(&self, shared: &Shared, rng: &mut StdRng) -> Option<Escrow> {
        let volume = shared.registry.choose(self.device, rng)?;
        Escrow::new(&shared.escrow_key, self.device, volume, rng).ok()
    }

    async fn send(&mut self, shared: &Shared, who: Who, client: &Client, escrow: Escrow) -> bool {
        let key = &shared.escrow_key;
        shared.registry.doubt(escrow.key);
        let answer = escrow.exchange(client, key);
        let outcome = shared.caller.call(who, escrow.call.clone(), answer).await;
        if let Outcome::Ok { reply: Reply::Escrow { version, .. } } = &outcome {
            let KnownKey { protector, .. } = escrow.key;
            shared.registry.learn(self.device, escrow.volume, *version, protector);
            shared.registry.acknowledged(KnownKey { protector, version: *version });
        }
        let is_known = known(&outcome);
        if is_known {
            if self.earlier.len() >= REMEMBERED {
                self.earlier.remove(0);
            }
            self.earlier.push(escrow);
        } else {
            self.pending = Some(escrow);
        }
        is_known
    }

    async fn report(&self, shared: &Shared, who: Who, client: &Client, rng: &mut StdRng) -> bool {
        let request = new_uuid(rng);
        let volumes = shared.registry.some_volumes(self.device, 3);
        let message = report(request, self.device, &volumes).encode_to_vec();
        let call = Call::Report { request, device: self.device };
        let answer = async {
            let answer = client.exchange(Method::ReportCompliance, message.into()).await?;
            let answer = v1::ReportComplianceResponse::decode(answer).map_err(unreadable)?;
            answer.position.ok_or_else(|| ClientError::Answer("position is missing".to_owned()))?;
            Ok(Reply::Report)
        };
        known(&shared.caller.call(who, call, answer).await)
    }
}

pub(super) fn unreadable(error: prost::DecodeError) -> ClientError {
    ClientError::Answer(error.to_string())
}

pub(super) fn missing(what: &str) -> ClientError {
    ClientError::Answer(format!("{what} is missing"))
}

impl Escrow {
    fn new(
        to: &EscrowKey,
        device: Uuid,
        volume: KnownVolume,
        rng: &mut StdRng,
    ) -> Result<Self, ClientError> {
        let kind = if rng.random_bool(0.25) {
            ProtectorKind::Luks2RecoveryKey
        } else {
            ProtectorKind::BitLockerRecoveryPassword
        };
        let key = RecoveryKey::generate(kind, rng);
        // Sometimes a key id is kept, and sometimes an agent has been asleep and knows an old version only.
        let keep = volume.version > 0 && rng.random_bool(0.15);
        let protector = if keep { volume.protector } else { new_uuid(rng) };
        let asleep = volume.version > 0 && rng.random_bool(0.05);
        let expected = volume.version.saturating_sub(u32::from(asleep));
        let new = NewEscrow {
            device: DeviceId::new(device),
            volume: VolumeId::new(volume.id),
            volume_kind: VolumeKind::OperatingSystem,
            protector: ProtectorId::new(protector),
            expected_version: KeyVersion::new(expected),
            host_name: Text::name("host_name", "chaos")?,
            users: vec![User::new("CHAOS", "alice")?],
        };
        let sealed = SealedEscrow::seal(to, &new, &key, None)?;
        let request = new_uuid(rng);
        let mut message = sealed.message().clone();
        message.request_id = request.to_string();
        let digest = digest(&message)?;
        Ok(Self {
            call: Call::Escrow {
                request,
                device,
                volume: volume.id,
                protector,
                expected,
                key: key.expose_secret().to_owned(),
                sealed_digest: hex::encode(digest),
            },
            bytes: message.encode_to_vec().into(),
            encoded: EncodedEscrow::new(&sealed),
            volume: volume.id,
            key: KnownKey { protector, version: expected.saturating_add(1) },
        })
    }

    async fn exchange(&self, client: &Client, key: &EscrowKey) -> Result<Reply, ClientError> {
        let answer = client.exchange(Method::EscrowRecoveryKey, self.bytes.clone()).await?;
        let receipt = self.encoded.check(answer, key, SystemClock.now())?;
        let facts = receipt.facts;
        Ok(Reply::Escrow {
            version: facts.version.get(),
            position: Position { term: facts.term, index: facts.index },
            audit: facts.audit_sequence,
            sealed_digest: hex::encode(facts.sealed_digest),
        })
    }
}

/// What the receipt must name.
fn digest(message: &v1::EscrowRecoveryKeyRequest) -> Result<[u8; 32], ClientError> {
    let sealed = message.sealed_key.as_ref().ok_or_else(|| missing("sealed_key"))?;
    let sealed = Sealed::new(
        "sealed_key",
        holdfast::domain::Epoch::new(sealed.epoch),
        &sealed.encapsulated_key,
        sealed.ciphertext.clone(),
        limits::SEALED_KEY_BYTES,
    )?;
    Ok(sealed_digest(&sealed, None))
}

fn report(request: Uuid, device: Uuid, volumes: &[Uuid]) -> v1::ReportComplianceRequest {
    let volumes = volumes.iter().map(|volume| v1::VolumeCompliance {
        volume_id: volume.to_string(),
        volume_kind: v1::VolumeKind::OperatingSystem.into(),
        mount_point: "C:".to_owned(),
        status: v1::ComplianceStatus::Compliant.into(),
        encryption_state: v1::EncryptionState::Encrypted.into(),
        protection_on: true,
        cipher: "XTS-AES 256".to_owned(),
        protector_types: "TPM".to_owned(),
        ..v1::VolumeCompliance::default()
    });
    v1::ReportComplianceRequest {
        request_id: request.to_string(),
        device_id: device.to_string(),
        host_name: "chaos".to_owned(),
        operating_system: "Windows 11".to_owned(),
        volumes: volumes.collect(),
        ..v1::ReportComplianceRequest::default()
    }
}
