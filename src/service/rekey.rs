//! Another root key. It is made and split by who asks for it, as that of a new cluster is; this node wraps the keyring with it.

use std::sync::Arc;

use crate::auth::{Action, Permit};
use crate::crypto::{RootKey, UnlockedKeyring, system_rng};
use crate::domain::ShareSet;
use crate::state::{CommandBody, Keyring, Rejection, Rekey, Wrapped, query};

use super::context::{new_request_id, proposer_of};
use super::sealing::keyring_parts;
use super::{Consensus, OperatorService, ServiceError};

/// A root key for a cluster that has one.
#[derive(Debug)]
pub struct NewRootKey {
    /// The root key.
    pub root: Arc<RootKey>,
    /// Its shares; `None` if nodes will have it in a file.
    pub shares: Option<ShareSet>,
}

impl<C: Consensus> OperatorService<C> {
    /// Wraps the keyring with another root key; the old one, and its shares, open nothing of it any more. Asked again with
    /// the same root key it answers again. Answers whether this changed it.
    ///
    /// # Errors
    /// [`ServiceError::Sealed`] if this node does not have the root key that counts; [`Rejection`] if the cluster is sealed,
    /// or the keyring was changed meanwhile.
    pub async fn rekey(&self, permit: &Permit, new: NewRootKey) -> Result<bool, ServiceError> {
        let proposer = proposer_of(permit, Action::RekeyRootKey)?;
        self.context.read(false).await?;
        // No server reads the root key while an operator wants it forgotten, not even to change it.
        if self.context.heads()?.sealed {
            return Err(Rejection::Sealed.into());
        }
        let keyring = self.keyring()?;
        let cluster = self.context.cluster();
        if new.root.check(cluster, &keyring.root_check).is_ok() && keyring.shares == new.shares {
            return Ok(false);
        }
        let old = self.sealing.root_key()?;
        let parts = keyring_parts(&keyring);
        let failed = |error: crate::crypto::CryptoError| ServiceError::Sealed(error.to_string());
        let rewrapped =
            parts.rewrap(&old, &new.root, cluster, &mut system_rng()).map_err(failed)?;
        // Tried as it will be stored: a keyring that does not open must not take the place of one that does.
        let tried = UnlockedKeyring::unlock(&new.root, cluster, &rewrapped, &mut system_rng());
        drop(tried.map_err(failed)?);
        let body = CommandBody::Rekey(Rekey {
            replaces: keyring.root_check,
            root_check: rewrapped.root_check,
            signer: Wrapped(rewrapped.signer.private_key),
            epochs: rewrapped.epochs.into_iter().map(|e| Wrapped(e.private_key)).collect(),
            agent_cas: rewrapped.agent_cas.into_iter().map(|ca| Wrapped(ca.private_key)).collect(),
            shares: new.shares,
        });
        self.change(proposer, new_request_id(), body).await?;
        self.keep(&self.keyring()?, &new)?;
        Ok(true)
    }

    fn keyring(&self) -> Result<Keyring, ServiceError> {
        let keyring = query::keyring(self.context.consensus().view())?;
        keyring.ok_or(ServiceError::NotInitialised)
    }

    /// Keeps the new root key: it may be the only node that has it so far.
    fn keep(&self, keyring: &Keyring, new: &NewRootKey) -> Result<(), ServiceError> {
        let (cluster, parts) = (self.context.cluster(), keyring_parts(keyring));
        let unlocked = UnlockedKeyring::unlock(&new.root, cluster, &parts, &mut system_rng());
        let unlocked = unlocked
            .map_err(|error| ServiceError::Integrity(format!("the new keyring: {error}")))?;
        let seals = self.context.heads()?.seals;
        self.sealing.install(unlocked, parts, Some(Arc::clone(&new.root)), seals);
        Ok(())
    }
}
