//! Enrolment: the CA of devices, one-time tokens, and certificates for devices.

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::{Action, Caller, Permit};
use crate::crypto::{
    AgentCaParts, AgentCaSigner, CryptoError, EnrolmentToken, SignedDevice, read_csr, system_rng,
};
use crate::domain::{Actor, DeviceId, RequestId, Timestamp, TokenId};
use crate::raft::RaftError;
use crate::state::{
    Accepted, AgentCa, CommandBody, DeviceCertificate, Enrol, Enrolled, IssueToken, NewAgentCa,
    Position, Rejection, Renew, Token, Wrapped, query,
};

use super::context::{Proposer, proposer_of};
use super::sealing::refresh_sealing;
use super::{Consensus, Context, Granted, Opener, Sealing, ServiceError};

/// What a refused enrolment is called in audit records; it has no permit that names it.
const ENROL: &str = "Enrol";

/// A device's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate and that of its CA, DER.
    pub chain: [Bytes; 2],
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// Whether the device had enrolled before.
    pub again: bool,
    /// Entry that recorded it.
    pub position: Position,
}

/// A CA of devices, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentCaView {
    /// Its number.
    pub number: u32,
    /// Its certificate, DER.
    pub certificate: Bytes,
}

/// A token is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuedToken {
    /// Until when it is valid.
    pub expires_at: Timestamp,
    /// Entry that issued it.
    pub position: Position,
}

/// Use cases of devices that want certificates, and of those who let them in.
pub struct EnrolmentService<C> {
    context: Arc<Context<C>>,
    sealing: Arc<Sealing>,
}

impl<C: Consensus> EnrolmentService<C> {
    /// Over the shared context and the keyring of this node.
    pub fn new(context: Arc<Context<C>>, sealing: Arc<Sealing>) -> Self {
        Self { context, sealing }
    }

    /// Enrols a device: signs its certificate, records that, and only then gives it away.
    ///
    /// # Errors
    /// If the token does not let the device in, the request is not acceptable, this node is sealed, or nobody knows whether
    /// it was done.
    pub async fn enrol(
        &self,
        request_id: RequestId,
        token: &EnrolmentToken,
        device: DeviceId,
        csr: &[u8],
    ) -> Result<Issued, ServiceError> {
        let enrolled = self.try_enrol(request_id, token, device, csr).await;
        match &enrolled {
            Ok((issued, repeated)) => {
                if !repeated {
                    self.context.counters().enrolled(issued.again);
                }
                if issued.again && !repeated {
                    tracing::warn!(%device, token = %token.id(), "a device has enrolled once more");
                }
            }
            Err(ServiceError::Rejected(rejection)) => {
                self.context.counters().enrolment_refused();
                let (reason, token) = (rejection.reason(), token.id());
                tracing::info!(%device, %token, reason, "an enrolment is refused");
            }
            Err(ServiceError::Csr(error)) => {
                self.context.counters().enrolment_refused();
                self.context.count_stranger(ENROL, error.reason());
            }
            Err(_) => {}
        }
        enrolled.map(|(issued, _)| issued)
    }

    async fn try_enrol(
        &self,
        request_id: RequestId,
        token: &EnrolmentToken,
        device: DeviceId,
        csr: &[u8],
    ) -> Result<(Issued, bool), ServiceError> {
        if !self.context.consensus().initialized() {
            return Err(ServiceError::NotInitialised);
        }
        // Whoever has no token gets no further than this: nothing of theirs is parsed, signed or put in the log.
        self.check_known(token).await?;
        let certificate = self.sign(device, csr)?;
        let body = CommandBody::Enrol(Enrol {
            token: token.id(),
            token_digest: token.digest(),
            device,
            certificate,
        });
        self.record(self.context.own(), request_id, body).await
    }

    /// Renews the certificate of the calling device.
    ///
    /// # Errors
    /// If it is too early, the request is not acceptable, this node is sealed, or nobody knows whether it was done.
    pub async fn renew(
        &self,
        permit: &Permit,
        caller: &Caller,
        request_id: RequestId,
        csr: &[u8],
    ) -> Result<Issued, ServiceError> {
        let proposer = proposer_of(permit, Action::RenewCertificate)?;
        let Actor::Agent(device) = permit.actor() else {
            return Err(ServiceError::Unexpected("the permit is no device's"));
        };
        let certificate = self.sign(*device, csr).inspect_err(|error| {
            if let ServiceError::Csr(error) = error {
                self.context.counters().enrolment_refused();
                self.context.count_refused(caller, Action::RenewCertificate.name(), error.reason());
            }
        })?;
        let body = CommandBody::Renew(Renew {
            device: *device,
            certificate,
            old_not_before: caller.not_before(),
            old_not_after: caller.not_after(),
        });
        let renewed = self.record(proposer, request_id, body).await;
        match &renewed {
            Ok(_) => self.context.counters().renewed(),
            Err(ServiceError::Rejected(_)) => self.context.counters().enrolment_refused(),
            Err(_) => {}
        }
        renewed.map(|(issued, _)| issued)
    }

    /// Refuses who has no token: what this node does not know, nobody knows once it has caught up.
    async fn check_known(&self, token: &EnrolmentToken) -> Result<(), ServiceError> {
        if self.knows(token)? {
            return Ok(());
        }
        self.context.read(false).await?;
        if self.knows(token)? {
            return Ok(());
        }
        self.context.count_stranger(ENROL, Rejection::UnknownToken.reason());
        Err(Rejection::UnknownToken.into())
    }

    fn knows(&self, token: &EnrolmentToken) -> Result<bool, ServiceError> {
        let known = query::token(self.context.consensus().view(), token.id())?;
        Ok(known.is_some_and(|known| known.digest == token.digest()))
    }

    fn sign(&self, device: DeviceId, csr: &[u8]) -> Result<DeviceCertificate, ServiceError> {
        let uri = Actor::Agent(device).spiffe_uri(self.context.cluster());
        let public_key = read_csr(csr, &uri)?;
        let newest = query::agent_cas(self.context.consensus().view())?.pop();
        let newest = newest.ok_or(ServiceError::NoAgentCa)?;
        let mut opener = self.sealing.opener()?;
        if number_of(opener.as_ref())? != Some(newest.number) {
            refresh_sealing(&self.context, &self.sealing)?;
            opener = self.sealing.opener()?;
        }
        let signed =
            sign_by(opener.as_ref(), newest.number, device, &public_key, self.context.now())?;
        let SignedDevice { der, leaf, agent_ca } = signed;
        Ok(DeviceCertificate {
            der,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            public_key,
            agent_ca,
        })
    }

    /// Proposes, and answers with the certificate that counts: this one, or that of the try that this one repeats.
    async fn record(
        &self,
        proposer: Proposer,
        request_id: RequestId,
        body: CommandBody,
    ) -> Result<(Issued, bool), ServiceError> {
        let answer = self.context.propose(proposer, request_id, body).await?;
        let Accepted::Enrolled(enrolled) = answer.accepted else {
            return Err(ServiceError::Unexpected("an enrolment has another answer"));
        };
        let Enrolled { certificate, not_after, agent_ca, again, repeated } = enrolled;
        let cas = query::agent_cas(self.context.consensus().view())?;
        let ca = cas.into_iter().find(|ca| ca.number == agent_ca);
        // A repeated answer may be of a newer CA than this node knows of: it is asked for once more then.
        let ca = ca.ok_or(RaftError::OutcomeUnknown)?;
        let chain = [certificate, ca.certificate];
        Ok((Issued { chain, not_after, again, position: answer.position }, repeated))
    }

    /// Makes the first CA of devices, or the next one.
    ///
    /// # Errors
    /// If it was refused, this node has no root key, or nobody knows whether it was done.
    pub async fn create_agent_ca(
        &self,
        permit: &Permit,
        request_id: RequestId,
        number: u32,
    ) -> Result<(AgentCaView, Position), ServiceError> {
        let proposer = proposer_of(permit, Action::CreateAgentCa)?;
        let root = self.sealing.root_key()?;
        let keyring = query::keyring(self.context.consensus().view())?;
        let keyring = keyring.ok_or(ServiceError::NotInitialised)?;
        let (cluster, now) = (self.context.cluster(), self.context.now());
        // A key that is wrapped by another root key would open for nobody.
        root.check(cluster, &keyring.root_check)
            .map_err(|error| ServiceError::Sealed(error.to_string()))?;
        let made = AgentCaParts::create(&root, cluster, number, now, &mut system_rng())
            .map_err(|_| ServiceError::Unexpected("a CA can't be made"))?;
        let ca = AgentCa {
            number,
            certificate: made.certificate,
            private_key: Wrapped(made.private_key),
        };
        let root_check = keyring.root_check;
        let body = CommandBody::CreateAgentCa(NewAgentCa { ca, root_check });
        let answer = self.context.propose(proposer, request_id, body).await?;
        let Accepted::Granted { .. } = answer.accepted else {
            return Err(ServiceError::Unexpected("a new CA has another answer"));
        };
        self.context.wait_applied(answer.position).await?;
        refresh_sealing(&self.context, &self.sealing)?;
        let cas = self.known_agent_cas()?;
        let ca = cas.into_iter().find(|ca| ca.number == number);
        Ok((ca.ok_or(ServiceError::Unexpected("the new CA is not there"))?, answer.position))
    }

    /// The CAs of devices, the first one first.
    ///
    /// # Errors
    /// If no quorum answers.
    pub async fn agent_cas(&self, permit: &Permit) -> Result<Vec<AgentCaView>, ServiceError> {
        proposer_of(permit, Action::ListAgentCas)?;
        self.context.read(false).await?;
        self.known_agent_cas()
    }

    fn known_agent_cas(&self) -> Result<Vec<AgentCaView>, ServiceError> {
        let cas = query::agent_cas(self.context.consensus().view())?.into_iter();
        let view = |ca: AgentCa| AgentCaView { number: ca.number, certificate: ca.certificate };
        Ok(cas.map(view).collect())
    }

    /// Issues a token.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn issue_token(
        &self,
        permit: &Permit,
        request_id: RequestId,
        issue: IssueToken,
    ) -> Result<IssuedToken, ServiceError> {
        let proposer = proposer_of(permit, Action::IssueToken)?;
        let id = issue.id;
        let body = CommandBody::IssueToken(issue);
        let done = self.context.change(proposer, request_id, body).await?;
        self.context.wait_applied(done.position).await?;
        let token = query::token(self.context.consensus().view(), id)?;
        let token = token.ok_or(ServiceError::Unexpected("the new token is not there"))?;
        Ok(IssuedToken { expires_at: token.expires_at, position: done.position })
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn revoke_token(
        &self,
        permit: &Permit,
        request_id: RequestId,
        token: TokenId,
    ) -> Result<Granted, ServiceError> {
        let proposer = proposer_of(permit, Action::RevokeToken)?;
        self.context.change(proposer, request_id, CommandBody::RevokeToken(token)).await
    }

    /// At most `limit` tokens in the order of their ids; the first, or those after `after`.
    ///
    /// # Errors
    /// If no quorum answers.
    pub async fn tokens(
        &self,
        permit: &Permit,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<Token>, ServiceError> {
        proposer_of(permit, Action::ListTokens)?;
        self.context.read(false).await?;
        self.context.scan(move |view| query::tokens(view, after, limit)).await
    }
}

fn number_of(opener: &dyn Opener) -> Result<Option<u32>, ServiceError> {
    Ok(opener.agent_ca().map_err(does_not_open)?.map(AgentCaSigner::number))
}

fn does_not_open(error: &CryptoError) -> ServiceError {
    ServiceError::Integrity(format!("the agent CA that is stored does not open: {error}"))
}

fn sign_by(
    opener: &dyn Opener,
    number: u32,
    device: DeviceId,
    public_key: &[u8; 32],
    now: Timestamp,
) -> Result<SignedDevice, ServiceError> {
    let ca = opener.agent_ca().map_err(does_not_open)?.filter(|ca| ca.number() == number);
    let not_here = || ServiceError::Sealed(format!("agent CA {number} is not unlocked here"));
    let signed = ca.ok_or_else(not_here)?.sign(device, public_key, now, &mut system_rng());
    signed.map_err(|error| match error {
        CryptoError::AgentCaExpired(_) => ServiceError::AgentCaExpired,
        _ => ServiceError::Unexpected("a certificate can't be signed"),
    })
}
