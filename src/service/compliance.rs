//! Compliance: agents report the state of their volumes.

use std::sync::Arc;

use crate::auth::{Action, Permit};
use crate::domain::{RequestId, VolumeId};
use crate::state::{Accepted, CommandBody, Position, ReportCompliance};

use super::context::proposer_of;
use super::{Consensus, Context, ServiceError};

/// What the agent should do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Volumes whose newest key was disclosed and has to be rotated.
    pub rotation_due: Vec<VolumeId>,
    /// Entry that stored the report.
    pub position: Position,
}

/// Use cases of agents that report.
pub struct ComplianceService<C> {
    context: Arc<Context<C>>,
}

impl<C: Consensus> ComplianceService<C> {
    /// Over the shared context.
    pub fn new(context: Arc<Context<C>>) -> Self {
        Self { context }
    }

    /// Replaces the device's last report.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it is stored.
    pub async fn report(
        &self,
        permit: &Permit,
        request_id: RequestId,
        report: ReportCompliance,
    ) -> Result<Reported, ServiceError> {
        let proposer = proposer_of(permit, Action::ReportCompliance { device: report.device })?;
        let body = CommandBody::ReportCompliance(report);
        let answer = self.context.propose(proposer, request_id, body).await?;
        let Accepted::Reported { rotation_due } = answer.accepted else {
            return Err(ServiceError::Unexpected("a report has another answer"));
        };
        Ok(Reported { rotation_due, position: answer.position })
    }
}
