//! Adds, proves and removes recovery keys.
//!
//! A key is added in four steps: our token is written, which names the slot that is planned; the key is added there, and the
//! slot bears its mark; the token is bound to the slot; systemd's token is written. It is removed backwards. Wherever that is
//! interrupted, [`Luks2::settle_volume`] sees from header alone how far it went.

use std::fs::File;
use std::path::Path;

use super::header;
use super::own::OwnKey;
use super::token::{OwnToken, SYSTEMD_TYPE, Stage, mark};
use super::tool::NewSlot;
use super::{Luks2, Opened};
use crate::agent::VolumeError;
use crate::agent::volume::{Fingerprint, KeyName, Proof, Settled, Standing, UnlockSecret};
use crate::domain::{ProtectorId, ProtectorKind, RecoveryKey};

impl Luks2 {
    pub(super) async fn add_key(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
        key: &RecoveryKey,
        name: KeyName,
    ) -> Result<(), VolumeError> {
        of_luks2(key)?;
        let volume = self.opened(path).await?;
        volume.not_converting()?;
        let path = &volume.disk.path;
        if volume.own(name.id).is_ok() {
            return Err(VolumeError::WrongState {
                path: path.clone(),
                is: "protected by a key of that id already",
            });
        }
        let (_, slot) = volume.metadata.free_slots();
        let slot = slot.ok_or_else(|| VolumeError::NoFreeSlot { path: path.clone() })?;
        let mut tokens = volume.metadata.free_tokens();
        let (Some(token), Some(systemd_token)) = (tokens.next(), tokens.next()) else {
            return Err(VolumeError::NoFreeToken { path: path.clone() });
        };
        let planned = OwnToken { name, slot, stage: Stage::Planned };
        self.tool.write_token(path, token, &planned.json(), false).await?;
        let new_slot = NewSlot { slot, iterations: mark(name.id) };
        let new = key.expose_secret().as_bytes();
        if let Err(error) = self.tool.add_key(path, unlock, new, Some(&new_slot)).await {
            // What was done is seen from the header. If that can't be read either, it is settled at the next start.
            drop(self.settle_volume(path).await);
            return Err(error);
        }
        let added = OwnToken { stage: Stage::Added, ..planned };
        self.tool.write_token(path, token, &added.json(), true).await?;
        self.tool.write_systemd_token(path, systemd_token, slot).await
    }

    pub(super) async fn add_unlock_secret(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
        new: &UnlockSecret,
    ) -> Result<(), VolumeError> {
        let volume = self.opened(path).await?;
        volume.not_converting()?;
        let path = &volume.disk.path;
        if volume.metadata.free_slots().1.is_none() {
            return Err(VolumeError::NoFreeSlot { path: path.clone() });
        }
        self.tool.add_key(path, unlock, new.expose_secret(), None).await
    }

    pub(super) async fn prove_key(
        &self,
        path: &Path,
        key: &RecoveryKey,
        name: KeyName,
    ) -> Result<Proof, VolumeError> {
        of_luks2(key)?;
        let volume = self.opened(path).await?;
        let own = volume.own(name.id)?;
        let not_proven = || VolumeError::NotProven { id: name.id, path: volume.disk.path.clone() };
        if own.name != name || !own.marked {
            return Err(not_proven());
        }
        match self.tool.test_key(&volume.disk.path, own.slot, key).await {
            Err(VolumeError::WrongSecret { .. }) => return Err(not_proven()),
            other => other?,
        }
        let fingerprint = self.fingerprint_slot(&volume, own.slot).await?;
        Ok(Proof::new(volume.id, name, fingerprint))
    }

    pub(super) async fn fingerprint_key(
        &self,
        path: &Path,
        id: ProtectorId,
    ) -> Result<Fingerprint, VolumeError> {
        let volume = self.opened(path).await?;
        let own = volume.own(id)?;
        if own.marked {
            self.fingerprint_slot(&volume, own.slot).await
        } else {
            Err(VolumeError::NotProven { id, path: volume.disk.path })
        }
    }

    async fn fingerprint_slot(
        &self,
        volume: &Opened,
        slot: u8,
    ) -> Result<Fingerprint, VolumeError> {
        let path = volume.disk.path.clone();
        let damaged = || VolumeError::Damaged { path: volume.disk.path.clone() };
        let (at, bytes) = volume.metadata.area(slot).ok_or_else(damaged)?;
        let read = move || header::read(&File::open(path)?, at, bytes);
        let area = self.blocking(&volume.disk.path, read).await?;
        if area.len() != bytes {
            return Err(damaged());
        }
        volume.metadata.fingerprint(slot, &area).ok_or_else(damaged)
    }

    pub(super) async fn remove_key(
        &self,
        path: &Path,
        old: ProtectorId,
        proof: &Proof,
        key: &RecoveryKey,
    ) -> Result<(), VolumeError> {
        of_luks2(key)?;
        let volume = self.opened(path).await?;
        volume.not_converting()?;
        let path = &volume.disk.path;
        let kept = |why| VolumeError::Kept { id: old, path: path.clone(), why };
        let old_key = volume.own(old)?;
        let new_key = self.proven(&volume, proof).await.map_err(kept)?;
        if new_key.slot == old_key.slot && old_key.marked {
            return Err(kept("it is the one that is proven"));
        }
        if old_key.marked {
            let opening = volume.metadata.opening_slots();
            if !opening.contains(&new_key.slot) || opening.len() < 2 {
                return Err(kept("no other key would be left"));
            }
            match self.tool.test_key(path, new_key.slot, key).await {
                Err(VolumeError::WrongSecret { .. }) => {
                    return Err(kept("the key given is not the one that is proven"));
                }
                other => other?,
            }
            for (number, token) in volume.metadata.tokens() {
                if token.kind == SYSTEMD_TYPE && token.is_for(old_key.slot) {
                    self.tool.remove_token(path, *number).await?;
                }
            }
            // cryptsetup itself tries the key on the other slots once more.
            self.tool.kill_slot(path, old_key.slot, key).await?;
        }
        if let Some(token) = old_key.token {
            self.tool.remove_token(path, token).await?;
        }
        Ok(())
    }

    /// The key that a proof is of, if it still is as it was proven.
    async fn proven(&self, volume: &Opened, proof: &Proof) -> Result<OwnKey, &'static str> {
        if proof.volume() != volume.id {
            return Err("the proof is of another volume");
        }
        let own = volume.own(proof.key().id).ok();
        let own = own.filter(|own| own.name == proof.key() && own.standing == Standing::Present);
        let own = own.ok_or("the key that was proven is not there any more")?;
        match self.fingerprint_slot(volume, own.slot).await {
            Ok(now) if now == proof.fingerprint() => Ok(own),
            Ok(_) => Err("the slot of the key that was proven has changed since"),
            Err(_) => Err("the slot of the key that was proven can't be read"),
        }
    }

    /// Finishes or takes back what was interrupted. Adds and removes tokens, and no key slot.
    pub(super) async fn settle_volume(&self, path: &Path) -> Result<Vec<Settled>, VolumeError> {
        self.tool.check().await?;
        let mut settled = self.settle_attempts(path).await?;
        let volume = match self.opened(path).await {
            // Nothing to do for whoever put keys into headers.
            Err(VolumeError::WrongState { .. }) => return Ok(settled),
            other => other?,
        };
        if volume.metadata.conversion().is_some() {
            return Ok(settled);
        }
        let mut tokens = volume.metadata.free_tokens();
        let path = &volume.disk.path;
        let no_token = || VolumeError::NoFreeToken { path: path.clone() };
        for own in volume.own_keys() {
            match (own.token, own.standing, own.marked) {
                (Some(token), Standing::Unsettled, true) => {
                    let json = own.finished_token().json();
                    self.tool.write_token(path, token, &json, true).await?;
                    settled.push(Settled::Added(own.name));
                }
                (Some(token), Standing::Unsettled, false) => {
                    self.tool.remove_token(path, token).await?;
                    settled.push(Settled::NeverAdded(own.name));
                    continue;
                }
                (None, _, _) => {
                    let token = tokens.next().ok_or_else(no_token)?;
                    let json = own.finished_token().json();
                    self.tool.write_token(path, token, &json, false).await?;
                    settled.push(Settled::Encrypted(own.name));
                }
                (Some(_), Standing::Present, _) => {}
                (Some(_), Standing::Gone | Standing::Changed, _) => continue,
            }
            let mut others = volume.metadata.tokens().values();
            if !others.any(|token| token.kind == SYSTEMD_TYPE && token.is_for(own.slot)) {
                let token = tokens.next().ok_or_else(no_token)?;
                self.tool.write_systemd_token(path, token, own.slot).await?;
            }
        }
        // Only when the token is there: until then the label stands for it.
        if super::token::read_label(&volume.header.subsystem).is_some() {
            self.tool.set_subsystem(path, "").await?;
        }
        Ok(settled)
    }
}

fn of_luks2(key: &RecoveryKey) -> Result<(), VolumeError> {
    if key.kind() == ProtectorKind::Luks2RecoveryKey { Ok(()) } else { Err(VolumeError::WrongKind) }
}
