//! Keys that are sealed anew: each takes the place of exactly the sealed bytes that it was made from, or of nothing.

use super::audit::{Facts, action_of};
use super::{Batch, Context, Ruled};
use crate::domain::{AuditOutcome, KeyVersion, Right, sealed_digest};
use crate::state::query::{corrupt, key_record};
use crate::state::records::{Remembered, keys};
use crate::state::{Accepted, Rejection, Reseal, ResealedKey, Store, Table, codec};

impl<S: Store> Batch<'_, S> {
    /// An administrator has keys sealed to a newer epoch. What was written meanwhile stays, and so does all that is known of a
    /// key beside its sealed bytes: the digest of those that were first received, by which an escrow is known again, and its
    /// receipt.
    pub(super) fn reseal(&mut self, context: &Context<'_>, reseal: &Reseal) -> Ruled<Accepted> {
        let recalled = self.recall(context);
        if !matches!(recalled, Ok(Some(_))) {
            self.permitted(context, Right::ChangeKeyring)?;
        }
        if let Some(request) = recalled? {
            let Remembered::Resealed(count) = request.answer else {
                return Err(Rejection::RequestIdReused.into());
            };
            return Ok(Accepted::Resealed { count });
        }
        for key in &reseal.keys {
            let packages = key.package.iter().map(|package| package.epoch);
            for epoch in [key.sealed.epoch].into_iter().chain(packages) {
                if epoch != reseal.epoch || !self.has_epoch(epoch)? {
                    return Err(Rejection::UnknownEpoch(epoch).into());
                }
            }
        }
        let mut count = 0;
        for key in &reseal.keys {
            count += u32::from(self.replace(key)?);
        }
        let body = &context.command.body;
        self.record(context, action_of(body), AuditOutcome::Ok, Facts::of_body(body));
        self.remember(context, Remembered::Resealed(count))?;
        Ok(Accepted::Resealed { count })
    }

    /// Whether a key was still stored as expected, and is sealed anew now.
    fn replace(&mut self, new: &ResealedKey) -> Ruled<bool> {
        if new.at.version == KeyVersion::NONE {
            return Ok(false);
        }
        let found = key_record(&self.txn, new.at.protector, new.at.version)?;
        let Some(mut key) = found else { return Ok(false) };
        let at = keys::key(new.at);
        let package = if key.has_package { self.txn.get(Table::Packages, &at)? } else { None };
        let package = package.map(|value| codec::decode_package(&value)).transpose();
        let package = package.map_err(corrupt(Table::Packages))?;
        if sealed_digest(&key.sealed, package.as_ref()) != new.replaces
            || package.is_some() != new.package.is_some()
        {
            return Ok(false);
        }
        key.sealed = new.sealed.clone();
        self.txn.put(Table::Keys, &at, codec::encode_key(&key))?;
        if let Some(package) = &new.package {
            self.txn.put(Table::Packages, &at, codec::encode_package(package))?;
        }
        Ok(true)
    }
}
