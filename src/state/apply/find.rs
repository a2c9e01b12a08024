//! Searches of the help desk. They read only, but each leaves an audit record.

use super::access::Permitted;
use super::audit::Facts;
use super::{Batch, Context, Ruled};
use crate::domain::{AuditAction, AuditOutcome, DeviceId, Right, VolumeId, limits::REPLY_KEYS};
use crate::state::query::{device_from, summaries_by_prefix, summaries_of_volumes};
use crate::state::records::{Device, Remembered};
use crate::state::{Accepted, FindQuery, KeySummary, Rejection, Store};

impl<S: Store> Batch<'_, S> {
    /// The help desk searches. A repeat searches again, and leaves a record of its own. Digits find what the actor's grants
    /// reach; a device that they don't reach is refused.
    pub(super) fn find(&mut self, context: &Context<'_>, query: &FindQuery) -> Ruled<Accepted> {
        let permitted = self.permitted(context, Right::FindKeys)?;
        let repeated = self.recall(context)?.is_some();
        let (keys, truncated) = self.search(&permitted, query)?;
        let outcome = if repeated { AuditOutcome::Repeated } else { AuditOutcome::Ok };
        let facts = Facts::of_body(&context.command.body);
        self.record(context, AuditAction::Find, outcome, facts);
        if !repeated {
            self.remember(context, Remembered::Body)?;
        }
        Ok(Accepted::Found { keys, truncated })
    }

    fn search(&self, permitted: &Permitted, query: &FindQuery) -> Ruled<(Vec<KeySummary>, bool)> {
        if let FindQuery::Device(device) | FindQuery::Volume(device, _) = query {
            self.check_reach(permitted, *device)?;
        }
        let reach = &permitted.reach;
        let found = match query {
            FindQuery::Prefix(prefix) => {
                summaries_by_prefix(&self.txn, prefix.as_bytes(), REPLY_KEYS, reach)?
            }
            FindQuery::Protector(protector) => {
                summaries_by_prefix(&self.txn, protector.as_bytes(), REPLY_KEYS, reach)?
            }
            FindQuery::Device(device) => {
                summaries_of_volumes(&self.txn, &self.known(*device)?, |_| true, REPLY_KEYS)?
            }
            FindQuery::Volume(device, volume) => self.search_volume(*device, *volume)?,
        };
        Ok(found)
    }

    fn search_volume(&self, device: DeviceId, volume: VolumeId) -> Ruled<(Vec<KeySummary>, bool)> {
        let device = self.known(device)?;
        if device.volume(volume).is_none() {
            return Err(Rejection::UnknownVolume.into());
        }
        Ok(summaries_of_volumes(&self.txn, &device, |id| id == volume, REPLY_KEYS)?)
    }

    fn known(&self, device: DeviceId) -> Ruled<Device> {
        Ok(device_from(&self.txn, device)?.ok_or(Rejection::UnknownDevice)?)
    }
}
