//! A volume and a cluster that do what real ones do, and die when a test wants it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::v1;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::super::*;
use crate::agent::testing::{CLUSTER, DEVICE, receipt, sealed_part};
use crate::agent::volume::{
    Fingerprint, Progress, Protector, ProtectorType, Settled, Slots, Standing, UnlockOrigin,
    VolumeState,
};
use crate::client::{ErrorKind, Receipt, Refusal, SealedEscrow};
use crate::crypto::Secret;
use crate::domain::VolumeKind;

pub(super) const PATH: &str = "/dev/vdb";
/// What opens the volume day to day.
const PASSPHRASE: &[u8] = b"correct horse";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    Plain,
    Encrypting { done: u64 },
    Encrypted,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) disk: Disk,
    id: Option<VolumeId>,
    /// Recovery keys in the header, with their plaintext.
    pub(super) slots: Vec<(KeyName, String)>,
    pub(super) passphrase: bool,
    /// The plaintext of what was sealed.
    sealed: BTreeMap<ProtectorId, String>,
    /// What the servers have: each with the receipt that a repetition gets.
    pub(super) escrowed: BTreeMap<ProtectorId, (KeyName, Receipt)>,
    pub(super) current: KeyVersion,
    pub(super) servers_up: bool,
    pub(super) forged: bool,
    pub(super) rotation_due: bool,
    pub(super) secret_known: bool,
    steps: u64,
    pub(super) dies_at: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct World(pub(super) Arc<Mutex<Inner>>);

impl World {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            disk: Disk::Plain,
            id: None,
            slots: Vec::new(),
            passphrase: false,
            sealed: BTreeMap::new(),
            escrowed: BTreeMap::new(),
            current: KeyVersion::NONE,
            servers_up: true,
            forged: false,
            rotation_due: false,
            secret_known: true,
            steps: 0,
            dies_at: None,
        })))
    }

    /// Does something that a death may come before, or after.
    fn act<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> Result<T, VolumeError> {
        let mut inner = self.0.lock();
        inner.step()?;
        let done = act(&mut inner);
        inner.step()?;
        Ok(done)
    }
}

impl Inner {
    fn step(&mut self) -> Result<(), VolumeError> {
        if self.dies_at.is_some_and(|at| self.steps >= at) {
            return Err(VolumeError::io("the agent is dead", io::Error::other("dead")));
        }
        self.steps += 1;
        Ok(())
    }

    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    fn has_receipt(&self, name: KeyName) -> bool {
        self.escrowed.get(&name.id).is_some_and(|(escrowed, _)| *escrowed == name)
    }

    /// Whether this string opens the volume.
    pub(super) fn opens(&self, text: &str) -> bool {
        self.slots.iter().any(|(_, key)| key == text)
    }

    fn unlocks(&self, secret: &UnlockSecret) -> bool {
        let bytes = secret.expose_secret();
        (self.passphrase && bytes == PASSPHRASE)
            || self.slots.iter().any(|(_, key)| key.as_bytes() == bytes)
    }

    /// The string that the help desk would give out for the newest version.
    pub(super) fn disclosed(&self) -> String {
        let newest = self.escrowed.values().max_by_key(|(name, _)| name.version);
        self.sealed[&newest.unwrap().0.id].clone()
    }
}

fn fingerprint(text: &str) -> Fingerprint {
    Fingerprint::new(Sha256::digest(text.as_bytes()).into())
}

impl VolumeProvider for World {
    async fn discover(&self) -> Result<Vec<Volume>, VolumeError> {
        Ok(vec![self.inspect(Path::new(PATH)).await?])
    }

    async fn inspect(&self, path: &Path) -> Result<Volume, VolumeError> {
        let inner = self.0.lock();
        let own = inner.slots.iter().map(|(name, _)| Protector {
            kind: ProtectorType::RecoveryKey,
            own: Some((*name, Standing::Present)),
            slot: Some(1),
        });
        let other = Protector { kind: ProtectorType::Passphrase, own: None, slot: Some(0) };
        let state = match inner.disk {
            Disk::Plain => VolumeState::Plain { obstacle: None },
            Disk::Encrypting { done } => VolumeState::Encrypting(Progress { done, total: 2 }),
            Disk::Encrypted => VolumeState::Protected,
        };
        Ok(Volume {
            path: path.to_owned(),
            id: inner.id,
            kind: VolumeKind::FixedData,
            bytes: 1 << 30,
            mount_points: Vec::<PathBuf>::new(),
            state,
            cipher: None,
            key_bits: None,
            protectors: own.chain(inner.passphrase.then_some(other)).collect(),
            slots: Slots::default(),
        })
    }

    async fn settle(&self, _: &Path) -> Result<Vec<Settled>, VolumeError> {
        Ok(Vec::new())
    }

    async fn add_recovery_key(
        &self,
        _: &Path,
        unlock: &UnlockSecret,
        key: &RecoveryKey,
        name: KeyName,
    ) -> Result<(), VolumeError> {
        self.act(|inner| {
            assert!(inner.unlocks(unlock));
            assert!(inner.has_receipt(name), "{name:?} is added and has no receipt");
            assert_eq!(inner.disk, Disk::Encrypted);
            inner.slots.push((name, key.expose_secret().to_owned()));
        })
    }

    async fn prove(
        &self,
        _: &Path,
        key: &RecoveryKey,
        name: KeyName,
    ) -> Result<Proof, VolumeError> {
        self.act(|inner| {
            let text = key.expose_secret().to_owned();
            assert!(inner.slots.contains(&(name, text.clone())));
            Proof::new(inner.id.unwrap(), name, fingerprint(&text))
        })
    }

    async fn fingerprint(&self, path: &Path, id: ProtectorId) -> Result<Fingerprint, VolumeError> {
        let inner = self.0.lock();
        let slot = inner.slots.iter().find(|(name, _)| name.id == id);
        let gone = VolumeError::NotOurs { id, path: path.to_owned() };
        slot.map(|(_, text)| fingerprint(text)).ok_or(gone)
    }

    async fn remove_protector(
        &self,
        _: &Path,
        old: ProtectorId,
        proof: &Proof,
        key: &RecoveryKey,
    ) -> Result<(), VolumeError> {
        self.act(|inner| {
            assert!(inner.opens(key.expose_secret()) && inner.has_receipt(proof.key()));
            assert_ne!(proof.key().id, old);
            inner.slots.retain(|(name, _)| name.id != old);
        })
    }

    async fn add_unlock(
        &self,
        _: &Path,
        unlock: &UnlockSecret,
        new: &UnlockSecret,
    ) -> Result<(), VolumeError> {
        assert_eq!(new.expose_secret(), PASSPHRASE);
        self.act(|inner| {
            assert!(inner.unlocks(unlock));
            inner.passphrase = true;
        })
    }

    async fn begin_encryption(
        &self,
        _: &Path,
        plan: &EncryptionPlan,
        key: &RecoveryKey,
    ) -> Result<Proof, VolumeError> {
        self.act(|inner| {
            assert!(inner.has_receipt(plan.key), "a header is made without a receipt");
            assert_eq!(inner.disk, Disk::Plain);
            inner.disk = Disk::Encrypting { done: 0 };
            inner.id = Some(plan.volume);
            inner.slots = vec![(plan.key, key.expose_secret().to_owned())];
            Proof::new(plan.volume, plan.key, fingerprint(key.expose_secret()))
        })
    }

    async fn abandon_encryption(&self, _: &Path) -> Result<(), VolumeError> {
        self.act(|inner| {
            assert_eq!(inner.disk, Disk::Encrypting { done: 0 });
            (inner.disk, inner.id) = (Disk::Plain, None);
            inner.slots.clear();
        })
    }

    async fn resume_encryption(
        &self,
        _: &Path,
        unlock: &UnlockSecret,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), VolumeError> {
        for done in 1..=2 {
            self.act(|inner| {
                assert!(inner.unlocks(unlock), "what was given opens nothing");
                assert_ne!(inner.disk, Disk::Plain);
                progress(Progress { done, total: 2 });
                inner.disk = if done == 2 { Disk::Encrypted } else { Disk::Encrypting { done } };
            })?;
        }
        Ok(())
    }
}

fn secret(bytes: Vec<u8>) -> UnlockSecret {
    UnlockSecret::new(UnlockOrigin::Passphrase, Secret::new(bytes)).unwrap()
}

impl Unlocks for World {
    /// What the user types, or has been told by the help desk.
    async fn opens(&self, _: &Volume) -> Result<Option<UnlockSecret>, VolumeError> {
        let inner = self.0.lock();
        let known =
            if inner.passphrase { PASSPHRASE.to_vec() } else { inner.disclosed().into_bytes() };
        Ok(Some(secret(known)))
    }

    async fn day_to_day(&self, _: &Volume) -> Result<Option<UnlockSecret>, VolumeError> {
        let known = self.0.lock().secret_known;
        Ok(known.then(|| secret(PASSPHRASE.to_vec())))
    }
}

fn nobody() -> ClientError {
    ClientError::Unreachable {
        waited: Duration::from_secs(15),
        attempts: 3,
        answers: "nobody is there".to_owned(),
        outcome_unknown: true,
    }
}

impl Servers for World {
    async fn seal(
        &self,
        escrow: &NewEscrow,
        key: &RecoveryKey,
    ) -> Result<SealedEscrow, ClientError> {
        let mut inner = self.0.lock();
        if !inner.servers_up {
            return Err(nobody());
        }
        inner.sealed.insert(escrow.protector, key.expose_secret().to_owned());
        let mut part = sealed_part(1, 87);
        part.encapsulated_key = Bytes::from([*escrow.protector.as_bytes(); 2].concat());
        let request = v1::EscrowRecoveryKeyRequest {
            request_id: crate::client::new_request_id(),
            device_id: DEVICE.to_string(),
            volume_id: escrow.volume.to_string(),
            protector_id: escrow.protector.to_string(),
            expected_version: escrow.expected_version.get(),
            sealed_key: Some(part),
            ..v1::EscrowRecoveryKeyRequest::default()
        };
        Ok(SealedEscrow::from_message(CLUSTER, request).unwrap())
    }

    async fn escrow(&self, sealed: &SealedEscrow) -> Result<Receipt, ClientError> {
        let mut inner = self.0.lock();
        if !inner.servers_up || inner.step().is_err() {
            return Err(nobody());
        }
        if inner.forged {
            return Err(ClientError::Receipt("it is for another key id".to_owned()));
        }
        let name = KeyName { id: sealed.protector(), version: sealed.version() };
        if let Some((_, before)) = inner.escrowed.get(&name.id) {
            return Ok(before.clone());
        }
        if Some(name.version) != inner.current.next() {
            return Err(ClientError::Refused(Refusal {
                kind: ErrorKind::Conflict,
                reason: "STALE_VERSION".to_owned(),
                message: String::new(),
                fields: Box::default(),
                current_version: Some(inner.current),
                retry_after: None,
            }));
        }
        let receipt = receipt(sealed);
        inner.current = name.version;
        inner.escrowed.insert(name.id, (name, receipt.clone()));
        // Stored, and the answer never comes.
        if inner.step().is_err() { Err(nobody()) } else { Ok(receipt) }
    }

    async fn report(
        &self,
        _: &v1::ReportComplianceRequest,
    ) -> Result<v1::ReportComplianceResponse, ClientError> {
        let inner = self.0.lock();
        let due = inner.rotation_due.then(|| inner.id.unwrap().to_string());
        Ok(v1::ReportComplianceResponse {
            rotation_due_volume_ids: due.into_iter().collect(),
            position: None,
        })
    }
}
