//! Recovery: the help desk finds a key and discloses it.
//!
//! A key is opened only after the record of its disclosure is committed and applied here. The plaintext leaves in the
//! answer and is kept nowhere.

use std::sync::Arc;

use crate::auth::{Action, Permit};
use crate::crypto::{Binding, CryptoError, Part, Secret};
use crate::domain::{ProtectorKind, RecoveryKey, RequestId};
use crate::planted::{self, Plant};
use crate::state::{
    Accepted, AuditPosition, CommandBody, Disclose, FindQuery, KeySummary, Position, Rejection,
    query,
};

use super::context::proposer_of;
use super::{Consensus, Context, Opener, Sealing, ServiceError};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// At most 200.
    pub keys: Vec<KeySummary>,
    /// Whether more matched.
    pub truncated: bool,
    /// Audit record of the search.
    pub audit: AuditPosition,
    /// Entry that answered.
    pub position: Position,
}

/// A disclosed key. Never printed.
pub struct Disclosure {
    /// The recovery key as it has to be typed. If it is not UTF-8, which only a faulty agent seals, `hex:` and its bytes
    /// in hexadecimal.
    pub recovery_key: Secret,
    /// The key package, if it was asked for and escrowed.
    pub package: Option<Secret>,
    /// The key version after the disclosure.
    pub key: KeySummary,
    /// Audit record of the disclosure.
    pub audit: AuditPosition,
    /// Entry that permitted it.
    pub position: Position,
    /// Whether what was opened is no well-formed key of its kind.
    pub malformed: bool,
    /// Whether this answers a retry.
    pub repeated: bool,
}

/// Use cases of the help desk.
pub struct RecoveryService<C> {
    context: Arc<Context<C>>,
    sealing: Arc<Sealing>,
}

impl<C: Consensus> RecoveryService<C> {
    /// Over the shared context and the keyring of this node.
    pub fn new(context: Arc<Context<C>>, sealing: Arc<Sealing>) -> Self {
        Self { context, sealing }
    }

    /// Finds key versions without their secrets. The search is audited.
    ///
    /// # Errors
    /// If it was refused, or nobody knows whether it was done.
    pub async fn find(
        &self,
        permit: &Permit,
        request_id: RequestId,
        query: FindQuery,
    ) -> Result<Found, ServiceError> {
        let proposer = proposer_of(permit, Action::FindKeys)?;
        let answer =
            self.context.propose(proposer, request_id, CommandBody::FindKeys(query)).await?;
        let Accepted::Found { keys, truncated } = answer.accepted else {
            return Err(ServiceError::Unexpected("a search has another answer"));
        };
        Ok(Found { keys, truncated, audit: answer.audit, position: answer.position })
    }

    /// Discloses one key: records it, waits for the record to be applied here, and only then opens the key.
    ///
    /// # Errors
    /// [`ServiceError::ChainConflict`] or [`ServiceError::Sealed`] before anything is recorded, if this node may not or can't
    /// open keys. Otherwise if it was refused,
    /// nobody knows whether it was recorded, or what is stored does not open.
    pub async fn disclose(
        &self,
        permit: &Permit,
        request_id: RequestId,
        disclose: Disclose,
        with_package: bool,
    ) -> Result<Disclosure, ServiceError> {
        let proposer = proposer_of(permit, Action::DiscloseKey)?;
        // Before anything else: the seal is the cluster's, so that no other node would do.
        if self.context.heads()?.sealed {
            return Err(Rejection::Sealed.into());
        }
        // Its record would stand in a chain that nobody can believe. Another node's may be sound.
        self.context.check_chain()?;
        let opener = self.sealing.opener()?;
        let body = CommandBody::Disclose(disclose);
        let answer = self.context.propose(proposer, request_id, body).await?;
        let Accepted::Disclosed { key, repeated } = answer.accepted else {
            return Err(ServiceError::Unexpected("a disclosure has another answer"));
        };
        if !planted::is(Plant::DiscloseBeforeAudit) {
            self.context.wait_applied(answer.position).await?;
        }
        let (opened, package) = self.open(opener.as_ref(), &key, with_package)?;
        let (recovery_key, malformed) = check_format(key.protector_kind, opened);
        self.context.counters().disclosed();
        Ok(Disclosure {
            recovery_key,
            package,
            key,
            audit: answer.audit,
            position: answer.position,
            malformed,
            repeated,
        })
    }

    fn open(
        &self,
        opener: &dyn Opener,
        key: &KeySummary,
        with_package: bool,
    ) -> Result<(Secret, Option<Secret>), ServiceError> {
        let view = self.context.consensus().view();
        let stored = query::key(view, key.protector, key.version)?;
        let stored = stored.ok_or_else(|| missing("the key"))?;
        let binding = Binding {
            cluster: self.context.cluster(),
            device: key.device,
            volume: key.volume,
            protector: key.protector,
            protector_kind: key.protector_kind,
            version: key.version,
        };
        let recovery_key =
            opener.open(&binding, Part::Key, &stored.sealed).map_err(opening_failed)?;
        if !(with_package && key.has_package) {
            return Ok((recovery_key, None));
        }
        let package = query::package(view, key.protector, key.version)?;
        let package = package.ok_or_else(|| missing("the key package"))?;
        let package = opener.open(&binding, Part::Package, &package).map_err(opening_failed)?;
        Ok((recovery_key, Some(package)))
    }
}

fn missing(what: &str) -> ServiceError {
    ServiceError::Integrity(format!("{what} was disclosed and is not in the state"))
}

fn opening_failed(error: CryptoError) -> ServiceError {
    match error {
        CryptoError::UnknownEpoch(epoch) => {
            ServiceError::Sealed(format!("epoch {epoch} of the escrow key is not unlocked here"))
        }
        other => ServiceError::Integrity(format!("what is stored does not open: {other}")),
    }
}

/// The key in its canonical form, or as it was sealed with a flag that it is none.
fn check_format(kind: ProtectorKind, opened: Secret) -> (Secret, bool) {
    match std::str::from_utf8(opened.expose_secret()) {
        Ok(text) => match RecoveryKey::parse(kind, text) {
            Ok(key) => (Secret::new(key.expose_secret().as_bytes().to_vec()), false),
            Err(_) => (opened, true),
        },
        Err(_) => {
            let digits = format!("hex:{}", hex::encode(opened.expose_secret()));
            (Secret::new(digits.into_bytes()), true)
        }
    }
}
