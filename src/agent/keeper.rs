//! Carries the gate's steps out: looks at each volume, does what may be done next, looks again.
//!
//! It holds the only plaintext there is: the key in hand of each volume, from its making until the volume is protected by
//! it. Everything else that it needs stands on the volume, in the spool or in the ledger, so that it may end at any moment.

mod facts;
mod status;
#[cfg(all(test, feature = "server"))]
mod tests;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::VolumeError;
use super::courier::{Event, Obstacle, Servers, deliver};
use super::gate::{Facts, Step};
use super::ledger::{Ledger, ProofRecord, VolumeRecord};
use super::spool::{Spool, SpoolError};
use super::volume::{EncryptionPlan, KeyName, Proof, UnlockSecret, Volume, VolumeProvider};
use crate::client::{ClientError, NewEscrow, with_causes};
use crate::clock::SharedClock;
use crate::crypto::system_rng;
use crate::domain::{
    DeviceId, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, Text, User, VolumeId,
};
use crate::fs::Fs;

pub use status::{VolumeReport, Waiting};

/// Most steps in a row with one volume. Each goes forward, and a key takes seven; more is a fault of this program.
const STEPS: u32 = 40;

/// Secrets besides the recovery keys, from whoever has them. Nobody is ever prompted: what isn't there is `None`.
pub trait Unlocks {
    /// A secret that opens a volume as it is now. While it is encrypted that is its recovery key and nothing else.
    fn opens(
        &self,
        volume: &Volume,
    ) -> impl Future<Output = Result<Option<UnlockSecret>, VolumeError>> + Send;

    /// The secret that is to open a volume day to day, once it is encrypted.
    fn day_to_day(
        &self,
        volume: &Volume,
    ) -> impl Future<Output = Result<Option<UnlockSecret>, VolumeError>> + Send;
}

/// What the device says of itself with each key.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Its name; may be empty.
    pub host_name: Text,
    /// Its users.
    pub users: Vec<User>,
}

/// Why a step could not be done.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Sealing, or getting the key to seal to.
    #[error("{}", with_causes(.0))]
    Seal(#[from] ClientError),
    /// The ledger.
    #[error("what is known of the volume can't be kept: {0}")]
    Ledger(#[from] io::Error),
    /// A volume wants a secret that opens it day to day, and nobody has one.
    #[error(
        "it is not settled what is to open it day to day: give a passphrase or key file once (holdfast-agent protect)"
    )]
    NoUnlock,
    /// Nobody has a secret that opens the volume as it is now.
    #[error(
        "nothing that opens it is at hand: give its passphrase or key file once, or its recovery key from the help desk if it has no other (holdfast-agent protect)"
    )]
    Shut,
    /// The gate asks for a key that isn't in hand, or never ends.
    #[error("this is a fault of the agent: {0}")]
    Bug(&'static str),
}

/// A key whose plaintext is in memory.
struct InHand {
    name: KeyName,
    key: RecoveryKey,
    proof: Option<Proof>,
}

/// What protects the volumes of this machine.
pub struct Keeper<F: Fs, P, S, U> {
    device: Device,
    kind: ProtectorKind,
    provider: P,
    servers: S,
    unlocks: U,
    clock: SharedClock,
    spool: Spool<F>,
    ledger: Ledger<F>,
    in_hand: BTreeMap<VolumeId, InHand>,
}

impl<F, P, S, U> Keeper<F, P, S, U>
where
    F: Fs,
    P: VolumeProvider,
    S: Servers + Sync,
    U: Unlocks,
{
    /// A keeper of the volumes that `provider` finds, whose keys are of this kind.
    #[allow(clippy::too_many_arguments, reason = "each is a room of its own, put together once")]
    pub const fn new(
        device: Device,
        kind: ProtectorKind,
        provider: P,
        servers: S,
        unlocks: U,
        clock: SharedClock,
        spool: Spool<F>,
        ledger: Ledger<F>,
    ) -> Self {
        let in_hand = BTreeMap::new();
        Self { device, kind, provider, servers, unlocks, clock, spool, ledger, in_hand }
    }

    /// The spool.
    pub const fn spool(&self) -> &Spool<F> {
        &self.spool
    }

    /// What is known of the volumes.
    pub const fn ledger(&self) -> &Ledger<F> {
        &self.ledger
    }

    /// Puts right what an agent that ended has left half-done on the volumes. Once, at start.
    pub async fn settle(&self, paths: &[&Path]) {
        for path in paths {
            match self.provider.settle(path).await {
                Ok(settled) => {
                    for what in settled {
                        tracing::warn!(path = %path.display(), ?what, "put right what was left half-done");
                    }
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "what was left half-done stays so");
                }
            }
        }
    }

    /// Delivers what waits, then does for each of these volumes all that may be done, until nothing more goes.
    ///
    /// # Errors
    /// If the spool or the ledger can't keep what has come of it. What fails with one volume stands in its report.
    pub async fn round(&mut self, paths: &[&Path]) -> Result<Vec<VolumeReport>, KeeperError> {
        loop {
            let obstacle = self.deliver().await?;
            let mut progress = false;
            let mut reports = Vec::with_capacity(paths.len());
            for path in paths {
                let spooled = self.spool.waiting().count();
                reports.push(self.tend(path, obstacle.as_ref()).await?);
                progress |= self.spool.waiting().count() > spooled;
            }
            // A key that was just put into the spool is sent at once, if servers are there.
            if !progress || obstacle.is_some() {
                return Ok(reports);
            }
        }
    }

    async fn deliver(&mut self) -> Result<Option<Obstacle>, KeeperError> {
        let round = deliver(&mut self.spool, &self.servers).await?;
        for event in &round.events {
            self.note(event)?;
        }
        Ok(round.obstacle)
    }

    fn note(&mut self, event: &Event) -> Result<(), KeeperError> {
        match event {
            Event::Escrowed { receipt, .. } => {
                let facts = &receipt.facts;
                let mut record = self.record(facts.volume, None);
                record.escrowed(facts.version, facts.protector);
                self.ledger.put(record)?;
            }
            Event::Refused { volume, current, .. } => {
                self.in_hand.remove(volume);
                if let Some(current) = current {
                    let mut record = self.record(*volume, None);
                    record.corrected(*current);
                    self.ledger.put(record)?;
                }
            }
            Event::Reported { rotation_due } => {
                for volume in rotation_due {
                    let mut record = self.record(*volume, None);
                    record.order_rotation(self.clock.now());
                    self.ledger.put(record)?;
                }
            }
        }
        Ok(())
    }

    /// What is known of a volume. Without a record the receipts say what was escrowed.
    fn record(&self, volume: VolumeId, path: Option<&Path>) -> VolumeRecord {
        let known = self.ledger.get(volume).cloned();
        let mut record = known
            .unwrap_or_else(|| VolumeRecord::new(volume, path.unwrap_or_else(|| Path::new(""))));
        if let Some(path) = path {
            path.clone_into(&mut record.path);
        }
        record
    }

    /// Does with one volume all that may be done now.
    async fn tend(
        &mut self,
        path: &Path,
        obstacle: Option<&Obstacle>,
    ) -> Result<VolumeReport, KeeperError> {
        for _ in 0..STEPS {
            let volume = match self.provider.inspect(path).await {
                Ok(volume) => volume,
                Err(error) => return Ok(VolumeReport::failed(path, None, &error.into())),
            };
            let (id, facts) = self.facts(&volume).await?;
            let step = facts.next();
            tracing::debug!(path = %path.display(), ?step, "next");
            let done = match step {
                Step::AwaitReceipt | Step::AwaitVolume(_) | Step::Nothing | Step::Exhausted => {
                    if step == Step::Nothing {
                        self.in_hand.remove(&id);
                    }
                    let record = self.ledger.get(id);
                    return Ok(VolumeReport::of(volume, step, record, obstacle));
                }
                step => self.take(&volume, id, &facts, step).await,
            };
            match done {
                Ok(()) => {}
                Err(error @ (KeeperError::Ledger(_) | KeeperError::Bug(_))) => return Err(error),
                Err(error) => return Ok(VolumeReport::failed(path, Some(volume), &error)),
            }
        }
        Err(KeeperError::Bug("the steps with a volume have no end"))
    }

    async fn take(
        &mut self,
        volume: &Volume,
        id: VolumeId,
        facts: &Facts,
        step: Step,
    ) -> Result<(), KeeperError> {
        let path = &volume.path;
        match step {
            Step::MakeKey(version) => self.make_key(volume, id, facts, version).await,
            Step::Begin => self.begin(volume, id).await,
            Step::Abandon => {
                tracing::warn!(path = %path.display(), "the key that the encryption was begun with is gone, and nothing is encrypted yet: the header is taken back");
                Ok(self.provider.abandon_encryption(path).await?)
            }
            Step::LetIn => {
                let secret = self.unlocks.day_to_day(volume).await?.ok_or(KeeperError::NoUnlock)?;
                let by = self.opener(volume, id).await?;
                Ok(self.provider.add_unlock(path, &by, &secret).await?)
            }
            Step::Add => {
                let unlock = self.unlocks.opens(volume).await?.ok_or(KeeperError::Shut)?;
                let held = self.held(id)?;
                self.provider.add_recovery_key(path, &unlock, &held.key, held.name).await?;
                Ok(())
            }
            Step::Prove => {
                let held = self.held(id)?;
                let proof = self.provider.prove(path, &held.key, held.name).await?;
                self.keep_proof(id, proof)
            }
            Step::Remove(old) => {
                let held = self.held(id)?;
                let proof = held.proof.as_ref();
                let proof = proof.ok_or(KeeperError::Bug("a key goes without a proof"))?;
                self.provider.remove_protector(path, old.id, proof, &held.key).await?;
                Ok(())
            }
            Step::Encrypt => self.encrypt(volume, id).await,
            Step::AwaitReceipt | Step::AwaitVolume(_) | Step::Nothing | Step::Exhausted => Ok(()),
        }
    }

    fn held(&self, id: VolumeId) -> Result<&InHand, KeeperError> {
        self.in_hand.get(&id).ok_or(KeeperError::Bug("there is no key in hand"))
    }

    /// Makes the header. Who opens the volume day to day is settled before.
    async fn begin(&mut self, volume: &Volume, id: VolumeId) -> Result<(), KeeperError> {
        if self.unlocks.day_to_day(volume).await?.is_none() {
            return Err(KeeperError::NoUnlock);
        }
        let held = self.held(id)?;
        let plan = EncryptionPlan { volume: id, key: held.name };
        let proof = self.provider.begin_encryption(&volume.path, &plan, &held.key).await?;
        self.keep_proof(id, proof)
    }

    /// Makes a key, seals it, and puts it into the spool. Nobody has seen its plaintext but this process.
    async fn make_key(
        &mut self,
        volume: &Volume,
        id: VolumeId,
        facts: &Facts,
        version: KeyVersion,
    ) -> Result<(), KeeperError> {
        self.in_hand.remove(&id);
        let key = RecoveryKey::generate(self.kind, &mut system_rng());
        let name = KeyName { id: ProtectorId::new(uuid::Uuid::new_v4()), version };
        let escrow = NewEscrow {
            device: self.device.id,
            volume: id,
            volume_kind: volume.kind,
            protector: name.id,
            expected_version: facts.known,
            host_name: self.device.host_name.clone(),
            users: self.device.users.clone(),
        };
        let sealed = self.servers.seal(&escrow, &key).await?;
        self.spool.put_escrow(&sealed, self.clock.now())?;
        self.in_hand.insert(id, InHand { name, key, proof: None });
        Ok(())
    }

    fn keep_proof(&mut self, id: VolumeId, proof: Proof) -> Result<(), KeeperError> {
        let mut record = self.record(id, None);
        record.proof = Some(ProofRecord {
            protector: proof.key().id,
            version: proof.key().version.get(),
            fingerprint: hex::encode(proof.fingerprint().as_bytes()),
            proven_at_ms: self.clock.now().as_millis(),
        });
        self.ledger.put(record)?;
        if let Some(held) = self.in_hand.get_mut(&id) {
            held.proof = Some(proof);
        }
        Ok(())
    }

    /// What opens the volume now: the key in hand if it stands on it, or what somebody else has.
    async fn opener(&self, volume: &Volume, id: VolumeId) -> Result<UnlockSecret, KeeperError> {
        let held = self.in_hand.get(&id).filter(|held| held.proof.is_some());
        match held {
            Some(held) => Ok(UnlockSecret::of_recovery_key(&held.key)),
            None => self.unlocks.opens(volume).await?.ok_or(KeeperError::Shut),
        }
    }

    /// Encrypts the rest. With the key in hand if there is one, so that nobody else has to be asked.
    async fn encrypt(&self, volume: &Volume, id: VolumeId) -> Result<(), KeeperError> {
        let unlock = self.opener(volume, id).await?;
        let path = volume.path.display().to_string();
        let progress = move |progress: super::volume::Progress| {
            tracing::info!(path, done = progress.done, total = progress.total, "encrypting");
        };
        self.provider.resume_encryption(&volume.path, &unlock, &progress).await?;
        // What the new header may not have held before, its tokens, it gets now.
        self.provider.settle(&volume.path).await?;
        Ok(())
    }
}
