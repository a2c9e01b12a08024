//! Grants, and what is done by leave of them: notes of administrators and auditors, refusals of nodes.

use super::audit::{Facts, action_of};
use super::{Batch, Context, Ruled};
use crate::domain::{Actor, AuditAction, AuditOutcome, Grants, OperatorName, Reach, Right, Role};
use crate::planted::{self, Plant};
use crate::state::query::{corrupt, granted_from, grants_from};
use crate::state::records::{Grant, Remembered};
use crate::state::txn::Txn;
use crate::state::{Accepted, RefusalCount, Rejection, Store, StoreError, Table, codec};

/// Writes a grant.
pub(super) fn put_grant<S: Store>(txn: &mut Txn<'_, S>, grant: &Grant) -> Result<(), StoreError> {
    let key = codec::grant_key(&grant.operator, grant.role);
    txn.put(Table::Grants, &key, codec::encode_grant(grant))
}

/// What an actor is granted, if it has a right by that.
pub(super) struct Permitted {
    /// All of it.
    pub(super) grants: Grants,
    /// For which devices it has the right.
    pub(super) reach: Reach,
}

impl<S: Store> Batch<'_, S> {
    /// The actor's grants, of which at least one has the right. Where that is about a device, its reach has to be looked at
    /// too: [`Batch::check_reach`].
    pub(super) fn permitted(&self, context: &Context<'_>, right: Right) -> Ruled<Permitted> {
        let actor = &context.command.actor;
        let grants = match actor {
            Actor::Operator(operator) => granted_from(&self.txn, operator)?,
            // Their provider says so, and the node that checked the token. Of groups of devices it says nothing.
            Actor::Oidc(_) => {
                context.command.roles.iter().map(|role| (*role, Reach::ALL)).collect()
            }
            Actor::Agent(_) | Actor::Node(_) => Grants::default(),
        };
        if let Some(reach) = grants.reach(right) {
            return Ok(Permitted { grants, reach });
        }
        if planted::is(Plant::RolesUnchecked) {
            return Ok(Permitted { grants, reach: Reach::ALL });
        }
        let action = action_of(&context.command.body);
        Err(Rejection::NotGranted { actor: actor.clone(), action }.into())
    }

    /// An administrator grants a role, or changes for which devices it is granted. Granting what is granted changes nothing,
    /// not even who granted it.
    pub(super) fn grant(
        &mut self,
        context: &Context<'_>,
        operator: &OperatorName,
        role: Role,
        reach: &Reach,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeGrants)? {
            return Ok(accepted);
        }
        let key = codec::grant_key(operator, role);
        let known = self.txn.get(Table::Grants, &key)?;
        let known = known.map(|value| codec::decode_grant(&key, &value)).transpose();
        let known = known.map_err(corrupt(Table::Grants))?;
        let changed = known.is_none_or(|known| known.reach != *reach);
        if changed {
            let grant = Grant {
                operator: operator.clone(),
                role,
                reach: reach.clone(),
                granted_by: context.command.actor.clone(),
                granted_at: self.heads.time,
            };
            put_grant(&mut self.txn, &grant)?;
        }
        self.finish_change(context, changed)
    }

    /// An administrator takes a role away, but not the last administrator's.
    pub(super) fn revoke(
        &mut self,
        context: &Context<'_>,
        operator: &OperatorName,
        role: Role,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeGrants)? {
            return Ok(accepted);
        }
        let key = codec::grant_key(operator, role);
        let changed = self.txn.get(Table::Grants, &key)?.is_some();
        if changed {
            let one_less = role == Role::Administrator;
            if one_less && !self.administrator_beside(operator)? {
                return Err(Rejection::LastAdministrator.into());
            }
            self.txn.remove(Table::Grants, &key)?;
        }
        self.finish_change(context, changed)
    }

    /// The answer to a repeated grant, revocation, denial or end of one; `None` if it is new and permitted. A repeat is answered whatever the
    /// actor may do by now: a node may have proposed it twice, and it may have taken the actor's own role away.
    pub(super) fn changed_before(
        &mut self,
        context: &Context<'_>,
        right: Right,
    ) -> Ruled<Option<Accepted>> {
        let recalled = self.recall(context);
        if !matches!(recalled, Ok(Some(_))) {
            self.permitted(context, right)?;
        }
        Ok(recalled?.map(|request| match request.answer {
            Remembered::GrantedChanged(changed) => Accepted::Granted { changed },
            Remembered::Body
            | Remembered::Key(_)
            | Remembered::Resealed(_)
            | Remembered::Approval(_)
            | Remembered::MassRecovery(_) => Accepted::Granted { changed: false },
        }))
    }

    pub(super) fn finish_change(
        &mut self,
        context: &Context<'_>,
        changed: bool,
    ) -> Ruled<Accepted> {
        let body = &context.command.body;
        self.record(context, action_of(body), AuditOutcome::Ok, Facts::of_body(body));
        self.remember(context, Remembered::GrantedChanged(changed))?;
        Ok(Accepted::Granted { changed })
    }

    /// Whether there is an administrator beside this one who is not denied.
    pub(super) fn administrator_beside(
        &mut self,
        operator: &OperatorName,
    ) -> Result<bool, StoreError> {
        for grant in grants_from(&self.txn)? {
            if grant.role == Role::Administrator
                && grant.operator != *operator
                && !self.is_denied(&Actor::Operator(grant.operator), None)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Somebody with the right to it is about to do something outside the state. A repeat leaves a record of its
    /// own, because it may be done again.
    pub(super) fn note(&mut self, context: &Context<'_>, right: Right) -> Ruled<Accepted> {
        self.permitted(context, right)?;
        let repeated = self.recall(context)?.is_some();
        let outcome = if repeated { AuditOutcome::Repeated } else { AuditOutcome::Ok };
        let body = &context.command.body;
        self.record(context, action_of(body), outcome, Facts::of_body(body));
        if !repeated {
            self.remember(context, Remembered::Body)?;
        }
        Ok(Accepted::Recorded)
    }

    /// A node reports what it refused. A repeat is not counted again.
    pub(super) fn refusals(
        &mut self,
        context: &Context<'_>,
        counts: &[RefusalCount],
    ) -> Ruled<Accepted> {
        let actor = &context.command.actor;
        if !matches!(actor, Actor::Node(_)) {
            let action = AuditAction::Refuse;
            return Err(Rejection::NotGranted { actor: actor.clone(), action }.into());
        }
        if self.recall(context)?.is_none() {
            for refusal in counts {
                self.record_refusal(context, refusal);
            }
            self.remember(context, Remembered::Body)?;
        }
        Ok(Accepted::Recorded)
    }
}
