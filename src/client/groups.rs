//! Devices, and the groups that they are in.

use holdfast_proto::v1;
use holdfast_proto::v1::admin_service_client::AdminServiceClient;

use super::error::ClientError;
use super::{Client, new_request_id};
use crate::domain::{DeviceId, GroupName};

impl Client {
    /// Puts a device into a group. Answers whether it was not in it before.
    ///
    /// # Errors
    /// If the caller is no administrator, the device is in too many groups, or no server answers.
    pub async fn add_to_group(
        &self,
        device: DeviceId,
        group: &GroupName,
    ) -> Result<bool, ClientError> {
        let message = v1::AddDeviceToGroupRequest {
            request_id: new_request_id(),
            device_id: device.to_string(),
            group: group.to_string(),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                AdminServiceClient::new(channel).add_device_to_group(request).await
            })
            .await?;
        Ok(answer.changed)
    }

    /// Takes a device out of a group. Answers whether it was in it.
    ///
    /// # Errors
    /// If the caller is no administrator, or no server answers.
    pub async fn remove_from_group(
        &self,
        device: DeviceId,
        group: &GroupName,
    ) -> Result<bool, ClientError> {
        let message = v1::RemoveDeviceFromGroupRequest {
            request_id: new_request_id(),
            device_id: device.to_string(),
            group: group.to_string(),
        };
        let answer = self
            .call(&message, |channel, request| async move {
                AdminServiceClient::new(channel).remove_device_from_group(request).await
            })
            .await?;
        Ok(answer.changed)
    }

    /// The groups of a device, ascending.
    ///
    /// # Errors
    /// If the caller may not read them, or no server answers.
    pub async fn device_groups(&self, device: DeviceId) -> Result<Vec<String>, ClientError> {
        let message = v1::ListDeviceGroupsRequest { device_id: device.to_string() };
        let answer = self
            .call(&message, |channel, request| async move {
                AdminServiceClient::new(channel).list_device_groups(request).await
            })
            .await?;
        Ok(answer.groups)
    }

    /// A device and its volumes. `stale` serves what the called node has, without asking the cluster.
    ///
    /// # Errors
    /// If there is no such device, the caller may not read it, or no server answers.
    pub async fn device(
        &self,
        device: DeviceId,
        stale: bool,
    ) -> Result<v1::GetDeviceResponse, ClientError> {
        let message = v1::GetDeviceRequest { device_id: device.to_string(), stale };
        self.call(&message, |channel, request| async move {
            AdminServiceClient::new(channel).get_device(request).await
        })
        .await
    }

    /// A page of devices that the caller's grants reach. `page_token` is empty for the first page.
    ///
    /// # Errors
    /// If the caller may not read them, or no server answers.
    pub async fn devices(
        &self,
        page_size: u32,
        page_token: &str,
        stale: bool,
    ) -> Result<v1::ListDevicesResponse, ClientError> {
        self.devices_page(v1::ListDevicesRequest {
            page_size,
            page_token: page_token.to_owned(),
            stale,
            group: String::new(),
        })
        .await
    }

    /// A page of devices, as the message asks for it: it may be limited to a group.
    ///
    /// # Errors
    /// If the caller may not read them, or no server answers.
    pub async fn devices_page(
        &self,
        message: v1::ListDevicesRequest,
    ) -> Result<v1::ListDevicesResponse, ClientError> {
        self.call(&message, |channel, request| async move {
            AdminServiceClient::new(channel).list_devices(request).await
        })
        .await
    }
}
