//! Compliance reports: the latest state of a device and of each of its volumes.

use super::{Batch, Context, Ruled, check_users, own_device};
use crate::domain::{Timestamp, VolumeCompliance, limits};
use crate::state::records::{Device, Remembered, Volume};
use crate::state::{Accepted, Rejection, ReportCompliance, Store};

impl<S: Store> Batch<'_, S> {
    /// A device reports. What it doesn't list keeps its last state; a volume listed twice keeps the last of the two. An
    /// accepted report leaves no audit record. A repeat changes nothing: an older report never undoes a newer one.
    pub(super) fn report(
        &mut self,
        context: &Context<'_>,
        report: &ReportCompliance,
    ) -> Ruled<Accepted> {
        own_device(context, report.device)?;
        let known = self.device(report.device)?;
        if self.recall(context)?.is_some() {
            let rotation_due = known.map(|device| device.rotation_due()).unwrap_or_default();
            return Ok(Accepted::Reported { rotation_due });
        }
        check_users(&report.users)?;
        // A copy, because the report may still be refused.
        let mut device = match known {
            Some(known) => Device::clone(&known),
            None => self.new_device(report.device),
        };
        let before = device.volumes.len();
        for volume in &report.volumes {
            update_volume(&mut device, volume, self.heads.time);
        }
        if device.volumes.len() > limits::DEVICE_VOLUMES {
            return Err(Rejection::TooManyVolumes(before).into());
        }
        device.host_name = report.host_name.clone();
        device.operating_system = report.operating_system.clone();
        device.manufacturer = report.manufacturer.clone();
        device.model = report.model.clone();
        device.users.clone_from(&report.users);
        device.last_contact = self.heads.time;
        let rotation_due = device.rotation_due();
        self.put_device(device);
        self.remember(context, Remembered::Body)?;
        Ok(Accepted::Reported { rotation_due })
    }
}

fn update_volume(device: &mut Device, report: &VolumeCompliance, now: Timestamp) {
    let volume = device.volume_or_insert(report.volume, || Volume {
        id: report.volume,
        kind: report.kind,
        key: None,
        rotation_due: false,
        compliance: None,
    });
    volume.kind = report.kind;
    volume.compliance = Some((report.clone(), now));
}
