//! Devices and their groups, of `holdfast.v1.AdminService`: from and to messages.

use holdfast_proto::v1;
use tonic::Request;

use crate::auth::Action;
use crate::domain::{DeviceId, FieldError, GroupName, OperatorName, Reach, RequestId, Role};
use crate::service::{Consensus, Granted, KnownDevice, ServiceError, Staleness};
use crate::state::Volume;

use super::admin::{AdminApi, decode_grant};
use super::page::{Budget, start_of, token_after};
use super::{decode, encode};

impl<C: Consensus> AdminApi<C> {
    pub(super) async fn add_to_group(
        &self,
        request: Request<v1::AddDeviceToGroupRequest>,
    ) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, device, group) = decode_add(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::AddDeviceToGroup)?;
        self.service.add_to_group(&permit, id, device, group).await
    }

    pub(super) async fn remove_from_group(
        &self,
        request: Request<v1::RemoveDeviceFromGroupRequest>,
    ) -> Result<Granted, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let (id, device, group) = decode_remove(request.into_inner())?;
        let permit = self.gate.permit(&caller, Action::RemoveDeviceFromGroup)?;
        self.service.remove_from_group(&permit, id, device, group).await
    }

    pub(super) async fn groups(
        &self,
        request: Request<v1::ListDeviceGroupsRequest>,
    ) -> Result<v1::ListDeviceGroupsResponse, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let device = decode::id("device_id", &request.into_inner().device_id)?;
        let permit = self.gate.permit(&caller, Action::ListDeviceGroups)?;
        let groups = self.service.device_groups(&permit, device).await?;
        Ok(v1::ListDeviceGroupsResponse { groups: names(&groups) })
    }

    pub(super) async fn device(
        &self,
        request: Request<v1::GetDeviceRequest>,
    ) -> Result<v1::GetDeviceResponse, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let device = decode::id("device_id", &request.device_id)?;
        let staleness = Staleness::of_read(request.stale);
        let permit = self.gate.permit_read(&caller, Action::GetDevice, staleness)?;
        let (device, read) = self.service.device(&permit, device, request.stale).await?;
        Ok(v1::GetDeviceResponse {
            device: Some(encode_device(&device)),
            applied_index: read.applied_index,
            age_ms: encode::age_ms(read.age),
        })
    }

    pub(super) async fn devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<v1::ListDevicesResponse, ServiceError> {
        let caller = self.gate.caller(&request)?;
        let request = request.into_inner();
        let size = decode::page_size(request.page_size)?;
        let from = start_of(&request.page_token)?;
        let group = decode::optional_id("group", &request.group)?;
        let staleness = Staleness::of_read(request.stale);
        let permit = self.gate.permit_read(&caller, Action::ListDevices, staleness)?;
        // One more than wanted shows whether a page follows.
        let wanted = (from, size.saturating_add(1));
        let found = self.service.devices(&permit, wanted, group, request.stale).await?;
        let mut budget = Budget::default();
        let devices: Vec<_> = found
            .devices
            .iter()
            .take(size)
            .map(encode_device)
            .take_while(|device| budget.takes(device))
            .collect();
        let last = devices.len().checked_sub(1).and_then(|last| found.devices.get(last));
        let more = devices.len() < found.devices.len();
        let last = if more { last.map(|known| known.device.id) } else { found.looked_to };
        Ok(v1::ListDevicesResponse {
            next_page_token: last.map(token_after).unwrap_or_default(),
            devices,
            applied_index: found.read.applied_index,
            age_ms: encode::age_ms(found.read.age),
        })
    }
}

pub(super) fn decode_grant_role(
    request: v1::GrantRoleRequest,
) -> Result<(RequestId, OperatorName, Role, Reach), FieldError> {
    let v1::GrantRoleRequest { request_id, operator, role, groups } = request;
    let (id, operator, role) = decode_grant(&request_id, &operator, role)?;
    let reach = decode::reach("groups", &groups, role)?;
    Ok((id, operator, role, reach))
}

pub(super) fn decode_add(
    request: v1::AddDeviceToGroupRequest,
) -> Result<(RequestId, DeviceId, GroupName), FieldError> {
    decode_change(&request.request_id, &request.device_id, &request.group)
}

pub(super) fn decode_remove(
    request: v1::RemoveDeviceFromGroupRequest,
) -> Result<(RequestId, DeviceId, GroupName), FieldError> {
    decode_change(&request.request_id, &request.device_id, &request.group)
}

fn decode_change(
    request_id: &str,
    device: &str,
    group: &str,
) -> Result<(RequestId, DeviceId, GroupName), FieldError> {
    Ok((
        decode::request_id(request_id)?,
        decode::id("device_id", device)?,
        decode::id("group", group)?,
    ))
}

/// Names of groups, in their order.
pub(super) fn names<'a>(groups: impl IntoIterator<Item = &'a GroupName>) -> Vec<String> {
    groups.into_iter().map(ToString::to_string).collect()
}

fn encode_device(known: &KnownDevice) -> v1::Device {
    let KnownDevice { device, groups } = known;
    v1::Device {
        device_id: device.id.to_string(),
        host_name: device.host_name.to_string(),
        operating_system: device.operating_system.to_string(),
        manufacturer: device.manufacturer.to_string(),
        model: device.model.to_string(),
        users: encode::users(&device.users),
        volumes: device.volumes.iter().map(encode_volume).collect(),
        first_seen_ms: device.first_seen.as_millis(),
        last_contact_ms: device.last_contact.as_millis(),
        groups: names(groups),
    }
}

fn encode_volume(volume: &Volume) -> v1::Volume {
    let state = volume.key_state().map(encode::key_state).unwrap_or_default();
    v1::Volume {
        volume_id: volume.id.to_string(),
        volume_kind: encode::volume_kind(volume.kind).into(),
        key_version: volume.key_version().get(),
        protector_id: volume.key.map(|key| key.protector.to_string()).unwrap_or_default(),
        key_state: state.into(),
        compliance: volume.compliance.as_ref().map(|(report, _)| encode::compliance(report)),
        reported_at_ms: encode::millis(volume.compliance.as_ref().map(|(_, at)| *at)),
    }
}
