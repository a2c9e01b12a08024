//! Reads of the state, for use cases and reports. They see the last commit of the store that they are given, change
//! nothing, and ask nobody for permission: that is the affair of those who call them.

mod controls;
mod denials;
mod enrolment;
mod groups;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::codec::{self, CodecError};
use super::records::{Device, Grant, KeyRecord, KeyRef, Keyring, Seal, SealedKey, StoredKey, keys};
use super::{KeySummary, Record, Store, StoreError, Table};
use crate::domain::{
    AuditRecord, DeviceId, Grants, KeyVersion, OperatorName, ProtectorId, Reach, Role, Sealed,
    VolumeId,
};

pub(super) use controls::{all_approvals, approval_from, mass_recovery_from, policy_from};
pub use controls::{approval, approvals, disclosure_policy, mass_recovery};
pub(super) use denials::denied_by;
pub use denials::{denial_of, denials};
pub(super) use enrolment::{
    agent_ca_count, agent_cas_from, enrolment_from, token_from, tokens_from,
};
pub use enrolment::{agent_cas, enrolment, token, tokens};
pub(super) use groups::{assigned_groups_from, groups_from};
pub use groups::{devices_in, groups_of};

/// Records that are read from the store at once.
pub(super) const SCAN_RECORDS: usize = 1000;

/// What a read goes to: a store, or a batch on top of one.
pub(super) trait Source {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;
}

impl<S: Store> Source for S {
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.get(table, key)
    }

    fn range(
        &self,
        table: Table,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.scan(table, prefix, from, limit)
    }
}

/// A damaged record of `table`.
pub(super) fn corrupt(table: Table) -> impl Fn(CodecError) -> StoreError {
    move |error| {
        let what = std::error::Error::source(&error)
            .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        StoreError::Corrupt { table, what }
    }
}

/// A device.
///
/// # Errors
/// A local fault of the store.
pub fn device(store: &impl Store, id: DeviceId) -> Result<Option<Device>, StoreError> {
    device_from(store, id)
}

pub(super) fn device_from(
    source: &impl Source,
    id: DeviceId,
) -> Result<Option<Device>, StoreError> {
    let value = source.value(Table::Devices, id.as_bytes())?;
    let device = value.map(|value| codec::decode_device(id.as_bytes(), &value));
    device.transpose().map_err(corrupt(Table::Devices))
}

/// At most `limit` devices in the order of their ids, beginning with `from` (or the first).
///
/// # Errors
/// A local fault of the store.
pub fn devices(
    store: &impl Store,
    from: Option<DeviceId>,
    limit: usize,
) -> Result<Vec<Device>, StoreError> {
    let start = from.as_ref().map_or(&[][..], |id| id.as_bytes());
    let records = store.scan(Table::Devices, &[], start, limit)?;
    let devices = records.iter().map(|(key, value)| codec::decode_device(key, value));
    devices.collect::<Result<_, _>>().map_err(corrupt(Table::Devices))
}

/// A key version with its sealed key; [`KeyVersion::NONE`] for the newest of this id.
///
/// # Errors
/// A local fault of the store.
pub fn key(
    store: &impl Store,
    protector: ProtectorId,
    version: KeyVersion,
) -> Result<Option<StoredKey>, StoreError> {
    let Some(key) = key_record(store, protector, version)? else {
        return Ok(None);
    };
    let device = owner(store, &key)?;
    Ok(Some(key.into_stored(&device)))
}

pub(super) fn key_record(
    source: &impl Source,
    protector: ProtectorId,
    version: KeyVersion,
) -> Result<Option<KeyRecord>, StoreError> {
    let record = if version == KeyVersion::NONE {
        source.range(Table::Keys, protector.as_bytes(), &[], 1)?.pop()
    } else {
        let key = keys::key(KeyRef { protector, version });
        source.value(Table::Keys, &key)?.map(|value| (key, value))
    };
    let key = record.map(|(key, value)| codec::decode_key(&key, &value));
    key.transpose().map_err(corrupt(Table::Keys))
}

/// The device of a key; a key without one is damage.
pub(super) fn owner(source: &impl Source, key: &KeyRecord) -> Result<Device, StoreError> {
    device_from(source, key.device)?.ok_or_else(|| StoreError::Corrupt {
        table: Table::Devices,
        what: format!("device {} of key {} is missing", key.device, key.at.protector.prefix()),
    })
}

/// A key package.
///
/// # Errors
/// A local fault of the store.
pub fn package(
    store: &impl Store,
    protector: ProtectorId,
    version: KeyVersion,
) -> Result<Option<Sealed>, StoreError> {
    let value = store.get(Table::Packages, &keys::key(KeyRef { protector, version }))?;
    let package = value.map(|value| codec::decode_package(&value));
    package.transpose().map_err(corrupt(Table::Packages))
}

/// At most `limit` key versions in the order of their table, with what they are sealed in; the first, or those after one.
///
/// # Errors
/// A local fault of the store; a package that is missing is one.
pub fn sealed_keys(
    store: &impl Store,
    after_key: Option<KeyRef>,
    limit: usize,
) -> Result<Vec<SealedKey>, StoreError> {
    let start = after_key.map(|at| after(&keys::key(at))).unwrap_or_default();
    let records = store.scan(Table::Keys, &[], &start, limit)?;
    let mut found = Vec::with_capacity(records.len());
    for (key, value) in &records {
        let key = codec::decode_key(key, value).map_err(corrupt(Table::Keys))?;
        let KeyRef { protector, version } = key.at;
        let package = if key.has_package { package(store, protector, version)? } else { None };
        if key.has_package && package.is_none() {
            let what = format!("the package of key {} is missing", protector.prefix());
            return Err(StoreError::Corrupt { table: Table::Packages, what });
        }
        found.push(SealedKey {
            at: key.at,
            device: key.device,
            volume: key.volume,
            protector_kind: key.protector_kind,
            sealed: key.sealed,
            package,
        });
    }
    Ok(found)
}

/// At most `limit` keys of a volume, newest first. Empty if there is no such device or volume.
///
/// # Errors
/// A local fault of the store.
pub fn keys_of_volume(
    store: &impl Store,
    device: DeviceId,
    volume: VolumeId,
    limit: usize,
) -> Result<Vec<StoredKey>, StoreError> {
    let Some(device) = device_from(store, device)? else {
        return Ok(Vec::new());
    };
    let mut next = device.volume(volume).and_then(|volume| volume.key);
    let mut found = Vec::new();
    while let Some(at) = next
        && found.len() < limit
    {
        let key = linked(store, at)?;
        next = key.previous;
        found.push(key.into_stored(&device));
    }
    Ok(found)
}

/// A key that a volume or another key points to; a missing one is damage.
fn linked(source: &impl Source, at: KeyRef) -> Result<KeyRecord, StoreError> {
    let key = if at.version == KeyVersion::NONE {
        None
    } else {
        key_record(source, at.protector, at.version)?
    };
    key.ok_or_else(|| StoreError::Corrupt {
        table: Table::Keys,
        what: format!("version {} of key {} is missing", at.version, at.protector.prefix()),
    })
}

/// Key versions within reach whose ids begin with `prefix`: by id, then newest first; at most `limit`, and whether there are
/// more. With a limited reach at most [`SCAN_RECORDS`] are looked at, so that there may be more than were seen.
pub(super) fn summaries_by_prefix(
    source: &impl Source,
    prefix: &[u8],
    limit: usize,
    reach: &Reach,
) -> Result<(Vec<KeySummary>, bool), StoreError> {
    let most = if reach.is_limited() { SCAN_RECORDS } else { limit };
    let mut records = source.range(Table::Keys, prefix, &[], most.saturating_add(1))?;
    let mut truncated = records.len() > most;
    records.truncate(most);
    // None for those that are not within reach.
    let mut devices: BTreeMap<DeviceId, Option<Device>> = BTreeMap::new();
    let mut summaries = Vec::with_capacity(records.len().min(limit));
    for (key, value) in &records {
        let key = codec::decode_key(key, value).map_err(corrupt(Table::Keys))?;
        let device = match devices.entry(key.device) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(reached(source, &key, reach)?)
            }
        };
        let Some(device) = device else { continue };
        if summaries.len() >= limit {
            truncated = true;
            break;
        }
        summaries.push(key.summary(device));
    }
    Ok((summaries, truncated))
}

/// The device of a key, if it is within reach.
fn reached(
    source: &impl Source,
    key: &KeyRecord,
    reach: &Reach,
) -> Result<Option<Device>, StoreError> {
    if reach.is_limited() && !reach.covers(&groups_from(source, key.device)?) {
        return Ok(None);
    }
    owner(source, key).map(Some)
}

/// Key versions of some volumes of a device: by id, then newest first; at most `limit`, and whether there are more. What is
/// left out are the oldest: the newest key of every volume is taken first, then the one before it of every volume, and
/// so on.
pub(super) fn summaries_of_volumes(
    source: &impl Source,
    device: &Device,
    wanted: impl Fn(VolumeId) -> bool,
    limit: usize,
) -> Result<(Vec<KeySummary>, bool), StoreError> {
    let volumes = device.volumes.iter().filter(|volume| wanted(volume.id));
    let mut round: Vec<KeyRef> = volumes.filter_map(|volume| volume.key).collect();
    let mut summaries: Vec<KeySummary> = Vec::new();
    let mut truncated = false;
    while !round.is_empty() && !truncated {
        let mut next = Vec::with_capacity(round.len());
        for at in round {
            if summaries.len() >= limit {
                truncated = true;
                break;
            }
            let key = linked(source, at)?;
            next.extend(key.previous);
            summaries.push(key.summary(device));
        }
        round = next;
    }
    summaries.sort_by_key(|key| (key.protector, std::cmp::Reverse(key.version)));
    Ok((summaries, truncated))
}

/// At most `limit` audit records from number `from` to number `to`, both included, in their order.
///
/// # Errors
/// A local fault of the store; a gap is one.
pub fn audit_records(
    store: &impl Store,
    from: u64,
    to: u64,
    limit: usize,
) -> Result<Vec<AuditRecord>, StoreError> {
    let from = from.max(1);
    if from > to {
        return Ok(Vec::new());
    }
    let wanted = usize::try_from(to.saturating_sub(from).saturating_add(1)).unwrap_or(usize::MAX);
    let records = store.scan(Table::Audit, &[], &from.to_be_bytes(), limit.min(wanted))?;
    let mut found = Vec::with_capacity(records.len());
    for (expected, (key, value)) in (from..=to).zip(&records) {
        let record = codec::decode_audit(key, value).map_err(corrupt(Table::Audit))?;
        if record.sequence != expected {
            let what = format!("record {expected} is missing");
            return Err(StoreError::Corrupt { table: Table::Audit, what });
        }
        found.push(record);
    }
    Ok(found)
}

/// The roles of an operator.
///
/// # Errors
/// A local fault of the store.
pub fn roles_of(store: &impl Store, operator: &OperatorName) -> Result<BTreeSet<Role>, StoreError> {
    granted(store, operator).map(|grants| grants.roles())
}

/// What an operator is granted, and for which devices.
///
/// # Errors
/// A local fault of the store.
pub fn granted(store: &impl Store, operator: &OperatorName) -> Result<Grants, StoreError> {
    granted_from(store, operator)
}

pub(super) fn granted_from(
    source: &impl Source,
    operator: &OperatorName,
) -> Result<Grants, StoreError> {
    let records = source.range(Table::Grants, &keys::grants_of(operator), &[], Role::ALL.len())?;
    let grants = records.iter().map(|(key, value)| codec::decode_grant(key, value));
    grants
        .map(|grant| grant.map(|grant| (grant.role, grant.reach)))
        .collect::<Result<_, _>>()
        .map_err(corrupt(Table::Grants))
}

/// At most `limit` grants in the order of their operators' names, then of their roles; the first, or those after one.
///
/// # Errors
/// A local fault of the store.
pub fn grants(
    store: &impl Store,
    after_grant: Option<(&OperatorName, Role)>,
    limit: usize,
) -> Result<Vec<Grant>, StoreError> {
    let start = after_grant.map(|(operator, role)| after(&codec::grant_key(operator, role)));
    let records = store.scan(Table::Grants, &[], start.as_deref().unwrap_or_default(), limit)?;
    let grants = records.iter().map(|(key, value)| codec::decode_grant(key, value));
    grants.collect::<Result<_, _>>().map_err(corrupt(Table::Grants))
}

pub(super) fn grants_from(source: &impl Source) -> Result<Vec<Grant>, StoreError> {
    let mut found = Vec::new();
    let mut from = Vec::new();
    loop {
        let records = source.range(Table::Grants, &[], &from, SCAN_RECORDS)?;
        for (key, value) in &records {
            found.push(codec::decode_grant(key, value).map_err(corrupt(Table::Grants))?);
        }
        match records.last() {
            Some((key, _)) if records.len() == SCAN_RECORDS => from = after(key),
            _ => return Ok(found),
        }
    }
}

/// The first key after `key`.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// The keyring; `None` before the bootstrap.
///
/// # Errors
/// A local fault of the store; a keyring without signer or epoch is one.
pub fn keyring(store: &impl Store) -> Result<Option<Keyring>, StoreError> {
    keyring_from(store)
}

pub(super) fn keyring_from(source: &impl Source) -> Result<Option<Keyring>, StoreError> {
    let Some(root) = source.value(Table::Keyring, keys::ROOT)? else {
        return Ok(None);
    };
    let (cluster, root_check) = codec::decode_root(&root).map_err(corrupt(Table::Keyring))?;
    let missing = || StoreError::Corrupt {
        table: Table::Keyring,
        what: "the signer or the first epoch is missing".to_owned(),
    };
    let signer = source.value(Table::Keyring, keys::SIGNER)?.ok_or_else(missing)?;
    let signer = codec::decode_signer(&signer).map_err(corrupt(Table::Keyring))?;
    let mut epochs = Vec::new();
    let mut from = Vec::new();
    loop {
        let records = source.range(Table::Keyring, keys::EPOCH_PREFIX, &from, SCAN_RECORDS)?;
        for (_, value) in &records {
            epochs.push(codec::decode_epoch(value).map_err(corrupt(Table::Keyring))?);
        }
        match records.last() {
            Some((key, _)) if records.len() == SCAN_RECORDS => from = after(key),
            _ => break,
        }
    }
    if epochs.is_empty() {
        return Err(missing());
    }
    let shares = source.value(Table::Keyring, keys::SHARES)?;
    let shares = shares.map(|value| codec::decode_share_set(&value)).transpose();
    let shares = shares.map_err(corrupt(Table::Keyring))?;
    let agent_cas = agent_cas_from(source)?;
    Ok(Some(Keyring { cluster, root_check, signer, epochs, shares, agent_cas }))
}

/// Who sealed the cluster; `None` if it is not sealed.
///
/// # Errors
/// A local fault of the store.
pub fn seal(store: &impl Store) -> Result<Option<Seal>, StoreError> {
    let value = store.get(Table::Keyring, keys::SEAL)?;
    value.map(|value| codec::decode_seal(&value)).transpose().map_err(corrupt(Table::Keyring))
}
