//! The seal: as long as it is on, no key is opened and no node reads the root key by itself.

use super::{Batch, Context, Ruled};
use crate::domain::{Right, Text};
use crate::state::records::{Seal, keys};
use crate::state::{Accepted, Rejection, Store, Table, Unseal, UnsealedBy, codec};

impl<S: Store> Batch<'_, S> {
    /// An administrator seals all nodes. Sealing what is sealed changes no record of who sealed it first, and still counts:
    /// whoever is about to unseal has to begin anew, and a node that holds opened keys forgets them.
    pub(super) fn seal(&mut self, context: &Context<'_>, reason: &Text) -> Ruled<Accepted> {
        if let Some(accepted) = self.changed_before(context, Right::ChangeKeyring)? {
            return Ok(accepted);
        }
        let changed = !self.heads.sealed;
        if changed {
            let seal = Seal {
                sealed_by: context.command.actor.clone(),
                sealed_at: self.heads.time,
                reason: reason.clone(),
            };
            self.txn.put(Table::Keyring, &keys::SEAL.into(), codec::encode_seal(&seal))?;
        }
        self.heads.sealed = true;
        self.heads.seals += 1;
        self.finish_change(context, changed)
    }

    /// Ends the seal: by order of an administrator, or because a node was given enough shares. A seal that came after it
    /// was asked for stays.
    pub(super) fn unseal(&mut self, context: &Context<'_>, unseal: &Unseal) -> Ruled<Accepted> {
        let right = match unseal.by {
            UnsealedBy::Order => Right::ChangeKeyring,
            UnsealedBy::Shares { .. } => Right::GiveShares,
        };
        if let Some(accepted) = self.changed_before(context, right)? {
            return Ok(accepted);
        }
        if unseal.seals != self.heads.seals {
            return Err(Rejection::SealedAgain.into());
        }
        let changed = self.heads.sealed;
        if changed {
            self.txn.remove(Table::Keyring, &keys::SEAL.into())?;
            self.heads.sealed = false;
        }
        self.finish_change(context, changed)
    }
}
