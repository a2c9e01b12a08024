//! Disclosure: leave to open one key, for which the audit record is committed first.

use std::sync::Arc;

use super::access::Permitted;
use super::audit::Facts;
use super::{Batch, Context, Ruled, Stop};
use crate::domain::{AuditAction, AuditOutcome, DeviceId, Right, Role, Timestamp, limits};
use crate::state::query::{corrupt, groups_from, key_record};
use crate::state::records::{Device, KeyRecord, KeyRef, Quota, Remembered, RequestRecord, keys};
use crate::state::{Accepted, Disclose, Rejection, Store, StoreError, Table, codec};

impl<S: Store> Batch<'_, S> {
    /// The help desk asks for a key. Grants are asked for at a repeat, too: a role that was taken away opens nothing.
    pub(super) fn disclose(
        &mut self,
        context: &Context<'_>,
        disclose: &Disclose,
    ) -> Ruled<Accepted> {
        let permitted = self.permitted(context, Right::DiscloseKeys)?;
        if disclose.user.is_none() && permitted.grants.reach_of(Role::AdvancedHelpDesk).is_none() {
            return Err(Rejection::UserRequired.into());
        }
        // Here and not only on the nodes: what comes after a seal in the log is opened nowhere, not even by a node that
        // has not yet heard of it.
        if self.heads.sealed {
            return Err(Rejection::Sealed.into());
        }
        if let Some(request) = self.recall(context)? {
            return self.disclose_again(context, disclose, &request, &permitted);
        }
        let at = KeyRef { protector: disclose.protector, version: disclose.version };
        let (mut key, mut device) = self.key(&permitted, disclose, at)?;
        let quota = self.charge(context)?;
        self.txn.put(
            Table::Quotas,
            &keys::quota(&context.command.actor),
            codec::encode_quota(quota),
        )?;
        key.disclosed_at = Some(self.heads.time);
        if key.is_newest(&device) {
            let mut changed = self.take_device(device);
            if let Some(volume) = changed.volume_mut(key.volume) {
                volume.rotation_due = true;
            }
            device = self.put_device(changed);
        } else {
            key.disclosed_superseded = true;
        }
        self.txn.put(Table::Keys, &keys::key(key.at), codec::encode_key(&key))?;
        self.record(context, AuditAction::Disclose, AuditOutcome::Ok, facts(&key, disclose));
        self.remember(context, Remembered::Key(key.at))?;
        Ok(Accepted::Disclosed { key: key.summary(&device), repeated: false })
    }

    /// A retry within [`limits::DISCLOSURE_REPEAT_MS`] is answered again with the version that was answered first. It
    /// leaves a record of its own and changes nothing else.
    fn disclose_again(
        &mut self,
        context: &Context<'_>,
        disclose: &Disclose,
        request: &RequestRecord,
        permitted: &Permitted,
    ) -> Ruled<Accepted> {
        let age = self.heads.time.as_millis().saturating_sub(request.time.as_millis());
        if age > limits::DISCLOSURE_REPEAT_MS {
            return Err(Rejection::RepeatTooLate.into());
        }
        let Remembered::Key(at) = request.answer else {
            let what = "a remembered disclosure names no key".to_owned();
            return Err(StoreError::Corrupt { table: Table::Requests, what }.into());
        };
        let (key, device) = self.key(permitted, disclose, at)?;
        self.record(context, AuditAction::Disclose, AuditOutcome::Repeated, facts(&key, disclose));
        Ok(Accepted::Disclosed { key: key.summary(&device), repeated: true })
    }

    /// A key that may be disclosed, and its device.
    fn key(
        &mut self,
        permitted: &Permitted,
        disclose: &Disclose,
        at: KeyRef,
    ) -> Ruled<(KeyRecord, Arc<Device>)> {
        let Some(key) = key_record(&self.txn, at.protector, at.version)? else {
            let limited = permitted.reach.is_limited();
            let why = if limited { Rejection::OutsideGroups } else { Rejection::UnknownKey };
            return Err(why.into());
        };
        self.check_reach(permitted, key.device)?;
        self.check_user(permitted, disclose, key.device)?;
        let device = self.device(key.device)?.ok_or_else(|| {
            let what = format!("device {} of a key is missing", key.device);
            Stop::Fault(StoreError::Corrupt { table: Table::Devices, what })
        })?;
        Ok((key, device))
    }

    /// MBAM's rule: help-desk names the user, advanced help-desk need not, and advanced wins for one who is both. Where advanced
    /// does not reach the device it does not count.
    fn check_user(
        &self,
        permitted: &Permitted,
        disclose: &Disclose,
        device: DeviceId,
    ) -> Ruled<()> {
        let Some(advanced) = permitted.grants.reach_of(Role::AdvancedHelpDesk) else {
            return Ok(());
        };
        let named = disclose.user.is_some() || !advanced.is_limited();
        if !named && !advanced.covers(&groups_from(&self.txn, device)?) {
            return Err(Rejection::UserRequired.into());
        }
        Ok(())
    }

    /// The requester's quota with one more disclosure. A window begins with the first disclosure after the end of the last.
    fn charge(&mut self, context: &Context<'_>) -> Ruled<Quota> {
        let value = self.txn.get(Table::Quotas, &keys::quota(&context.command.actor))?;
        let quota = value.map(|value| codec::decode_quota(&value));
        let quota = quota.transpose().map_err(corrupt(Table::Quotas))?;
        let now = self.heads.time;
        let fresh = Quota { window_start: now, used: 0 };
        let quota = quota.filter(|quota| now < window_end(quota)).unwrap_or(fresh);
        let limit = limits::QUOTA_DISCLOSURES;
        if quota.used >= limit {
            return Err(Rejection::QuotaExceeded { limit, until: window_end(&quota) }.into());
        }
        Ok(Quota { used: quota.used + 1, ..quota })
    }
}

const fn window_end(quota: &Quota) -> Timestamp {
    let start = quota.window_start.as_millis();
    Timestamp::from_millis(start.saturating_add(limits::QUOTA_WINDOW_MS))
}

fn facts(key: &KeyRecord, disclose: &Disclose) -> Facts {
    Facts {
        device: Some(key.device),
        volume: Some(key.volume),
        protector: Some(key.at.protector),
        version: key.at.version,
        reason: Some(disclose.reason.clone()),
        user: disclose.user.clone(),
        ticket: disclose.ticket.clone(),
        ..Facts::default()
    }
}
