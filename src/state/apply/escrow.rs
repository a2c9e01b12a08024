//! Escrow: a volume's next key, by compare-and-set on its version.

use std::sync::Arc;

use super::audit::Facts;
use super::{Batch, Context, Ruled, Stop, check_users, own_device};
use crate::domain::{
    Actor, AuditAction, AuditOutcome, DeviceId, KeyVersion, OperatorName, Right, Timestamp, limits,
    sealed_digest,
};
use crate::state::query::key_record;
use crate::state::records::{Device, KeyRecord, KeyRef, Remembered, Volume, keys};
use crate::state::{Accepted, Escrow, Rejection, Store, StoreError, Table, codec};

impl<S: Store> Batch<'_, S> {
    /// A device escrows a key of its own volume, or an operator imports one for it.
    ///
    /// An escrow that is identical to one that was accepted (same device, volume, key id, expected version and sealed
    /// bytes) gets the same receipt for ever, however old it is and whatever its request id: the key version itself
    /// remembers it. It leaves no second record.
    pub(super) fn escrow(&mut self, context: &Context<'_>, escrow: &Escrow) -> Ruled<Accepted> {
        let imported_by = self.importer(context, escrow.device)?;
        let digest = sealed_digest(&escrow.key, escrow.package.as_ref());
        let newest_of_id = key_record(&self.txn, escrow.protector, KeyVersion::NONE)?;
        if let Some(newest) = &newest_of_id
            && let Some(key) = self.identical(escrow, &digest, newest)?
        {
            if !self.is_remembered(context) {
                self.remember(context, Remembered::Key(key.at))?;
            }
            return Ok(Accepted::Escrowed(key.receipt()));
        }
        if self.recall(context)?.is_some() {
            // An accepted request with this body would have been found as identical: keys are never deleted.
            let table = Table::Keys;
            let what = format!("key {} of a request is missing", escrow.protector.prefix());
            return Err(Stop::Fault(StoreError::Corrupt { table, what }));
        }
        for sealed in [Some(&escrow.key), escrow.package.as_ref()].into_iter().flatten() {
            if !self.has_epoch(sealed.epoch)? {
                return Err(Rejection::UnknownEpoch(sealed.epoch).into());
            }
        }
        if newest_of_id.is_some_and(|key| !belongs(&key, escrow)) {
            return Err(Rejection::ForeignVolume.into());
        }
        check_users(&escrow.users)?;
        let device = self.device(escrow.device)?;
        let device = device.unwrap_or_else(|| {
            let new = self.new_device(escrow.device);
            let silent = imported_by.is_some();
            let last_contact = if silent { Timestamp::default() } else { new.last_contact };
            Arc::new(Device { last_contact, ..new })
        });
        if imported_by.is_some() {
            self.check_import(&device, escrow)?;
        }
        let at = next_key(&device, escrow)?;
        self.store_key(context, escrow, device, KeyToStore { at, digest, imported_by })
    }

    /// Who escrows for a device: nobody but itself, or an operator who may import for it.
    fn importer(&self, context: &Context<'_>, device: DeviceId) -> Ruled<Option<OperatorName>> {
        let Actor::Operator(operator) = &context.command.actor else {
            return own_device(context, device).map(|()| None);
        };
        let permitted = self.permitted(context, Right::ImportKeys)?;
        self.check_reach(&permitted, device)?;
        Ok(Some(operator.clone()))
    }

    /// An import brings in what is older than anything that the device escrows itself, and must not take its place.
    fn check_import(&self, device: &Device, escrow: &Escrow) -> Ruled<()> {
        let Some(newest) = device.volume(escrow.volume).and_then(|volume| volume.key) else {
            return Ok(());
        };
        let newest = key_record(&self.txn, newest.protector, newest.version)?;
        if newest.is_some_and(|newest| newest.imported_by.is_none()) {
            return Err(Rejection::EscrowedByDevice.into());
        }
        Ok(())
    }

    /// The key version that an identical escrow has made.
    fn identical(
        &self,
        escrow: &Escrow,
        digest: &[u8; 32],
        newest: &KeyRecord,
    ) -> Result<Option<KeyRecord>, StoreError> {
        let Some(version) = escrow.expected_version.next() else {
            return Ok(None);
        };
        let key = if newest.at.version == version {
            Some(newest.clone())
        } else if newest.at.version > version {
            key_record(&self.txn, escrow.protector, version)?
        } else {
            None
        };
        Ok(key.filter(|key| belongs(key, escrow) && key.sealed_digest == *digest))
    }

    /// Writes device, key, package, audit record and request.
    fn store_key(
        &mut self,
        context: &Context<'_>,
        escrow: &Escrow,
        device: Arc<Device>,
        KeyToStore { at, digest, imported_by }: KeyToStore,
    ) -> Ruled<Accepted> {
        let facts = Facts {
            device: Some(escrow.device),
            volume: Some(escrow.volume),
            protector: Some(escrow.protector),
            version: at.version,
            ..Facts::default()
        };
        self.record(context, AuditAction::Escrow, AuditOutcome::Ok, facts);
        let mut device = self.take_device(device);
        let volume = device.volume_or_insert(escrow.volume, || Volume {
            id: escrow.volume,
            kind: escrow.volume_kind,
            key: None,
            rotation_due: false,
            compliance: None,
        });
        let key = KeyRecord {
            at,
            device: escrow.device,
            volume: escrow.volume,
            protector_kind: escrow.protector_kind,
            volume_kind: escrow.volume_kind,
            sealed: escrow.key.clone(),
            has_package: escrow.package.is_some(),
            sealed_digest: digest,
            position: context.position,
            audit: self.heads.audit,
            escrowed_at: self.heads.time,
            request_id: context.command.request_id,
            disclosed_at: None,
            disclosed_superseded: false,
            previous: volume.key,
            imported_by,
        };
        volume.kind = escrow.volume_kind;
        volume.key = Some(at);
        volume.rotation_due = false;
        tell(&mut device, escrow, key.imported_by.is_none(), self.heads.time);
        self.put_device(device);
        // The version is the volume's next, and the id is this volume's alone: there is no such record yet.
        self.txn.insert(Table::Keys, keys::key(at), codec::encode_key(&key));
        if let Some(package) = &escrow.package {
            self.txn.insert(Table::Packages, keys::key(at), codec::encode_package(package));
        }
        self.remember(context, Remembered::Key(at))?;
        Ok(Accepted::Escrowed(key.receipt()))
    }
}

/// What a checked escrow becomes.
struct KeyToStore {
    at: KeyRef,
    digest: [u8; 32],
    imported_by: Option<OperatorName>,
}

/// What an escrow says of its device besides. It is about a key: what it doesn't say stays as it was. What an import says
/// only fills gaps, and is no contact with the device.
fn tell(device: &mut Device, escrow: &Escrow, own: bool, now: Timestamp) {
    if !escrow.host_name.is_empty() && (own || device.host_name.is_empty()) {
        device.host_name = escrow.host_name.clone();
    }
    if !escrow.users.is_empty() && (own || device.users.is_empty()) {
        device.users.clone_from(&escrow.users);
    }
    if own {
        device.last_contact = now;
    }
}

fn belongs(key: &KeyRecord, escrow: &Escrow) -> bool {
    key.device == escrow.device && key.volume == escrow.volume
}

/// The key that an escrow makes, if its expected version is the volume's and the device has room for the volume.
fn next_key(device: &Device, escrow: &Escrow) -> Ruled<KeyRef> {
    let volume = device.volume(escrow.volume);
    let current = volume.map_or(KeyVersion::NONE, Volume::key_version);
    let expected = escrow.expected_version;
    // After 4,294,967,295 versions there is no next one.
    let next = expected.next().filter(|_| expected == current);
    let version = next.ok_or(Rejection::StaleVersion { expected, current })?;
    if volume.is_none() && device.volumes.len() >= limits::DEVICE_VOLUMES {
        return Err(Rejection::TooManyVolumes(device.volumes.len()).into());
    }
    Ok(KeyRef { protector: escrow.protector, version })
}
