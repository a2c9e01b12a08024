//! Reads of groups of devices.

use std::collections::BTreeSet;

use super::{SCAN_RECORDS, Source, after, codec, corrupt, enrolment_from, keys};
use crate::domain::{DeviceId, GroupName};
use crate::state::records::Device;
use crate::state::{Store, StoreError, Table};

/// The groups that a device is in: that of its enrolment, and those that administrators have put it into. A device that
/// nobody knows is in none.
///
/// # Errors
/// A local fault of the store.
pub fn groups_of(store: &impl Store, device: DeviceId) -> Result<BTreeSet<GroupName>, StoreError> {
    groups_from(store, device)
}

/// The same, for the rules.
pub(in crate::state) fn groups_from(
    source: &impl Source,
    device: DeviceId,
) -> Result<BTreeSet<GroupName>, StoreError> {
    let mut groups = assigned_groups_from(source, device)?;
    groups.extend(enrolment_from(source, device)?.and_then(|enrolment| enrolment.group));
    Ok(groups)
}

/// Those that are kept beside the enrolment.
pub(in crate::state) fn assigned_groups_from(
    source: &impl Source,
    device: DeviceId,
) -> Result<BTreeSet<GroupName>, StoreError> {
    let value = source.value(Table::DeviceGroups, &keys::device(device))?;
    let groups = value.map(|value| codec::decode_groups(&value)).transpose();
    groups.map(Option::unwrap_or_default).map_err(corrupt(Table::DeviceGroups))
}

/// A device and the groups that it is in.
type Grouped = (Device, BTreeSet<GroupName>);

/// Devices with their groups, in the order of their ids, from `from` on (or the first): those whose groups are wanted. At most
/// the first of two numbers are found, and at most the second are looked at. If that many were looked at without finding enough,
/// and there may be more, the last one of them.
///
/// # Errors
/// A local fault of the store.
pub fn devices_in(
    store: &impl Store,
    from: Option<DeviceId>,
    (limit, most): (usize, usize),
    wanted: impl Fn(&BTreeSet<GroupName>) -> bool,
) -> Result<(Vec<Grouped>, Option<DeviceId>), StoreError> {
    let mut start = from.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    let (mut found, mut looked_at, mut last) = (Vec::new(), 0_usize, None);
    loop {
        let more = most.saturating_sub(looked_at).min(SCAN_RECORDS);
        let records = store.scan(Table::Devices, &[], &start, more)?;
        for (key, value) in &records {
            let device = codec::decode_device(key, value).map_err(corrupt(Table::Devices))?;
            last = Some(device.id);
            let groups = groups_of(store, device.id)?;
            if wanted(&groups) {
                found.push((device, groups));
            }
            if found.len() >= limit {
                return Ok((found, None));
            }
        }
        looked_at = looked_at.saturating_add(records.len());
        match records.last() {
            Some((key, _)) if records.len() == more => start = after(key),
            _ => return Ok((found, None)),
        }
        if looked_at >= most {
            return Ok((found, last));
        }
    }
}
