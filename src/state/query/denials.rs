//! Reads of the deny-list.

use super::{Source, after, codec, corrupt, keys};
use crate::domain::{Actor, DenialSubject, Fingerprint};
use crate::state::records::Denial;
use crate::state::{Store, StoreError, Table};

/// The entry of the deny-list that shuts somebody out: that of the actor, else that of the certificate it came with.
///
/// # Errors
/// A local fault of the store.
pub fn denial_of(
    store: &impl Store,
    actor: &Actor,
    certificate: Option<Fingerprint>,
) -> Result<Option<DenialSubject>, StoreError> {
    denied_by(store, actor, certificate)
}

pub(in crate::state) fn denied_by(
    source: &impl Source,
    actor: &Actor,
    certificate: Option<Fingerprint>,
) -> Result<Option<DenialSubject>, StoreError> {
    if source.value(Table::Denials, &keys::denied_identity(actor))?.is_some() {
        return Ok(Some(DenialSubject::Identity(actor.clone())));
    }
    let Some(certificate) = certificate else { return Ok(None) };
    let denied = source.value(Table::Denials, &keys::denied_certificate(&certificate))?;
    Ok(denied.map(|_| DenialSubject::Certificate(certificate)))
}

/// At most `limit` entries of the deny-list: identities in the order of their names, then certificates; the first, or
/// those after one.
///
/// # Errors
/// A local fault of the store.
pub fn denials(
    store: &impl Store,
    after_subject: Option<&DenialSubject>,
    limit: usize,
) -> Result<Vec<Denial>, StoreError> {
    let start = after_subject.map(|subject| after(&keys::denial(subject)));
    let records = store.scan(Table::Denials, &[], start.as_deref().unwrap_or_default(), limit)?;
    let denials = records.iter().map(|(key, value)| codec::decode_denial(key, value));
    denials.collect::<Result<_, _>>().map_err(corrupt(Table::Denials))
}
