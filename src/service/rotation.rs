//! New epochs of the escrow key, and keys that are sealed anew to the newest one.

use crate::auth::{Action, Permit};
use crate::crypto::{Binding, CryptoError, EscrowPublicKey, Part, UnlockedKeyring, system_rng};
use crate::domain::{Epoch, Sealed, limits, sealed_digest};
use crate::state::{
    Accepted, CommandBody, EpochRecord, KeyRef, Keyring, Rejection, Reseal, ResealedKey, Rotate,
    SealedKey, Wrapped, query,
};

use super::context::{new_request_id, proposer_of};
use super::sealing::{keyring_parts, refresh_sealing};
use super::{Consensus, Opener, OperatorService, ServiceError};

/// Keys that one call looks at, at most.
const LOOKED_AT: usize = 1000;
/// Sealed bytes that one entry of the log takes, about.
const ENTRY_BYTES: usize = 256 * 1024;

/// The newest epoch after a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// Its number.
    pub epoch: Epoch,
    /// Whether this call made it.
    pub changed: bool,
}

/// What one step of the resealing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResealStep {
    /// Keys that were looked at.
    pub looked_at: u32,
    /// Keys that are sealed anew.
    pub resealed: u32,
    /// Keys that were changed by somebody else meanwhile; they are as that one left them.
    pub changed_meanwhile: u32,
    /// Keys that don't open. They stay as they are.
    pub failed: u32,
    /// Where to go on; `None` after the last key.
    pub next: Option<KeyRef>,
    /// The epoch that they are sealed to.
    pub epoch: Option<Epoch>,
}

/// Keys to be proposed.
#[derive(Default)]
struct Pile {
    step: ResealStep,
    keys: Vec<ResealedKey>,
    bytes: usize,
}

impl<C: Consensus> OperatorService<C> {
    /// Makes the epoch after `current`. What was sealed to older ones stays as it is. Asked again it makes no other one.
    ///
    /// # Errors
    /// [`ServiceError::Sealed`] if this node has no root key; [`Rejection::KeyringChanged`] if the newest epoch is neither
    /// `current` nor the one after it.
    pub async fn rotate(&self, permit: &Permit, current: Epoch) -> Result<Rotated, ServiceError> {
        let proposer = proposer_of(permit, Action::RotateEscrowKey)?;
        let keyring = self.newest_keyring().await?;
        let newest = newest_epoch(&keyring)?;
        let next = current.get().checked_add(1).map(Epoch::new);
        if Some(newest) == next {
            return Ok(Rotated { epoch: newest, changed: false });
        }
        if newest != current {
            return Err(Rejection::KeyringChanged.into());
        }
        // No server reads the root key while an operator wants it forgotten.
        if self.context.heads()?.sealed {
            return Err(Rejection::Sealed.into());
        }
        let body = CommandBody::Rotate(self.make_epoch(&keyring)?);
        self.change(proposer, new_request_id(), body).await?;
        refresh_sealing(&self.context, &self.sealing)?;
        let made = newest_epoch(&self.newest_keyring().await?)?;
        Ok(Rotated { epoch: made, changed: true })
    }

    async fn newest_keyring(&self) -> Result<Keyring, ServiceError> {
        self.context.read(false).await?;
        let keyring = query::keyring(self.context.consensus().view())?;
        keyring.ok_or(ServiceError::NotInitialised)
    }

    /// The next epoch, tried as it will be stored: unwrapped, sealed to and opened. Nothing is proposed that this node could
    /// not open.
    fn make_epoch(&self, keyring: &Keyring) -> Result<Rotate, ServiceError> {
        let root = self.sealing.root_key()?;
        let (cluster, mut parts) = (self.context.cluster(), keyring_parts(keyring));
        let failed = |error| {
            match error {
            // It was changed, and this node was not given the new one yet. Another node may have been.
            CryptoError::WrongRootKey => ServiceError::Sealed(
                "this server has an older root key: give it the new one (`holdfast operator status`)".to_owned(),
            ),
            error => ServiceError::Integrity(format!("the new epoch: {error}")),
        }
        };
        let made = parts.next_epoch(&root, cluster, &mut system_rng()).map_err(failed)?;
        parts.epochs.push(made.clone());
        drop(UnlockedKeyring::unlock(&root, cluster, &parts, &mut system_rng()).map_err(failed)?);
        Ok(Rotate {
            root_check: keyring.root_check,
            epoch: EpochRecord {
                epoch: made.epoch,
                public_key: made.public_key,
                private_key: Wrapped(made.private_key),
                signature: made.signature,
            },
        })
    }

    /// Seals the next keys to the newest epoch, from after `after` on, as many as one entry of the log takes. Whoever calls
    /// it goes on from [`ResealStep::next`]; to begin anew does no harm, since what is sealed to the newest epoch is passed
    /// over.
    ///
    /// # Errors
    /// [`ServiceError::Sealed`] if this node can't open keys, or nobody knows whether it was done.
    pub async fn reseal(
        &self,
        permit: &Permit,
        after: Option<KeyRef>,
    ) -> Result<ResealStep, ServiceError> {
        let proposer = proposer_of(permit, Action::ResealKeys)?;
        let keyring = self.newest_keyring().await?;
        refresh_sealing(&self.context, &self.sealing)?;
        let opener = self.sealing.opener()?;
        let last = keyring.epochs.last().ok_or(ServiceError::NotInitialised)?;
        if self.sealing.newest_opened() != Some(last.epoch) {
            let why = format!("epoch {} of the escrow key is not unlocked here", last.epoch);
            return Err(ServiceError::Sealed(why));
        }
        let cluster = self.context.cluster();
        let to = EscrowPublicKey { cluster, epoch: last.epoch, key: last.public_key };
        let pile = self.context.scan(move |view| {
            let found = query::sealed_keys(view, after, LOOKED_AT)?;
            let at_end = found.len() < LOOKED_AT;
            Ok(pile_up(found, at_end, opener.as_ref(), &to))
        });
        let Pile { mut step, keys, .. } = pile.await?;
        step.epoch = Some(to.epoch);
        if !keys.is_empty() {
            let sent = u32::try_from(keys.len()).unwrap_or(u32::MAX);
            let body = CommandBody::Reseal(Reseal { epoch: to.epoch, keys });
            let answer = self.context.propose(proposer, new_request_id(), body).await?;
            let Accepted::Resealed { count } = answer.accepted else {
                return Err(ServiceError::Unexpected("a resealing has another answer"));
            };
            self.context.wait_applied(answer.position).await?;
            step.resealed = count;
            step.changed_meanwhile = sent.saturating_sub(count);
        }
        Ok(step)
    }
}

fn newest_epoch(keyring: &Keyring) -> Result<Epoch, ServiceError> {
    keyring.epochs.last().map(|epoch| epoch.epoch).ok_or(ServiceError::NotInitialised)
}

/// Seals keys anew until there are as many as one entry takes.
fn pile_up(found: Vec<SealedKey>, at_end: bool, opener: &dyn Opener, to: &EscrowPublicKey) -> Pile {
    let mut pile = Pile::default();
    let last = found.len();
    for (n, key) in (1..).zip(found) {
        pile.step.looked_at = pile.step.looked_at.saturating_add(1);
        pile.step.next = Some(key.at).filter(|_| n < last || !at_end);
        if !is_older(&key, to.epoch) {
            continue;
        }
        match reseal(&key, opener, to) {
            Ok(new) => {
                let package = new.package.as_ref().map_or(0, |package| package.ciphertext.len());
                pile.bytes = pile.bytes.saturating_add(new.sealed.ciphertext.len() + package);
                pile.keys.push(new);
            }
            Err(error) => {
                pile.step.failed = pile.step.failed.saturating_add(1);
                let (key_id, version) = (key.at.protector.prefix(), key.at.version);
                tracing::error!(%key_id, %version, %error, "a stored key does not open; it stays as it is");
            }
        }
        if pile.keys.len() >= limits::RESEALED_KEYS || pile.bytes >= ENTRY_BYTES {
            break;
        }
    }
    pile
}

fn is_older(key: &SealedKey, newest: Epoch) -> bool {
    key.sealed.epoch < newest || key.package.as_ref().is_some_and(|package| package.epoch < newest)
}

fn reseal(
    key: &SealedKey,
    opener: &dyn Opener,
    to: &EscrowPublicKey,
) -> Result<ResealedKey, CryptoError> {
    let binding = binding_of(key, to.cluster);
    let anew = |part, sealed: &Sealed| opener.reseal(to, &binding, part, sealed);
    Ok(ResealedKey {
        at: key.at,
        replaces: sealed_digest(&key.sealed, key.package.as_ref()),
        sealed: anew(Part::Key, &key.sealed)?,
        package: key.package.as_ref().map(|package| anew(Part::Package, package)).transpose()?,
    })
}

/// What a stored key is bound to.
pub(super) fn binding_of(key: &SealedKey, cluster: crate::domain::ClusterId) -> Binding {
    Binding {
        cluster,
        device: key.device,
        volume: key.volume,
        protector: key.at.protector,
        protector_kind: key.protector_kind,
        version: key.at.version,
    }
}
