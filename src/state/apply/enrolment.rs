//! Enrolment: the CA of devices, one-time tokens, and which certificate a device got.
//!
//! A certificate is signed before its command is proposed, and handed out once that is applied: what no entry names is
//! good for nobody. So that a retry gets the certificate that counts, it is kept with the device and given again.

use super::audit::{Facts, words};
use super::groups::check_room;
use super::{Batch, Context, Ruled, own_device};
use crate::domain::{
    Actor, AuditAction, AuditOutcome, DeviceId, Fingerprint, Right, Timestamp, TokenBinding,
    TokenId, limits,
};
use crate::state::query::{
    SCAN_RECORDS, agent_ca_count, enrolment_from, groups_from, token_from, tokens_from,
};
use crate::state::records::{Enrolment, Token, keys};
use crate::state::{
    Accepted, DeviceCertificate, Enrol, Enrolled, IssueToken, NewAgentCa, Rejection, Renew, Store,
    StoreError, Table, codec,
};

impl<S: Store> Batch<'_, S> {
    /// An administrator makes the first CA of devices, or the next one.
    pub(super) fn create_agent_ca(
        &mut self,
        context: &Context<'_>,
        new: &NewAgentCa,
    ) -> Ruled<Accepted> {
        let ca = &new.ca;
        let count = agent_ca_count(&self.txn)?;
        if self.is_remembered(context) {
            // A retry has another key, so that its body differs: that the CA exists is what it has to know.
            if (1..=count).contains(&ca.number) {
                return Ok(Accepted::Granted { changed: false });
            }
            return Err(Rejection::RequestIdReused.into());
        }
        self.permitted(context, Right::ChangeEnrolment)?;
        if self.heads.sealed {
            return Err(Rejection::Sealed.into());
        }
        // Wrapped by another root key it would be a CA that nobody can open.
        if self.root_check()? != Some(new.root_check) {
            return Err(Rejection::KeyringChanged.into());
        }
        let next = count.saturating_add(1);
        if ca.number != next || next > limits::AGENT_CAS {
            return Err(Rejection::AgentCaNumber(next).into());
        }
        let value = codec::agent_ca_to_bytes(ca);
        self.txn.put(Table::Keyring, &keys::agent_ca(ca.number), value)?;
        self.finish_change(context, true)
    }

    /// An administrator issues a token.
    pub(super) fn issue_token(
        &mut self,
        context: &Context<'_>,
        issue: &IssueToken,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeEnrolment)? {
            return Ok(accepted);
        }
        if token_from(&self.txn, issue.id)?.is_some() {
            return Err(Rejection::TokenExists.into());
        }
        if self.heads.tokens >= limits::TOKENS {
            self.forget_dead_tokens()?;
        }
        if self.heads.tokens >= limits::TOKENS {
            return Err(Rejection::TooManyTokens(self.heads.tokens).into());
        }
        let ttl = issue.ttl_ms.min(*limits::TOKEN_TTL_MS.end());
        let expires_at = self.heads.time.as_millis().saturating_add(ttl);
        let token = Token {
            id: issue.id,
            digest: issue.digest,
            binding: issue.binding.clone(),
            used: 0,
            issued_by: context.command.actor.clone(),
            issued_at: self.heads.time,
            expires_at: Timestamp::from_millis(expires_at),
            revoked: false,
        };
        self.put_token(&token)?;
        self.heads.tokens += 1;
        self.finish_change(context, true)
    }

    /// An administrator revokes a token. It stays listed until its place is needed.
    pub(super) fn revoke_token(
        &mut self,
        context: &Context<'_>,
        token: TokenId,
    ) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeEnrolment)? {
            return Ok(accepted);
        }
        let token = token_from(&self.txn, token)?.ok_or(Rejection::UnknownToken)?;
        let changed = !token.revoked;
        if changed {
            self.put_token(&Token { revoked: true, ..token })?;
        }
        self.finish_change(context, changed)
    }

    /// A device enrols with a token. Nothing but the token speaks for it, so that the actor is the node that took it.
    pub(super) fn enrol(&mut self, context: &Context<'_>, enrol: &Enrol) -> Ruled<Accepted> {
        let actor = &context.command.actor;
        if !matches!(actor, Actor::Node(_)) {
            let action = AuditAction::Enrol;
            return Err(Rejection::NotGranted { actor: actor.clone(), action }.into());
        }
        let token = token_from(&self.txn, enrol.token)?;
        let token = token.filter(|token| token.digest == enrol.token_digest);
        let token = token.ok_or(Rejection::UnknownToken)?;
        let device = Actor::Agent(enrol.device);
        if self.is_denied(&device, None)? {
            return Err(Rejection::CertificateDenied(device).into());
        }
        let known = enrolment_from(&self.txn, enrol.device)?;
        if let Some(known) = &known
            && known.token == Some(enrol.token)
            && repeats(context, known, &enrol.certificate)
        {
            return Ok(self.repeat(context, AuditAction::Enrol, known));
        }
        self.check_token(&token, enrol.device)?;
        self.check_agent_ca(&enrol.certificate)?;
        let group = match &token.binding {
            TokenBinding::Device(_) => None,
            TokenBinding::Group { name, .. } => Some(name.clone()),
        };
        if let Some(group) = &group {
            check_room(&groups_from(&self.txn, enrol.device)?, group)?;
        }
        let left = known.as_ref().and_then(|known| known.group.clone());
        if let Some(left) = left.filter(|left| group.as_ref() != Some(left)) {
            self.keep_in_group(enrol.device, &left)?;
        }
        let times = known.as_ref().map_or(0, |known| known.times);
        let enrolment = Enrolment {
            device: enrol.device,
            certificate: enrol.certificate.clone(),
            token: Some(token.id),
            group,
            enrolled_at: self.heads.time,
            times: times.saturating_add(1),
            issued_at: self.heads.time,
            request_id: context.command.request_id,
        };
        self.put_token(&Token { used: token.used.saturating_add(1), ..token })?;
        self.put_enrolment(&enrolment)?;
        let again = known.is_some();
        let action = if again { AuditAction::EnrolAgain } else { AuditAction::Enrol };
        if again {
            self.heads.enrolled_again += 1;
        } else {
            self.heads.enrolled += 1;
        }
        let mut said =
            format!("{} with token {}", Fingerprint::of(&enrol.certificate.der), enrol.token);
        if let Some(known) = &known {
            let before = Fingerprint::of(&known.certificate.der);
            said = format!("{said}; its certificate before is {before}");
        }
        self.record(context, action, AuditOutcome::Ok, facts(enrol.device, said));
        Ok(Accepted::Enrolled(answer(&enrolment, again, false)))
    }

    /// A device renews its certificate. What it calls with may be older than its newest one, since an answer may have been lost;
    /// the record says so, because it may also be a copy in other hands.
    pub(super) fn renew(&mut self, context: &Context<'_>, renew: &Renew) -> Ruled<Accepted> {
        own_device(context, renew.device)?;
        let known = enrolment_from(&self.txn, renew.device)?;
        if let Some(known) = &known
            && repeats(context, known, &renew.certificate)
        {
            return Ok(self.repeat(context, AuditAction::Renew, known));
        }
        let from = renewable_from(renew.old_not_before, renew.old_not_after);
        if self.heads.time < from {
            return Err(Rejection::RenewalTooEarly(from).into());
        }
        self.check_agent_ca(&renew.certificate)?;
        let newest = known.as_ref().map(|known| Fingerprint::of(&known.certificate.der));
        if known.is_none() {
            self.heads.enrolled += 1;
        }
        let enrolment = Enrolment {
            device: renew.device,
            certificate: renew.certificate.clone(),
            token: known.as_ref().and_then(|known| known.token),
            group: known.as_ref().and_then(|known| known.group.clone()),
            enrolled_at: known.as_ref().map_or(Timestamp::default(), |known| known.enrolled_at),
            times: known.as_ref().map_or(0, |known| known.times),
            issued_at: self.heads.time,
            request_id: context.command.request_id,
        };
        self.put_enrolment(&enrolment)?;
        let mut said = Fingerprint::of(&renew.certificate.der).to_string();
        match (newest, context.command.certificate) {
            (Some(newest), Some(shown)) if newest != shown => {
                said = format!("{said}; by {shown}, which is not its newest certificate");
            }
            (None, Some(shown)) => said = format!("{said}; by {shown} of another CA"),
            _ => {}
        }
        self.record(context, AuditAction::Renew, AuditOutcome::Ok, facts(renew.device, said));
        Ok(Accepted::Enrolled(answer(&enrolment, false, false)))
    }

    /// Whether a token lets a device in. Which of several reasons is named does not depend on the node.
    fn check_token(&self, token: &Token, device: DeviceId) -> Result<(), Rejection> {
        if let TokenBinding::Device(own) = token.binding
            && own != device
        {
            return Err(Rejection::TokenForeignDevice);
        }
        if token.revoked {
            return Err(Rejection::TokenRevoked);
        }
        if token.used >= token.binding.count() {
            return Err(Rejection::TokenUsed);
        }
        if self.heads.time > token.expires_at {
            return Err(Rejection::TokenExpired(token.expires_at));
        }
        Ok(())
    }

    fn check_agent_ca(&mut self, certificate: &DeviceCertificate) -> Ruled<()> {
        let number = certificate.agent_ca;
        match self.txn.get(Table::Keyring, &keys::agent_ca(number))? {
            Some(_) => Ok(()),
            None => Err(Rejection::UnknownAgentCa(number).into()),
        }
    }

    fn repeat(
        &mut self,
        context: &Context<'_>,
        action: AuditAction,
        known: &Enrolment,
    ) -> Accepted {
        let said = Fingerprint::of(&known.certificate.der).to_string();
        self.record(context, action, AuditOutcome::Repeated, facts(known.device, said));
        Accepted::Enrolled(answer(known, known.times > 1, true))
    }

    fn put_token(&mut self, token: &Token) -> Result<(), StoreError> {
        self.txn.put(Table::Tokens, &keys::token(token.id), codec::encode_token(token))
    }

    pub(super) fn put_enrolment(&mut self, enrolment: &Enrolment) -> Result<(), StoreError> {
        let value = codec::encode_enrolment(enrolment);
        self.txn.put(Table::Enrolments, &keys::device(enrolment.device), value)
    }

    /// Makes room: tokens that have expired or were revoked let nobody in any more.
    fn forget_dead_tokens(&mut self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let tokens = tokens_from(&self.txn, after, SCAN_RECORDS)?;
            let Some(last) = tokens.last() else { return Ok(()) };
            after = Some(last.id);
            for token in &tokens {
                if token.revoked || self.heads.time > token.expires_at {
                    self.txn.remove(Table::Tokens, &keys::token(token.id))?;
                    self.heads.tokens = self.heads.tokens.saturating_sub(1);
                }
            }
        }
    }
}

/// Whether a request is the one that gave the newest certificate. The new certificate differs with every try, the key does
/// not.
fn repeats(context: &Context<'_>, known: &Enrolment, new: &DeviceCertificate) -> bool {
    known.request_id == context.command.request_id && known.certificate.public_key == new.public_key
}

/// Two thirds of the way from one time to another.
fn renewable_from(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    let life = not_after.as_millis().saturating_sub(not_before.as_millis());
    Timestamp::from_millis(not_before.as_millis().saturating_add(life / 3 * 2))
}

fn answer(enrolment: &Enrolment, again: bool, repeated: bool) -> Enrolled {
    Enrolled {
        certificate: enrolment.certificate.der.clone(),
        not_after: enrolment.certificate.not_after,
        agent_ca: enrolment.certificate.agent_ca,
        again,
        repeated,
    }
}

fn facts(device: DeviceId, said: String) -> Facts {
    Facts { device: Some(device), detail: words(said), ..Facts::default() }
}
