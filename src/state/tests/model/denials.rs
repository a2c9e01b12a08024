//! The deny-list, naively.

use super::*;

impl Model {
    fn is_denied(&self, actor: &Actor, certificate: Option<Fingerprint>) -> bool {
        self.denied.keys().any(|subject| match subject {
            DenialSubject::Identity(denied) => denied == actor,
            DenialSubject::Certificate(denied) => Some(*denied) == certificate,
        })
    }

    /// Whether anybody but one may administer by these grants, and is not denied.
    pub(super) fn administers(
        &self,
        grants: &BTreeMap<(String, Role), Reach>,
        but: Option<&str>,
    ) -> bool {
        grants.keys().any(|(name, role)| {
            *role == Role::Administrator
                && Some(name.as_str()) != but
                && !self.is_denied(&Actor::Operator(name.parse().unwrap()), None)
        })
    }

    pub(super) fn refuse_denied(&self, command: &Command) -> Result<(), Rejection> {
        let again = matches!(command.body, CommandBody::Deny { .. })
            && matches!(self.seen(command), Seen::Same(_));
        if !again && self.is_denied(&command.actor, command.certificate) {
            return Err(Rejection::CertificateDenied(command.actor.clone()));
        }
        Ok(())
    }

    /// Denies for a reason, or allows.
    pub(super) fn deny(
        &mut self,
        position: Position,
        command: &Command,
        subject: &DenialSubject,
        reason: Option<&Text>,
    ) -> Outcome {
        let (action, what) = match reason {
            Some(_) => (AuditAction::Deny, "deny"),
            None => (AuditAction::Allow, "allow"),
        };
        match self.seen(command) {
            Seen::Same(n) => return Ok(Accepted::Granted { changed: self.requests[n].changed }),
            Seen::Other => {
                self.need(command, &[Role::Administrator], action)?;
                return Err(Rejection::RequestIdReused);
            }
            Seen::New => self.need(command, &[Role::Administrator], action)?,
        }
        let known = self.denied.contains_key(subject);
        let changed = known != reason.is_some();
        if changed && let Some(reason) = reason {
            self.may_be_denied(command, subject)?;
            self.denied.insert(subject.clone(), reason.clone());
        } else if changed {
            self.denied.remove(subject);
        }
        self.log(position, command, what, "ok", None, None);
        self.remember(command, None, changed);
        Ok(Accepted::Granted { changed })
    }

    fn may_be_denied(&self, command: &Command, subject: &DenialSubject) -> Result<(), Rejection> {
        let alone = |name: &OperatorName| !self.administers(&self.grants, Some(name.as_str()));
        match (subject, &command.actor) {
            (DenialSubject::Identity(Actor::Operator(name)), _) if alone(name) => {
                Err(Rejection::LastAdministrator)
            }
            (DenialSubject::Certificate(own), Actor::Operator(name))
                if command.certificate == Some(*own) && alone(name) =>
            {
                Err(Rejection::LastAdministrator)
            }
            (DenialSubject::Identity(Actor::Node(node)), _) if self.members.contains(node) => {
                let mut others = self.members.iter().filter(|member| *member != node);
                let denied = others.any(|member| self.is_denied(&Actor::Node(*member), None));
                if denied || self.members.len() < 3 {
                    return Err(Rejection::TooManyNodesDenied);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
