//! `holdfast.v1.ComplianceService`.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_proto::v1;
use holdfast_proto::v1::compliance_service_server::ComplianceService as Api;
use tonic::{Request, Response, Status};

use crate::auth::Action;
use crate::domain::{FieldError, RequestId, VolumeCompliance, limits};
use crate::service::{ComplianceService, Consensus, Reported, ServiceError};
use crate::state::ReportCompliance;

use super::gate::Gate;
use super::{decode, encode};

/// Serves agents that report.
pub(super) struct ComplianceApi<C> {
    pub(super) gate: Arc<Gate<C>>,
    pub(super) service: ComplianceService<C>,
}

impl<C: Consensus> ComplianceApi<C> {
    async fn report(
        &self,
        request: Request<v1::ReportComplianceRequest>,
    ) -> Result<Reported, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (request_id, report) = decode_report(request.into_inner())?;
        let action = Action::ReportCompliance { device: report.device };
        let permit = self.gate.permit(&caller, action)?;
        self.service.report(&permit, request_id, report).await
    }
}

#[tonic::async_trait]
impl<C: Consensus> Api for ComplianceApi<C> {
    async fn report_compliance(
        &self,
        request: Request<v1::ReportComplianceRequest>,
    ) -> Result<Response<v1::ReportComplianceResponse>, Status> {
        let reported = self.report(request).await.map_err(|error| self.gate.status(error))?;
        Ok(Response::new(v1::ReportComplianceResponse {
            rotation_due_volume_ids: reported
                .rotation_due
                .iter()
                .map(ToString::to_string)
                .collect(),
            position: Some(encode::position(reported.position)),
        }))
    }
}

pub(super) fn decode_report(
    request: v1::ReportComplianceRequest,
) -> Result<(RequestId, ReportCompliance), FieldError> {
    decode::at_most("volumes", &request.volumes, limits::DEVICE_VOLUMES)?;
    let request_id = decode::request_id(&request.request_id)?;
    let report = ReportCompliance {
        device: decode::id("device_id", &request.device_id)?,
        host_name: decode::name("host_name", request.host_name)?,
        operating_system: decode::name("operating_system", request.operating_system)?,
        manufacturer: decode::name("manufacturer", request.manufacturer)?,
        model: decode::name("model", request.model)?,
        users: decode::users("users", request.users)?,
        volumes: volumes(request.volumes)?,
    };
    Ok((request_id, report))
}

fn volumes(list: Vec<v1::VolumeCompliance>) -> Result<Vec<VolumeCompliance>, FieldError> {
    let mut seen = BTreeSet::new();
    let mut volumes = Vec::with_capacity(list.len());
    for (i, volume) in list.into_iter().enumerate() {
        let volume = decode::compliance(&format!("volumes[{i}]"), volume)?;
        if !seen.insert(volume.volume) {
            let field = format!("volumes[{i}].volume_id");
            return Err(FieldError::new(field, "is listed before"));
        }
        volumes.push(volume);
    }
    Ok(volumes)
}
