//! The deny-list: who is on it can do nothing, whatever the node that proposed the command thought.

use super::{Batch, Context, Ruled};
use crate::domain::{Actor, DenialSubject, Fingerprint, NodeId, Right, Text, limits};
use crate::state::query::denied_by;
use crate::state::records::{Denial, keys};
use crate::state::{Accepted, CommandBody, Rejection, Store, StoreError, Table, codec};

/// Fewest members of a cluster of which one may be denied.
const MEMBERS_FOR_A_DENIAL: usize = 3;

impl<S: Store> Batch<'_, S> {
    /// Whether an actor, or the certificate that it came with, is denied at this place in the log.
    pub(super) fn is_denied(
        &self,
        actor: &Actor,
        certificate: Option<Fingerprint>,
    ) -> Result<bool, StoreError> {
        if self.heads.denials == 0 {
            return Ok(false);
        }
        Ok(denied_by(&self.txn, actor, certificate)?.is_some())
    }

    /// Refuses what a denied actor asks for. A denial that is repeated is answered all the same: a node may have proposed it
    /// twice, and it may have denied its own actor.
    pub(super) fn refuse_denied(&mut self, context: &Context<'_>) -> Ruled<()> {
        let command = context.command;
        if !self.is_denied(&command.actor, command.certificate)? {
            return Ok(());
        }
        if matches!(command.body, CommandBody::Deny { .. })
            && matches!(self.recall(context), Ok(Some(_)))
        {
            return Ok(());
        }
        Err(Rejection::CertificateDenied(command.actor.clone()).into())
    }

    /// An administrator denies an identity or a certificate. Denying what is denied changes nothing, not even the reason.
    pub(super) fn deny(
        &mut self,
        context: &Context<'_>,
        subject: &DenialSubject,
        reason: &Text,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeDenials)? {
            return Ok(accepted);
        }
        let key = keys::denial(subject);
        let changed = self.txn.get(Table::Denials, &key)?.is_none();
        if changed {
            self.check_denial(context, subject)?;
            let denial = Denial {
                subject: subject.clone(),
                denied_by: context.command.actor.clone(),
                denied_at: self.heads.time,
                reason: reason.clone(),
            };
            self.txn.put(Table::Denials, &key, codec::encode_denial(&denial))?;
            self.heads.denials += 1;
            self.heads.denial_changes += 1;
        }
        self.finish_change(context, changed)
    }

    /// An administrator takes an entry off the deny-list.
    pub(super) fn allow(
        &mut self,
        context: &Context<'_>,
        subject: &DenialSubject,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeDenials)? {
            return Ok(accepted);
        }
        let key = keys::denial(subject);
        let changed = self.txn.get(Table::Denials, &key)?.is_some();
        if changed {
            self.txn.remove(Table::Denials, &key)?;
            self.heads.denials = self.heads.denials.checked_sub(1).ok_or_else(|| {
                let what = "there are more denials than it counts".to_owned();
                StoreError::Corrupt { table: Table::Meta, what }
            })?;
            self.heads.denial_changes += 1;
        }
        self.finish_change(context, changed)
    }

    /// Whether somebody is left afterwards who can take the denial back: an administrator, and a quorum.
    fn check_denial(&mut self, context: &Context<'_>, subject: &DenialSubject) -> Ruled<()> {
        if self.heads.denials >= limits::DENIALS {
            return Err(Rejection::TooManyDenials(self.heads.denials).into());
        }
        let command = context.command;
        match subject {
            DenialSubject::Identity(Actor::Operator(operator)) => {
                if !self.administrator_beside(operator)? {
                    return Err(Rejection::LastAdministrator.into());
                }
            }
            DenialSubject::Identity(Actor::Node(node)) => self.check_quorum_left(*node)?,
            // Whoever is an administrator by the word of a provider is none to count on: the last one has a grant.
            DenialSubject::Identity(Actor::Agent(_) | Actor::Oidc(_)) => {}
            // Whose certificate it is can't be known but for the one at hand. The operator CA may issue another one, so
            // that it is not the end of an administrator; but not of the last one without a thought.
            DenialSubject::Certificate(denied) if command.certificate == Some(*denied) => {
                if let Actor::Operator(own) = &command.actor
                    && !self.administrator_beside(own)?
                {
                    return Err(Rejection::LastAdministrator.into());
                }
            }
            DenialSubject::Certificate(_) => {}
        }
        Ok(())
    }

    /// One member at a time, and only of three or more: the rest is a quorum then, with learners among them or not.
    fn check_quorum_left(&self, node: NodeId) -> Ruled<()> {
        if !self.heads.members.contains(&node) {
            return Ok(());
        }
        let mut denied = false;
        for other in self.heads.members.iter().filter(|other| **other != node) {
            denied |= self.is_denied(&Actor::Node(*other), None)?;
        }
        if denied || self.heads.members.len() < MEMBERS_FOR_A_DENIAL {
            return Err(Rejection::TooManyNodesDenied.into());
        }
        Ok(())
    }
}
