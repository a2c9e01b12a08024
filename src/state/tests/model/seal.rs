//! The seal, naively.

use super::*;

impl Model {
    pub(super) fn seal(&mut self, position: Position, c: &Command, reason: &Text) -> Outcome {
        if let Some(answer) = self.answered_to(c, &[Role::Administrator], AuditAction::Seal)? {
            return Ok(answer);
        }
        let changed = self.sealed.is_none();
        if changed {
            self.sealed = Some((c.actor.clone(), reason.clone()));
        }
        self.seals += 1;
        self.log(position, c, "seal", "ok", None, None);
        self.remember(c, None, changed);
        Ok(Accepted::Granted { changed })
    }

    pub(super) fn unseal(&mut self, position: Position, c: &Command, unseal: &Unseal) -> Outcome {
        let roles = match unseal.by {
            UnsealedBy::Order => [Role::Administrator].as_slice(),
            UnsealedBy::Shares { .. } => &[
                Role::HelpDesk,
                Role::AdvancedHelpDesk,
                Role::ReportReader,
                Role::Auditor,
                Role::Administrator,
            ],
        };
        if let Some(answer) = self.answered_to(c, roles, AuditAction::Unseal)? {
            return Ok(answer);
        }
        if unseal.seals != self.seals {
            return Err(Rejection::SealedAgain);
        }
        let changed = self.sealed.take().is_some();
        self.log(position, c, "unseal", "ok", None, None);
        self.remember(c, None, changed);
        Ok(Accepted::Granted { changed })
    }

    /// The answer to a repeated change; what is new has to be permitted.
    pub(super) fn answered_to(
        &self,
        command: &Command,
        roles: &[Role],
        action: AuditAction,
    ) -> Result<Option<Accepted>, Rejection> {
        match self.seen(command) {
            Seen::Same(n) => Ok(Some(Accepted::Granted { changed: self.requests[n].changed })),
            Seen::Other => {
                self.need(command, roles, action)?;
                Err(Rejection::RequestIdReused)
            }
            Seen::New => self.need(command, roles, action).map(|()| None),
        }
    }
}
