//! Reads of the CAs of devices, of enrolment tokens and of enrolments.

use super::{SCAN_RECORDS, Source, after, codec, corrupt, keys};
use crate::domain::{DeviceId, TokenId};
use crate::state::records::{Enrolment, Token};
use crate::state::{AgentCa, Store, StoreError, Table};

/// The CAs of devices, the first one first.
///
/// # Errors
/// A local fault of the store.
pub fn agent_cas(store: &impl Store) -> Result<Vec<AgentCa>, StoreError> {
    let records = store.scan(Table::Keyring, keys::AGENT_CA_PREFIX, &[], SCAN_RECORDS)?;
    let cas = records.iter().map(|(_, value)| codec::agent_ca_from_bytes(value));
    cas.collect::<Result<_, _>>().map_err(corrupt(Table::Keyring))
}

/// How many there are.
pub(in crate::state) fn agent_ca_count(source: &impl Source) -> Result<u32, StoreError> {
    let records = source.range(Table::Keyring, keys::AGENT_CA_PREFIX, &[], SCAN_RECORDS)?;
    Ok(u32::try_from(records.len()).unwrap_or(u32::MAX))
}

/// An enrolment token.
///
/// # Errors
/// A local fault of the store.
pub fn token(store: &impl Store, id: TokenId) -> Result<Option<Token>, StoreError> {
    token_from(store, id)
}

pub(in crate::state) fn token_from(
    source: &impl Source,
    id: TokenId,
) -> Result<Option<Token>, StoreError> {
    let key = keys::token(id);
    let token = source.value(Table::Tokens, &key)?.map(|value| codec::decode_token(&key, &value));
    token.transpose().map_err(corrupt(Table::Tokens))
}

/// At most `limit` enrolment tokens in the order of their ids; the first, or those after one.
///
/// # Errors
/// A local fault of the store.
pub fn tokens(
    store: &impl Store,
    after_token: Option<TokenId>,
    limit: usize,
) -> Result<Vec<Token>, StoreError> {
    tokens_from(store, after_token, limit)
}

pub(in crate::state) fn tokens_from(
    source: &impl Source,
    after_token: Option<TokenId>,
    limit: usize,
) -> Result<Vec<Token>, StoreError> {
    let start = after_token.map(|id| after(&keys::token(id)));
    let records = source.range(Table::Tokens, &[], start.as_deref().unwrap_or_default(), limit)?;
    let tokens = records.iter().map(|(key, value)| codec::decode_token(key, value));
    tokens.collect::<Result<_, _>>().map_err(corrupt(Table::Tokens))
}

/// What is known of a device's certificates.
///
/// # Errors
/// A local fault of the store.
pub fn enrolment(store: &impl Store, device: DeviceId) -> Result<Option<Enrolment>, StoreError> {
    enrolment_from(store, device)
}

pub(in crate::state) fn enrolment_from(
    source: &impl Source,
    device: DeviceId,
) -> Result<Option<Enrolment>, StoreError> {
    let key = keys::device(device);
    let value = source.value(Table::Enrolments, &key)?;
    let enrolment = value.map(|value| codec::decode_enrolment(&key, &value));
    enrolment.transpose().map_err(corrupt(Table::Enrolments))
}
