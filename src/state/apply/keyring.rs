//! Bootstrap, and which epochs exist.

use super::access::put_grant;
use super::audit::Facts;
use super::{Batch, Context, Ruled, Stop};
use crate::domain::{AuditAction, AuditOutcome, Epoch, Reach, Right, Role};
use crate::state::query::{corrupt, keyring_from};
use crate::state::records::{Grant, PolicyRecord, Remembered, keys};
use crate::state::{
    Accepted, AgentCa, Bootstrap, EpochRecord, Rejection, Rekey, Rotate, Signer, Store, StoreError,
    Table, codec,
};

impl<S: Store> Batch<'_, S> {
    /// Once in a cluster's life, any operator makes the keyring and the first administrator.
    pub(super) fn bootstrap(
        &mut self,
        context: &Context<'_>,
        bootstrap: &Bootstrap,
    ) -> Ruled<Accepted> {
        let actor = &context.command.actor;
        if !actor.is_operator() {
            let action = AuditAction::Bootstrap;
            return Err(Rejection::NotGranted { actor: actor.clone(), action }.into());
        }
        if self.heads.cluster.is_some() {
            return match self.recall(context) {
                Ok(Some(_)) => Ok(Accepted::Bootstrapped),
                // A retry has made new keys, so that its body differs: that the cluster exists is what it has to know.
                Ok(None) | Err(Stop::Refused(_) | Stop::Outside(_)) => {
                    Err(Rejection::AlreadyBootstrapped.into())
                }
                Err(Stop::Fault(error)) => Err(Stop::Fault(error)),
            };
        }
        let root = codec::encode_root(bootstrap.cluster, &bootstrap.root_check);
        self.txn.put(Table::Keyring, &keys::ROOT.into(), root)?;
        let signer = codec::encode_signer(&bootstrap.signer);
        self.txn.put(Table::Keyring, &keys::SIGNER.into(), signer)?;
        let epoch = codec::encode_epoch(&bootstrap.epoch);
        self.txn.put(Table::Keyring, &keys::epoch(bootstrap.epoch.epoch), epoch)?;
        if let Some(shares) = &bootstrap.shares {
            let shares = codec::encode_share_set(shares);
            self.txn.put(Table::Keyring, &keys::SHARES.into(), shares)?;
        }
        if let Some(policy) = &bootstrap.disclosure_policy {
            let (set_by, set_at) = (actor.clone(), self.heads.time);
            let policy = policy.clone();
            self.put_policy(&PolicyRecord { revision: 0, policy, set_by, set_at })?;
        }
        let grant = Grant {
            operator: bootstrap.administrator.clone(),
            role: Role::Administrator,
            reach: Reach::ALL,
            granted_by: actor.clone(),
            granted_at: self.heads.time,
        };
        put_grant(&mut self.txn, &grant)?;
        self.heads.cluster = Some(bootstrap.cluster);
        let facts = Facts::of_body(&context.command.body);
        self.record(context, AuditAction::Bootstrap, AuditOutcome::Ok, facts);
        self.remember(context, Remembered::Body)?;
        Ok(Accepted::Bootstrapped)
    }

    /// An administrator makes the next epoch. Older ones stay, and whatever is sealed to them.
    pub(super) fn rotate(&mut self, context: &Context<'_>, rotate: &Rotate) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeKeyring)? {
            return Ok(accepted);
        }
        if self.heads.sealed {
            return Err(Rejection::Sealed.into());
        }
        let root_check = self.root_check()?;
        let next = rotate.epoch.epoch;
        let last = next.get().checked_sub(1).map(Epoch::new);
        let follows = match last {
            Some(last) => self.has_epoch(last)? && !self.has_epoch(next)?,
            None => false,
        };
        // Wrapped by another root key it would be an epoch that nobody can open.
        if !follows || root_check != Some(rotate.root_check) {
            return Err(Rejection::KeyringChanged.into());
        }
        let epoch = codec::encode_epoch(&rotate.epoch);
        self.txn.put(Table::Keyring, &keys::epoch(next), epoch)?;
        self.finish_change(context, true)
    }

    /// An administrator has the keyring wrapped by another root key: all of it at once, or nothing. An epoch that was made
    /// meanwhile would be lost by it, so that it is refused then.
    pub(super) fn rekey(&mut self, context: &Context<'_>, rekey: &Rekey) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeKeyring)? {
            return Ok(accepted);
        }
        if self.heads.sealed {
            return Err(Rejection::Sealed.into());
        }
        let keyring = keyring_from(&self.txn)?.filter(|keyring| {
            keyring.root_check == rekey.replaces
                && keyring.epochs.len() == rekey.epochs.len()
                && keyring.agent_cas.len() == rekey.agent_cas.len()
        });
        let keyring = keyring.ok_or(Rejection::KeyringChanged)?;
        let root = codec::encode_root(keyring.cluster, &rekey.root_check);
        self.txn.put(Table::Keyring, &keys::ROOT.into(), root)?;
        let signer = Signer { private_key: rekey.signer.clone(), ..keyring.signer };
        self.txn.put(Table::Keyring, &keys::SIGNER.into(), codec::encode_signer(&signer))?;
        for (epoch, private_key) in keyring.epochs.into_iter().zip(&rekey.epochs) {
            let epoch = EpochRecord { private_key: private_key.clone(), ..epoch };
            let value = codec::encode_epoch(&epoch);
            self.txn.put(Table::Keyring, &keys::epoch(epoch.epoch), value)?;
        }
        for (ca, private_key) in keyring.agent_cas.into_iter().zip(&rekey.agent_cas) {
            let ca = AgentCa { private_key: private_key.clone(), ..ca };
            let value = codec::agent_ca_to_bytes(&ca);
            self.txn.put(Table::Keyring, &keys::agent_ca(ca.number), value)?;
        }
        match &rekey.shares {
            Some(shares) => {
                let shares = codec::encode_share_set(shares);
                self.txn.put(Table::Keyring, &keys::SHARES.into(), shares)?;
            }
            None => self.txn.remove(Table::Keyring, &keys::SHARES.into())?,
        }
        self.finish_change(context, true)
    }

    /// Check value of the root key that the keyring is wrapped by.
    pub(super) fn root_check(&mut self) -> Result<Option<[u8; 32]>, StoreError> {
        let root = self.txn.get(Table::Keyring, &keys::ROOT.into())?;
        let root = root.map(|value| codec::decode_root(&value)).transpose();
        Ok(root.map_err(corrupt(Table::Keyring))?.map(|(_, check)| check))
    }

    /// Whether an epoch was ever made. Old ones stay accepted, so that a retry is never refused for its age.
    pub(super) fn has_epoch(&mut self, epoch: Epoch) -> Result<bool, StoreError> {
        Ok(self.txn.get(Table::Keyring, &keys::epoch(epoch))?.is_some())
    }
}
