//! From a certificate, or a token that was checked, to a caller.
//!
//! The URI in a certificate says what its holder claims to be; the CA says whether it may claim that. So a chain has to
//! end at exactly the CA of its kind: the agent CA makes no operators.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls_pki_types::CertificateDer;

use crate::crypto::{Authority, CertificateError, Leaf, Purpose};
use crate::domain::{Actor, ClusterId, Fingerprint, OidcSubject, Role, SpiffeError, Timestamp};
use crate::tls::PeerCertificates;

use super::token::TokenError;

/// The CAs of the three kinds of actors. Clones share them, also when they are replaced.
#[derive(Debug, Clone)]
pub struct Authorities(Arc<RwLock<Kinds>>);

#[derive(Debug, Clone)]
struct Kinds {
    node: Authority,
    /// The one that is configured.
    agent: Authority,
    /// What the cluster has made itself.
    own_agents: Vec<CertificateDer<'static>>,
    /// Both together.
    agents: Authority,
    operator: Authority,
}

impl Kinds {
    /// The same with other CAs of the cluster's own.
    fn with_own_agents(
        self,
        own_agents: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        let agents = self.agent.and(&own_agents)?;
        if agents.overlaps(&self.node) || agents.overlaps(&self.operator) {
            return Err(IdentityError::SharedCa);
        }
        Ok(Self { agents, own_agents, ..self })
    }
}

impl Authorities {
    /// Three CAs that have no key in common.
    ///
    /// # Errors
    /// [`IdentityError::SharedCa`] if two of them do.
    pub fn new(
        node: Authority,
        agent: Authority,
        operator: Authority,
    ) -> Result<Self, IdentityError> {
        if node.overlaps(&agent) || node.overlaps(&operator) || agent.overlaps(&operator) {
            return Err(IdentityError::SharedCa);
        }
        let agents = agent.clone();
        let kinds = Kinds { node, agent, own_agents: Vec::new(), agents, operator };
        Ok(Self(Arc::new(RwLock::new(kinds))))
    }

    /// Takes the CAs of `others` from now on, beside those that the cluster has made.
    ///
    /// # Errors
    /// [`IdentityError::SharedCa`] if one of the cluster's own is among them in another place; nothing is changed then.
    pub fn replace(&self, others: &Self) -> Result<(), IdentityError> {
        let others = others.0.read().clone();
        let mut kinds = self.0.write();
        *kinds = others.with_own_agents(kinds.own_agents.clone())?;
        Ok(())
    }

    /// Takes agents that these CAs vouch for, which the cluster has made, beside those of the configured one.
    ///
    /// # Errors
    /// If one is no CA, or is the CA of nodes or operators too; nothing is changed then.
    pub fn set_own_agents(&self, own: Vec<CertificateDer<'static>>) -> Result<(), IdentityError> {
        let mut kinds = self.0.write();
        *kinds = kinds.clone().with_own_agents(own)?;
        Ok(())
    }

    /// The CA of nodes.
    pub fn node(&self) -> Authority {
        self.0.read().node.clone()
    }

    /// The CA of agents: the configured one, and those that the cluster has made.
    pub fn agent(&self) -> Authority {
        self.0.read().agents.clone()
    }

    /// The CA of operators.
    pub fn operator(&self) -> Authority {
        self.0.read().operator.clone()
    }

    /// Who may vouch for this actor by a certificate; nobody does for whom a provider has to.
    fn of(&self, actor: &Actor) -> Option<Authority> {
        match actor {
            Actor::Node(_) => Some(self.node()),
            Actor::Agent(_) => Some(self.agent()),
            Actor::Operator(_) => Some(self.operator()),
            Actor::Oidc(_) => None,
        }
    }
}

/// Why nobody is known to be at the other end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No certificate, or one that is not valid for its kind.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// Its URI is not one of ours.
    #[error("{0}")]
    Name(#[from] SpiffeError),
    /// Two CAs are the same, so that kinds can't be told apart.
    #[error("the CAs of nodes, agents and operators must be different")]
    SharedCa,
    /// The certificate was valid when the connection was made and is not any more.
    #[error("the certificate has expired")]
    Expired,
    /// A token that was shown is not good, whatever certificate came with it.
    #[error("{0}")]
    Token(#[from] TokenError),
}

/// A proven caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    actor: Actor,
    not_before: Timestamp,
    not_after: Timestamp,
    serial: String,
    certificate: Option<Fingerprint>,
    roles: BTreeSet<Role>,
}

impl Caller {
    /// A caller that was proven by other means than a certificate, as in a simulation. The server uses [`identify`] only.
    pub fn proven(actor: Actor, not_after: Timestamp, serial: impl Into<String>) -> Self {
        let not_before = Timestamp::default();
        let roles = BTreeSet::new();
        Self { actor, not_before, not_after, serial: serial.into(), certificate: None, roles }
    }

    /// Somebody whose token was checked: until when it is good, the roles that it gives, and the certificate that it came with, if
    /// it came with one.
    pub fn by_token(
        subject: OidcSubject,
        not_after: Timestamp,
        roles: BTreeSet<Role>,
        certificate: Option<Fingerprint>,
    ) -> Self {
        Self { certificate, roles, ..Self::proven(Actor::Oidc(subject), not_after, String::new()) }
    }

    /// The same, with the beginning of its validity.
    #[cfg(test)]
    pub(crate) fn proven_between(
        actor: Actor,
        not_before: Timestamp,
        not_after: Timestamp,
        serial: &str,
    ) -> Self {
        Self { not_before, ..Self::proven(actor, not_after, serial) }
    }

    /// Who.
    pub const fn actor(&self) -> &Actor {
        &self.actor
    }

    /// From when the certificate is valid.
    pub const fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Until when the certificate is valid.
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Serial number of the certificate, in hexadecimal digits.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// The certificate that proved it; none if that was done by other means.
    pub const fn certificate(&self) -> Option<Fingerprint> {
        self.certificate
    }

    /// Roles that the token gave; empty for whom a certificate proved, whose roles are grants.
    pub const fn roles(&self) -> &BTreeSet<Role> {
        &self.roles
    }

    /// Checks that the certificate is still valid; for each request, since a connection may outlive its certificate.
    ///
    /// # Errors
    /// [`IdentityError::Expired`].
    pub fn check_valid(&self, now: Timestamp) -> Result<(), IdentityError> {
        if now <= self.not_after { Ok(()) } else { Err(IdentityError::Expired) }
    }
}

/// Tells who is at the other end of a connection.
///
/// # Errors
/// If the chain does not prove it.
pub fn identify(
    peer: &PeerCertificates,
    authorities: &Authorities,
    cluster: ClusterId,
    now: Timestamp,
) -> Result<Caller, IdentityError> {
    let first = peer.chain().first().ok_or(CertificateError::Missing)?;
    // The claim is read first, since it decides which CA has to vouch for it.
    let claimed = Actor::from_spiffe_uri(&Leaf::read(first)?.uri, cluster)?;
    let authority = authorities.of(&claimed).ok_or(SpiffeError::Malformed)?;
    let leaf = authority.verify(peer.chain(), Purpose::Client, now)?;
    Ok(Caller {
        actor: claimed,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        serial: leaf.serial,
        certificate: Some(Fingerprint::of(first)),
        roles: BTreeSet::new(),
    })
}

/// As [`identify`], once for a connection: later calls repeat the answer, and check that the certificate is still valid.
///
/// # Errors
/// As [`identify`], or [`IdentityError::Expired`].
pub fn identify_once(
    peer: &PeerCertificates,
    authorities: &Authorities,
    cluster: ClusterId,
    now: Timestamp,
) -> Result<Arc<Caller>, IdentityError> {
    let caller = peer.memo(|| identify(peer, authorities, cluster, now).map(Arc::new))?;
    caller.check_valid(now)?;
    Ok(caller)
}

#[cfg(test)]
mod tests;
