//! Enrolment, naively.

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::state::tests) struct ModelToken {
    pub(in crate::state::tests) id: TokenId,
    pub(in crate::state::tests) digest: [u8; 32],
    pub(in crate::state::tests) binding: TokenBinding,
    pub(in crate::state::tests) used: u32,
    pub(in crate::state::tests) end: u64,
    pub(in crate::state::tests) revoked: bool,
}

#[derive(Debug, Clone)]
pub(in crate::state::tests) struct ModelEnrolment {
    pub(in crate::state::tests) certificate: DeviceCertificate,
    pub(in crate::state::tests) token: Option<TokenId>,
    pub(in crate::state::tests) times: u32,
    request: RequestId,
}

impl Model {
    fn administrator(&self, command: &Command, action: AuditAction) -> Result<(), Rejection> {
        self.need(command, &[Role::Administrator], action)
    }

    pub(super) fn create_agent_ca(
        &mut self,
        position: Position,
        command: &Command,
        new: &NewAgentCa,
    ) -> Outcome {
        let ca = &new.ca;
        let known = self.agent_cas.iter().any(|known| known.number == ca.number);
        if !matches!(self.seen(command), Seen::New) {
            return if known {
                Ok(Accepted::Granted { changed: false })
            } else {
                Err(Rejection::RequestIdReused)
            };
        }
        self.administrator(command, AuditAction::AgentCa)?;
        if self.sealed.is_some() {
            return Err(Rejection::Sealed);
        }
        let next = self.agent_cas.len() as u32 + 1;
        if ca.number != next || next > 16 {
            return Err(Rejection::AgentCaNumber(next));
        }
        self.agent_cas.push(ca.clone());
        self.log(position, command, "agent-ca", "ok", None, None);
        self.remember(command, None, true);
        Ok(Accepted::Granted { changed: true })
    }

    /// A repeated answer, or none if it is new and permitted.
    fn answered(
        &self,
        command: &Command,
        action: AuditAction,
    ) -> Result<Option<Accepted>, Rejection> {
        match self.seen(command) {
            Seen::Same(n) => {
                return Ok(Some(Accepted::Granted { changed: self.requests[n].changed }));
            }
            Seen::Other => {
                self.administrator(command, action)?;
                return Err(Rejection::RequestIdReused);
            }
            Seen::New => self.administrator(command, action)?,
        }
        Ok(None)
    }

    pub(super) fn issue_token(
        &mut self,
        position: Position,
        command: &Command,
        issue: &IssueToken,
    ) -> Outcome {
        if let Some(answer) = self.answered(command, AuditAction::TokenIssue)? {
            return Ok(answer);
        }
        if self.tokens.iter().any(|token| token.id == issue.id) {
            return Err(Rejection::TokenExists);
        }
        self.tokens.push(ModelToken {
            id: issue.id,
            digest: issue.digest,
            binding: issue.binding.clone(),
            used: 0,
            end: self.time + issue.ttl_ms,
            revoked: false,
        });
        self.log(position, command, "token-issue", "ok", None, None);
        self.remember(command, None, true);
        Ok(Accepted::Granted { changed: true })
    }

    pub(super) fn revoke_token(
        &mut self,
        position: Position,
        command: &Command,
        id: TokenId,
    ) -> Outcome {
        if let Some(answer) = self.answered(command, AuditAction::TokenRevoke)? {
            return Ok(answer);
        }
        let token = self.tokens.iter_mut().find(|token| token.id == id);
        let token = token.ok_or(Rejection::UnknownToken)?;
        let changed = !token.revoked;
        token.revoked = true;
        self.log(position, command, "token-revoke", "ok", None, None);
        self.remember(command, None, changed);
        Ok(Accepted::Granted { changed })
    }

    fn repeated(
        &mut self,
        position: Position,
        command: &Command,
        known: &ModelEnrolment,
        action: &'static str,
    ) -> Outcome {
        self.log(position, command, action, "repeated", None, None);
        Ok(Accepted::Enrolled(Enrolled {
            certificate: known.certificate.der.clone(),
            not_after: known.certificate.not_after,
            agent_ca: known.certificate.agent_ca,
            again: known.times > 1,
            repeated: true,
        }))
    }

    pub(super) fn enrol(&mut self, position: Position, command: &Command, e: &Enrol) -> Outcome {
        if !matches!(command.actor, Actor::Node(_)) {
            let actor = command.actor.clone();
            return Err(Rejection::NotGranted { actor, action: AuditAction::Enrol });
        }
        let right = |token: &ModelToken| token.id == e.token && token.digest == e.token_digest;
        let place = self.tokens.iter().position(right).ok_or(Rejection::UnknownToken)?;
        let itself = Actor::Agent(e.device);
        if self.denied.contains_key(&DenialSubject::Identity(itself.clone())) {
            return Err(Rejection::CertificateDenied(itself));
        }
        let known = self.enrolments.get(&e.device).cloned();
        if let Some(known) = &known
            && known.token == Some(e.token)
            && known.request == command.request_id
            && known.certificate.public_key == e.certificate.public_key
        {
            return self.repeated(position, command, known, "enrol");
        }
        let token = &self.tokens[place];
        if matches!(token.binding, TokenBinding::Device(own) if own != e.device) {
            return Err(Rejection::TokenForeignDevice);
        }
        if token.revoked {
            return Err(Rejection::TokenRevoked);
        }
        if token.used == token.binding.count() {
            return Err(Rejection::TokenUsed);
        }
        if self.time > token.end {
            return Err(Rejection::TokenExpired(Timestamp::from_millis(token.end)));
        }
        self.must_have_signed(e.certificate.agent_ca)?;
        if let TokenBinding::Group { name, .. } = token.binding.clone() {
            self.room_for(e.device, &name)?;
            self.groups.entry(e.device).or_default().insert(name);
        }
        self.tokens[place].used += 1;
        let again = known.is_some();
        self.enrolled_again += u64::from(again);
        let enrolment = ModelEnrolment {
            certificate: e.certificate.clone(),
            token: Some(e.token),
            times: known.map_or(0, |known| known.times) + 1,
            request: command.request_id,
        };
        self.enrolments.insert(e.device, enrolment);
        let action = if again { "enrol-again" } else { "enrol" };
        self.log(position, command, action, "ok", None, None);
        Ok(got(&e.certificate, again))
    }

    pub(super) fn renew(&mut self, position: Position, command: &Command, r: &Renew) -> Outcome {
        match &command.actor {
            Actor::Agent(own) if *own == r.device => {}
            Actor::Agent(_) => return Err(Rejection::ForeignDevice),
            other => {
                let actor = other.clone();
                return Err(Rejection::NotGranted { actor, action: AuditAction::Renew });
            }
        }
        let known = self.enrolments.get(&r.device).cloned();
        if let Some(known) = &known
            && known.request == command.request_id
            && known.certificate.public_key == r.certificate.public_key
        {
            return self.repeated(position, command, known, "renew");
        }
        let begin = r.old_not_before.as_millis();
        let due = begin + (r.old_not_after.as_millis() - begin) / 3 * 2;
        if self.time < due {
            return Err(Rejection::RenewalTooEarly(Timestamp::from_millis(due)));
        }
        self.must_have_signed(r.certificate.agent_ca)?;
        let enrolment = ModelEnrolment {
            certificate: r.certificate.clone(),
            token: known.as_ref().and_then(|known| known.token),
            times: known.map_or(0, |known| known.times),
            request: command.request_id,
        };
        self.enrolments.insert(r.device, enrolment);
        self.log(position, command, "renew", "ok", None, None);
        Ok(got(&r.certificate, false))
    }

    fn must_have_signed(&self, number: u32) -> Result<(), Rejection> {
        let known = self.agent_cas.iter().any(|ca| ca.number == number);
        if known { Ok(()) } else { Err(Rejection::UnknownAgentCa(number)) }
    }
}

fn got(certificate: &DeviceCertificate, again: bool) -> Accepted {
    Accepted::Enrolled(Enrolled {
        certificate: certificate.der.clone(),
        not_after: certificate.not_after,
        agent_ca: certificate.agent_ca,
        again,
        repeated: false,
    })
}
