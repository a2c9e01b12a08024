//! Administration: grants, the deny-list, and devices.

use std::sync::Arc;

use crate::auth::{Action, Permit};
use crate::domain::{DenialSubject, DeviceId, OperatorName, RequestId, Role, Text};
use crate::state::{CommandBody, Denial, Device, Grant, Position, query};

use super::context::{ReadPoint, proposer_of};
use super::{Consensus, Context, ServiceError};

/// A grant, a revocation, a denial or its end is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Whether it changed anything.
    pub changed: bool,
    /// Entry that did it.
    pub position: Position,
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

    /// Grants a role.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn grant(
        &self,
        permit: &Permit,
        request_id: RequestId,
        operator: OperatorName,
        role: Role,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::Grant)?;
        self.context.change(proposer, request_id, CommandBody::Grant { operator, role }).await
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

    /// A device with its volumes. Linearizable by one read barrier, and not audited: it shows no secret.
    ///
    /// # Errors
    /// [`ServiceError::NoSuchDevice`], or if no quorum answers, unless `stale`.
    pub async fn device(
        &self,
        permit: &Permit,
        device: DeviceId,
        stale: bool,
    ) -> Result<(Device, ReadPoint), ServiceError> {
        proposer_of(permit, Action::GetDevice)?;
        let read = self.context.read(stale).await?;
        let found = query::device(self.context.consensus().view(), device)?;
        Ok((found.ok_or(ServiceError::NoSuchDevice)?, read))
    }

    /// At most `limit` devices in the order of their ids, from `from` on.
    ///
    /// # Errors
    /// If no quorum answers, unless `stale`.
    pub async fn devices(
        &self,
        permit: &Permit,
        from: Option<DeviceId>,
        limit: usize,
        stale: bool,
    ) -> Result<(Vec<Device>, ReadPoint), ServiceError> {
        proposer_of(permit, Action::ListDevices)?;
        let read = self.context.read(stale).await?;
        let devices = self.context.scan(move |view| query::devices(view, from, limit)).await?;
        Ok((devices, read))
    }
}
