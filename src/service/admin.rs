//! Administration: grants, the deny-list, devices and their groups.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::auth::{Action, Permit};
use crate::domain::{
    DenialSubject, DeviceId, GroupName, OperatorName, Reach, RequestId, Right, Role, Text,
};
use crate::state::{CommandBody, Denial, Device, Grant, Position, query};

use super::context::{ReadPoint, proposer_of};
use super::{Consensus, Context, ServiceError};

/// Devices that one call looks at to find those of some groups.
const LOOKED_AT: usize = 10_000;

/// A grant, a revocation, a denial or its end is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Whether it changed anything.
    pub changed: bool,
    /// Entry that did it.
    pub position: Position,
}

/// A device, and the groups that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDevice {
    /// The device with its volumes.
    pub device: Device,
    /// Its groups.
    pub groups: BTreeSet<GroupName>,
}

/// Some devices of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePage {
    /// In the order of their ids.
    pub devices: Vec<KnownDevice>,
    /// The last one that was looked at, if there were more to look at than one call may.
    pub looked_to: Option<DeviceId>,
    /// Where they were read.
    pub read: ReadPoint,
}

/// Use cases of administrators and report readers.
pub struct AdminService<C> {
    context: Arc<Context<C>>,
}

impl<C: Consensus> AdminService<C> {
    /// Over the shared context.
    pub fn new(context: Arc<Context<C>>) -> Self {
        Self { context }
    }

    /// Grants a role for some devices or for all.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn grant(
        &self,
        permit: &Permit,
        request_id: RequestId,
        (operator, role): (OperatorName, Role),
        reach: Reach,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::Grant)?;
        let body = CommandBody::Grant { operator, role, reach };
        self.context.change(proposer, request_id, body).await
    }

    /// Takes a role away.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn revoke(
        &self,
        permit: &Permit,
        request_id: RequestId,
        operator: OperatorName,
        role: Role,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::Revoke)?;
        self.context.change(proposer, request_id, CommandBody::Revoke { operator, role }).await
    }

    /// Denies an identity or a certificate.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn deny(
        &self,
        permit: &Permit,
        request_id: RequestId,
        subject: DenialSubject,
        reason: Text,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::Deny)?;
        self.context.change(proposer, request_id, CommandBody::Deny { subject, reason }).await
    }

    /// Allows an identity or a certificate again.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn allow(
        &self,
        permit: &Permit,
        request_id: RequestId,
        subject: DenialSubject,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::Allow)?;
        self.context.change(proposer, request_id, CommandBody::Allow { subject }).await
    }

    /// At most `limit` entries of the deny-list in their order; the first, or those after `after`.
    ///
    /// # Errors
    /// If no quorum answers.
    pub async fn denials(
        &self,
        permit: &Permit,
        after: Option<DenialSubject>,
        limit: usize,
    ) -> Result<Vec<Denial>, ServiceError> {
        proposer_of(permit, Action::ListDenials)?;
        self.context.read(false).await?;
        self.context.scan(move |view| query::denials(view, after.as_ref(), limit)).await
    }

    /// At most `limit` grants in the order of their operators' names, then of their roles; the first, or those after
    /// `after`.
    ///
    /// # Errors
    /// If no quorum answers.
    pub async fn grants(
        &self,
        permit: &Permit,
        after: Option<(OperatorName, Role)>,
        limit: usize,
    ) -> Result<Vec<Grant>, ServiceError> {
        proposer_of(permit, Action::ListGrants)?;
        self.context.read(false).await?;
        let after = move |view: &C::View| {
            let after = after.as_ref().map(|(operator, role)| (operator, *role));
            query::grants(view, after, limit)
        };
        self.context.scan(after).await
    }

    /// Puts a device into a group.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn add_to_group(
        &self,
        permit: &Permit,
        request_id: RequestId,
        device: DeviceId,
        group: GroupName,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::AddDeviceToGroup)?;
        let body = CommandBody::AddToGroup { device, group };
        self.context.change(proposer, request_id, body).await
    }

    /// Takes a device out of a group.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn remove_from_group(
        &self,
        permit: &Permit,
        request_id: RequestId,
        device: DeviceId,
        group: GroupName,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::RemoveDeviceFromGroup)?;
        let body = CommandBody::RemoveFromGroup { device, group };
        self.context.change(proposer, request_id, body).await
    }

    /// The groups of a device, whether it has written anything or not.
    ///
    /// # Errors
    /// If the caller's grants don't reach the device, or no quorum answers.
    pub async fn device_groups(
        &self,
        permit: &Permit,
        device: DeviceId,
    ) -> Result<BTreeSet<GroupName>, ServiceError> {
        let action = Action::ListDeviceGroups;
        proposer_of(permit, action)?;
        self.context.read(false).await?;
        self.context.check_reach(permit.actor(), action, Right::ReadDevices, device)?;
        Ok(query::groups_of(self.context.consensus().view(), device)?)
    }

    /// A device with its volumes. Linearizable by one read barrier, and not audited: it shows no secret.
    ///
    /// # Errors
    /// [`ServiceError::NoSuchDevice`]; if the caller's grants don't reach the device, whether there is one or not; or if no quorum
    /// answers, unless `stale`.
    pub async fn device(
        &self,
        permit: &Permit,
        device: DeviceId,
        stale: bool,
    ) -> Result<(KnownDevice, ReadPoint), ServiceError> {
        let action = Action::GetDevice;
        proposer_of(permit, action)?;
        let read = self.context.read(stale).await?;
        self.context.check_reach(permit.actor(), action, Right::ReadDevices, device)?;
        let view = self.context.consensus().view();
        let groups = query::groups_of(view, device)?;
        let device = query::device(view, device)?.ok_or(ServiceError::NoSuchDevice)?;
        Ok((KnownDevice { device, groups }, read))
    }

    /// At most `limit` devices that the caller's grants reach, in the order of their ids, from `from` on: all of them, or those of
    /// a group.
    ///
    /// # Errors
    /// If the caller's grants don't reach the group, or no quorum answers, unless `stale`.
    pub async fn devices(
        &self,
        permit: &Permit,
        (from, limit): (Option<DeviceId>, usize),
        group: Option<GroupName>,
        stale: bool,
    ) -> Result<DevicePage, ServiceError> {
        let action = Action::ListDevices;
        proposer_of(permit, action)?;
        let read = self.context.read(stale).await?;
        let reach = self.context.reach(permit.actor(), action, Right::ReadDevices)?;
        let all = group.is_none() && !reach.is_limited();
        if group.as_ref().is_some_and(|group| !reach.includes(group)) {
            return Err(self.context.outside(permit.actor(), action));
        }
        let wanted = move |groups: &BTreeSet<GroupName>| match &group {
            Some(group) => groups.contains(group),
            None => reach.covers(groups),
        };
        let found = self.context.scan(move |view| {
            let most = if all { limit } else { LOOKED_AT.max(limit) };
            query::devices_in(view, from, (limit, most), wanted)
        });
        let (devices, looked_to) = found.await?;
        let devices = devices.into_iter();
        let devices = devices.map(|(device, groups)| KnownDevice { device, groups }).collect();
        Ok(DevicePage { devices, looked_to, read })
    }
}
