//! What is so with a volume, as the gate has to know it.

use super::{InHand, Keeper, KeeperError, Unlocks};
use crate::agent::courier::Servers;
use crate::agent::gate::{Facts, Media};
use crate::agent::ledger::VolumeRecord;
use crate::agent::volume::{KeyName, Standing, Volume, VolumeProvider, VolumeState};
use crate::domain::{KeyVersion, VolumeId};
use crate::fs::Fs;

impl<F, P, S, U> Keeper<F, P, S, U>
where
    F: Fs,
    P: VolumeProvider,
    S: Servers + Sync,
    U: Unlocks,
{
    /// The id of a volume; of a plain one the id that it was given in the ledger, or a new one.
    fn id_of(&self, volume: &Volume) -> VolumeId {
        let planned = || {
            let mut records = self.ledger.records();
            records.find(|record| record.path == volume.path).map(|record| record.volume)
        };
        let minted = || VolumeId::new(uuid::Uuid::new_v4());
        volume.id.or_else(planned).unwrap_or_else(minted)
    }

    pub(super) async fn facts(
        &mut self,
        volume: &Volume,
    ) -> Result<(VolumeId, Facts), KeeperError> {
        let id = self.id_of(volume);
        let mut record = self.record(id, Some(&volume.path));
        if self.ledger.get(id).is_none()
            && let Some(newest) = self.spool.receipts_of(id)?.last()
        {
            record.known = newest.get();
        }
        self.ledger.put(record.clone())?;
        let own = volume.protectors.iter().filter_map(|protector| protector.own);
        let present = own.filter(|(_, standing)| match standing {
            Standing::Present | Standing::Unsettled => true,
            Standing::Gone | Standing::Changed => false,
        });
        let receipt = record.receipt.map(|id| KeyName { id, version: record.known() });
        let facts = Facts {
            media: media(&volume.state),
            on_volume: present.map(|(name, _)| name).collect(),
            others: volume.protectors.iter().any(|protector| protector.own.is_none()),
            receipt,
            known: record.known(),
            proven: self.proven(volume, id, &record).await,
            waiting: self.spool.waiting().any(|entry| entry.sealed.volume() == id),
            in_hand: self.in_hand.get(&id).map(|key| key.name),
            rotation_due: record.is_rotation_due(),
        };
        Ok((id, facts))
    }

    /// The key that was proven, if its slot still holds what it held then.
    async fn proven(
        &self,
        volume: &Volume,
        id: VolumeId,
        record: &VolumeRecord,
    ) -> Option<KeyName> {
        if let Some(InHand { name, proof, .. }) = self.in_hand.get(&id) {
            return proof.as_ref().map(|_| *name);
        }
        let proof = record.proof.as_ref()?;
        let now = self.provider.fingerprint(&volume.path, proof.protector).await;
        match now {
            Ok(now) if hex::encode(now.as_bytes()) == proof.fingerprint => {
                Some(KeyName { id: proof.protector, version: KeyVersion::new(proof.version) })
            }
            Ok(_) => {
                tracing::warn!(path = %volume.path.display(), key = ?proof.protector.prefix(), "the key slot has changed: a new key is made");
                None
            }
            Err(error) => {
                tracing::warn!(path = %volume.path.display(), %error, "the key can't be looked at");
                None
            }
        }
    }
}

fn media(state: &VolumeState) -> Media {
    match state {
        VolumeState::Plain { obstacle: None } => Media::Plain,
        VolumeState::Plain { obstacle: Some(obstacle) } => Media::Unusable(obstacle.to_string()),
        VolumeState::Encrypting(progress) => Media::Encrypting { begun: progress.done > 0 },
        // A recovery key can be added and proven without the volume being open.
        VolumeState::Protected | VolumeState::Locked => Media::Encrypted,
        VolumeState::Unsupported(why) => Media::Unusable(why.to_string()),
        VolumeState::Damaged => Media::Unusable("its header is damaged".to_owned()),
        VolumeState::Unknown(why) => Media::Unusable(why.clone()),
    }
}
