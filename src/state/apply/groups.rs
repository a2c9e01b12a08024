//! Groups of devices: administrators put devices into them, and so does an enrolment with a token for a group.
//!
//! A device leaves a group only when an administrator takes it out. So the group that an enrolment record names moves to
//! the device's own record when a later enrolment names another.

use std::collections::BTreeSet;

use super::access::Permitted;
use super::{Batch, Context, Ruled, Stop};
use crate::domain::{DeviceId, GroupName, Right, limits};
use crate::state::query::{assigned_groups_from, enrolment_from, groups_from};
use crate::state::records::{Enrolment, keys};
use crate::state::{Accepted, Rejection, Store, StoreError, Table, codec};

impl<S: Store> Batch<'_, S> {
    /// An administrator puts a device into a group. The device need not have written anything yet.
    pub(super) fn add_to_group(
        &mut self,
        context: &Context<'_>,
        device: DeviceId,
        group: &GroupName,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeGroups)? {
            return Ok(accepted);
        }
        let groups = groups_from(&self.txn, device)?;
        let changed = !groups.contains(group);
        if changed {
            check_room(&groups, group)?;
            self.keep_in_group(device, group)?;
        }
        self.finish_change(context, changed)
    }

    /// An administrator takes a device out of a group, however it came in.
    pub(super) fn remove_from_group(
        &mut self,
        context: &Context<'_>,
        device: DeviceId,
        group: &GroupName,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeGroups)? {
            return Ok(accepted);
        }
        let mut assigned = assigned_groups_from(&self.txn, device)?;
        let mut changed = assigned.remove(group);
        if changed {
            self.put_groups(device, &assigned)?;
        }
        if let Some(enrolment) = enrolment_from(&self.txn, device)?
            && enrolment.group.as_ref() == Some(group)
        {
            self.put_enrolment(&Enrolment { group: None, ..enrolment })?;
            changed = true;
        }
        self.finish_change(context, changed)
    }

    /// Writes a group into the device's own record.
    pub(super) fn keep_in_group(
        &mut self,
        device: DeviceId,
        group: &GroupName,
    ) -> Result<(), StoreError> {
        let mut assigned = assigned_groups_from(&self.txn, device)?;
        assigned.insert(group.clone());
        self.put_groups(device, &assigned)
    }

    /// Refuses what is about a device that the actor has no grant for. Of devices and keys that there are not, whoever is
    /// limited to groups is told the same.
    pub(super) fn check_reach(&self, permitted: &Permitted, device: DeviceId) -> Ruled<()> {
        let reach = &permitted.reach;
        if reach.is_limited() && !reach.covers(&groups_from(&self.txn, device)?) {
            return Err(Stop::Outside(device));
        }
        Ok(())
    }

    fn put_groups(
        &mut self,
        device: DeviceId,
        groups: &BTreeSet<GroupName>,
    ) -> Result<(), StoreError> {
        let key = keys::device(device);
        if groups.is_empty() {
            return self.txn.remove(Table::DeviceGroups, &key);
        }
        self.txn.put(Table::DeviceGroups, &key, codec::encode_groups(groups))
    }
}

/// Whether a device that is in these groups may come into one more.
pub(super) fn check_room(groups: &BTreeSet<GroupName>, more: &GroupName) -> Result<(), Rejection> {
    if !groups.contains(more) && groups.len() >= limits::DEVICE_GROUPS {
        return Err(Rejection::TooManyGroups(groups.len()));
    }
    Ok(())
}
