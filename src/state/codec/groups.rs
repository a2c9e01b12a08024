//! Groups of devices: the commands that change them, and the records of their table.

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_proto::store::v1 as pb;

use super::common::id;
use super::{CodecError, decode, encode};
use crate::domain::{DeviceId, FieldError, GroupName, Reach, Role, limits};

pub(super) fn group_change_to(device: DeviceId, group: &GroupName) -> pb::GroupChange {
    pb::GroupChange { device_id: id(device.as_bytes()), group: group.to_string() }
}

pub(super) fn group_change_from(
    change: &pb::GroupChange,
) -> Result<(DeviceId, GroupName), CodecError> {
    Ok((DeviceId::from_slice(&change.device_id)?, change.group.parse()?))
}

pub(super) fn names_to<'a>(groups: impl IntoIterator<Item = &'a GroupName>) -> Vec<String> {
    groups.into_iter().map(ToString::to_string).collect()
}

pub(super) fn names_from(names: &[String]) -> Result<BTreeSet<GroupName>, FieldError> {
    names.iter().map(|name| name.parse()).collect()
}

/// What a grant of a role reaches; no names stand for all devices.
pub(super) fn reach_from(role: Role, names: &[String]) -> Result<Reach, CodecError> {
    let reach = Reach::of(names_from(names)?)?;
    reach.check(role)?;
    Ok(reach)
}

pub(in crate::state) fn encode_groups(groups: &BTreeSet<GroupName>) -> Bytes {
    encode(&pb::DeviceGroups { groups: names_to(groups) })
}

pub(in crate::state) fn decode_groups(value: &Bytes) -> Result<BTreeSet<GroupName>, CodecError> {
    let stored: pb::DeviceGroups = decode(value)?;
    if stored.groups.len() > limits::DEVICE_GROUPS {
        return Err(FieldError::new("groups", "are more than a device may be in").into());
    }
    Ok(names_from(&stored.groups)?)
}
