//! Disclosure: leave to open one key, for which the audit record is committed first.

use std::sync::Arc;

use super::access::Permitted;
use super::audit::{Facts, words};
use super::quota::Charge;
use super::{Batch, Context, Ruled, Stop};
use crate::domain::{AuditAction, AuditOutcome, DeviceId, Right, Role, User, limits};
use crate::state::query::{groups_from, key_record};
use crate::state::records::{Approval, Device, KeyRecord, KeyRef, Remembered, RequestRecord, keys};
use crate::state::{Accepted, Disclose, Rejection, Store, StoreError, Table, codec};

/// By what a key may be disclosed.
enum Clearance {
    /// By the approval of another person, which is used up.
    Approval(Box<Approval>),
    /// By a mass recovery.
    Lifted,
    /// By the quotas.
    Quota(Charge),
}

impl<S: Store> Batch<'_, S> {
    /// The help desk asks for a key. Grants are asked for at a repeat, too: a role that was taken away opens nothing.
    pub(super) fn disclose(
        &mut self,
        context: &Context<'_>,
        disclose: &Disclose,
    ) -> Ruled<Accepted> {
        let permitted = self.permitted(context, Right::DiscloseKeys)?;
        let user = disclose.user.as_ref();
        check_named(&permitted, user)?;
        // Here and not only on the nodes: what comes after a seal in the log is opened nowhere, not even by a node that
        // has not yet heard of it.
        if self.heads.sealed {
            return Err(Rejection::Sealed.into());
        }
        if let Some(request) = self.recall(context)? {
            return self.disclose_again(context, disclose, &request, &permitted);
        }
        let at = KeyRef { protector: disclose.protector, version: disclose.version };
        let (mut key, mut device) = self.key(&permitted, user, at)?;
        let clearance = self.clearance(context, disclose, &key)?;
        let facts = Facts { detail: words(self.said(&clearance)), ..facts(&key, disclose) };
        match clearance {
            Clearance::Approval(used) => self.put_approval(&used)?,
            Clearance::Lifted => {}
            Clearance::Quota(charge) => self.write_charge(context, charge)?,
        }
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
        self.record(context, AuditAction::Disclose, AuditOutcome::Ok, facts);
        self.remember(context, Remembered::Key(key.at))?;
        Ok(Accepted::Disclosed { key: key.summary(&device), repeated: false })
    }

    /// By what a key may be disclosed. An approval is enough for both, dual control and used-up quotas, and counts for none of
    /// them; a mass recovery lifts the quotas alone.
    fn clearance(
        &mut self,
        context: &Context<'_>,
        disclose: &Disclose,
        key: &KeyRecord,
    ) -> Ruled<Clearance> {
        if let Some(id) = disclose.approval {
            return self.use_approval(context, id, key.at).map(Box::new).map(Clearance::Approval);
        }
        if self.is_marked(key.device)? {
            return Err(Rejection::ApprovalRequired.into());
        }
        match self.lifted() {
            Some(_) => Ok(Clearance::Lifted),
            None => self.charge(context).map(Clearance::Quota),
        }
    }

    /// What the record of a disclosure says of that.
    fn said(&self, clearance: &Clearance) -> String {
        let mut said = Vec::new();
        if let Clearance::Approval(approval) = clearance {
            let by = approval.decision.as_ref().map(|decision| decision.by.to_string());
            said.push(format!("approval {} by {}", approval.id, by.unwrap_or_default()));
        }
        said.extend(self.lifted().map(|number| format!("mass recovery {number}")));
        said.join(", ")
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
        let (key, device) = self.key(permitted, disclose.user.as_ref(), at)?;
        let mut said: Vec<_> =
            disclose.approval.map(|id| format!("approval {id}")).into_iter().collect();
        said.extend(self.lifted().map(|number| format!("mass recovery {number}")));
        let facts = Facts { detail: words(said.join(", ")), ..facts(&key, disclose) };
        self.record(context, AuditAction::Disclose, AuditOutcome::Repeated, facts);
        Ok(Accepted::Disclosed { key: key.summary(&device), repeated: true })
    }

    /// A key that may be disclosed, and its device.
    pub(super) fn key(
        &mut self,
        permitted: &Permitted,
        user: Option<&User>,
        at: KeyRef,
    ) -> Ruled<(KeyRecord, Arc<Device>)> {
        let Some(key) = key_record(&self.txn, at.protector, at.version)? else {
            let limited = permitted.reach.is_limited();
            let why = if limited { Rejection::OutsideGroups } else { Rejection::UnknownKey };
            return Err(why.into());
        };
        self.check_reach(permitted, key.device)?;
        self.check_user(permitted, user, key.device)?;
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
        user: Option<&User>,
        device: DeviceId,
    ) -> Ruled<()> {
        let Some(advanced) = permitted.grants.reach_of(Role::AdvancedHelpDesk) else {
            return Ok(());
        };
        let named = user.is_some() || !advanced.is_limited();
        if !named && !advanced.covers(&groups_from(&self.txn, device)?) {
            return Err(Rejection::UserRequired.into());
        }
        Ok(())
    }
}

/// The same before it is known which device is meant.
pub(super) fn check_named(permitted: &Permitted, user: Option<&User>) -> Ruled<()> {
    if user.is_none() && permitted.grants.reach_of(Role::AdvancedHelpDesk).is_none() {
        return Err(Rejection::UserRequired.into());
    }
    Ok(())
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
