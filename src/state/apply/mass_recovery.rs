//! The policy of disclosures, and the days on which its quotas are lifted.
//!
//! One administrator sets the policy, within bounds. To lift the quotas takes two, for a bounded time. Dual control of marked
//! devices stays: there are few of them, they are what somebody would be after who hides in the crowd of such a day, and an
//! approval counts for no quota.

use super::{Batch, Context, Ruled};
use crate::domain::{AuditOutcome, Right, Timestamp, limits};
use crate::state::query::{mass_recovery_from, policy_from};
use crate::state::records::{MassRecovery, PolicyRecord, Remembered, keys};
use crate::state::{
    Accepted, ProposeMassRecovery, Rejection, SetDisclosurePolicy, Store, StoreError, Table, codec,
};

use super::audit::{Facts, action_of};

impl<S: Store> Batch<'_, S> {
    /// An administrator sets the policy. What was counted by the one before goes on to count.
    pub(super) fn set_policy(
        &mut self,
        context: &Context<'_>,
        set: &SetDisclosurePolicy,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeDisclosureControls)? {
            return Ok(accepted);
        }
        let old = policy_from(&self.txn)?;
        let revision = old.as_ref().map_or(0, |record| record.revision);
        if set.revision != revision {
            return Err(Rejection::PolicyChanged(revision).into());
        }
        let changed = old.is_none_or(|record| record.policy != set.policy);
        if changed {
            let record = PolicyRecord {
                revision: revision.saturating_add(1),
                policy: set.policy.clone(),
                set_by: context.command.actor.clone(),
                set_at: self.heads.time,
            };
            self.put_policy(&record)?;
        }
        self.finish_change(context, changed)
    }

    pub(super) fn put_policy(&mut self, record: &PolicyRecord) -> Result<(), StoreError> {
        self.txn.put(Table::Controls, &keys::POLICY.into(), codec::encode_policy(record))
    }

    /// Number of the mass recovery that lifts the quotas now, if any does.
    pub(super) fn lifted(&self) -> Option<u64> {
        (self.heads.time < self.heads.mass_recovery_until).then_some(self.heads.mass_recoveries)
    }

    /// An administrator proposes to lift the quotas. A proposal takes the place of an earlier one that nobody has confirmed.
    pub(super) fn propose_mass_recovery(
        &mut self,
        context: &Context<'_>,
        propose: &ProposeMassRecovery,
    ) -> Ruled<Accepted> {
        let recalled = self.recall(context);
        if !matches!(recalled, Ok(Some(_))) {
            self.permitted(context, Right::ChangeDisclosureControls)?;
        }
        if let Some(request) = recalled? {
            let Remembered::MassRecovery(number) = request.answer else {
                let what = "a remembered proposal has no number".to_owned();
                return Err(StoreError::Corrupt { table: Table::Requests, what }.into());
            };
            return Ok(Accepted::MassRecoveryProposed { number });
        }
        if self.lifted().is_some() {
            return Err(Rejection::MassRecoveryOn(self.heads.mass_recovery_until).into());
        }
        let number = self.heads.mass_recoveries.saturating_add(1);
        let longest = *limits::MASS_RECOVERY_MS.end();
        self.put_mass_recovery(&MassRecovery {
            number,
            duration_ms: propose.duration_ms.min(longest),
            reason: propose.reason.clone(),
            proposed_by: context.command.actor.clone(),
            proposed_at: self.heads.time,
            confirmed: None,
            ended: None,
        })?;
        self.heads.mass_recoveries = number;
        let body = &context.command.body;
        self.record(
            context,
            action_of(body),
            AuditOutcome::Ok,
            Facts::of_proposal(number, propose),
        );
        self.remember(context, Remembered::MassRecovery(number))?;
        Ok(Accepted::MassRecoveryProposed { number })
    }

    /// Another administrator confirms it: from now on no quota counts, for as long as was proposed.
    pub(super) fn confirm_mass_recovery(
        &mut self,
        context: &Context<'_>,
        number: u64,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeDisclosureControls)? {
            return Ok(accepted);
        }
        let proposal = self.mass_recovery(number)?;
        let actor = &context.command.actor;
        if proposal.proposed_by == *actor {
            return Err(Rejection::SecondPersonRequired.into());
        }
        let now = self.heads.time;
        let waited = now.as_millis().saturating_sub(proposal.proposed_at.as_millis());
        if proposal.confirmed.is_some() || waited >= limits::MASS_RECOVERY_PROPOSAL_MS {
            return Err(Rejection::NoMassRecovery.into());
        }
        let recovery = MassRecovery { confirmed: Some((actor.clone(), now)), ..proposal };
        self.heads.mass_recovery_until = recovery.until().unwrap_or_default();
        self.put_mass_recovery(&recovery)?;
        self.finish_change(context, true)
    }

    /// Any administrator ends it, or takes the proposal back.
    pub(super) fn end_mass_recovery(
        &mut self,
        context: &Context<'_>,
        number: u64,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeDisclosureControls)? {
            return Ok(accepted);
        }
        let recovery = self.mass_recovery(number)?;
        if recovery.until().is_some_and(|until| until <= self.heads.time) {
            return Err(Rejection::NoMassRecovery.into());
        }
        let ended = Some((context.command.actor.clone(), self.heads.time));
        self.put_mass_recovery(&MassRecovery { ended, ..recovery })?;
        self.heads.mass_recovery_until = Timestamp::default();
        self.finish_change(context, true)
    }

    /// The last one, if it is this and nobody has ended it.
    fn mass_recovery(&self, number: u64) -> Ruled<MassRecovery> {
        let last = mass_recovery_from(&self.txn)?;
        let named = last.filter(|last| last.number == number && last.ended.is_none());
        Ok(named.ok_or(Rejection::NoMassRecovery)?)
    }

    fn put_mass_recovery(&mut self, recovery: &MassRecovery) -> Result<(), StoreError> {
        let value = codec::encode_mass_recovery(recovery);
        self.txn.put(Table::Controls, &keys::MASS_RECOVERY.into(), value)
    }
}
