//! Reads of what bounds disclosures.

use super::{SCAN_RECORDS, Source, after, codec, corrupt, keys};
use crate::domain::ApprovalId;
use crate::state::records::{Approval, MassRecovery, PolicyRecord};
use crate::state::{Store, StoreError, Table};

/// The policy in force; `None` in a cluster of an earlier version until somebody sets one.
///
/// # Errors
/// A local fault of the store.
pub fn disclosure_policy(store: &impl Store) -> Result<Option<PolicyRecord>, StoreError> {
    policy_from(store)
}

pub(in crate::state) fn policy_from(
    source: &impl Source,
) -> Result<Option<PolicyRecord>, StoreError> {
    let value = source.value(Table::Controls, keys::POLICY)?;
    value.map(|value| codec::decode_policy(&value)).transpose().map_err(corrupt(Table::Controls))
}

/// The mass recovery that was proposed last, whatever became of it.
///
/// # Errors
/// A local fault of the store.
pub fn mass_recovery(store: &impl Store) -> Result<Option<MassRecovery>, StoreError> {
    mass_recovery_from(store)
}

pub(in crate::state) fn mass_recovery_from(
    source: &impl Source,
) -> Result<Option<MassRecovery>, StoreError> {
    let value = source.value(Table::Controls, keys::MASS_RECOVERY)?;
    let recovery = value.map(|value| codec::decode_mass_recovery(&value));
    recovery.transpose().map_err(corrupt(Table::Controls))
}

/// A request for approval.
///
/// # Errors
/// A local fault of the store.
pub fn approval(store: &impl Store, id: ApprovalId) -> Result<Option<Approval>, StoreError> {
    approval_from(store, id)
}

pub(in crate::state) fn approval_from(
    source: &impl Source,
    id: ApprovalId,
) -> Result<Option<Approval>, StoreError> {
    let key = keys::approval(id);
    let value = source.value(Table::Approvals, &key)?;
    let approval = value.map(|value| codec::decode_approval(&key, &value));
    approval.transpose().map_err(corrupt(Table::Approvals))
}

/// At most `limit` requests for approval in the order of their numbers; the first, or those after one.
///
/// # Errors
/// A local fault of the store.
pub fn approvals(
    store: &impl Store,
    after_approval: Option<ApprovalId>,
    limit: usize,
) -> Result<Vec<Approval>, StoreError> {
    approvals_from(store, after_approval, limit)
}

pub(in crate::state) fn approvals_from(
    source: &impl Source,
    after_approval: Option<ApprovalId>,
    limit: usize,
) -> Result<Vec<Approval>, StoreError> {
    let start = after_approval.map(|id| after(&keys::approval(id)));
    let start = start.as_deref().unwrap_or_default();
    let records = source.range(Table::Approvals, &[], start, limit)?;
    let approvals = records.iter().map(|(key, value)| codec::decode_approval(key, value));
    approvals.collect::<Result<_, _>>().map_err(corrupt(Table::Approvals))
}

/// All that are kept; there are never more than [`crate::domain::limits::APPROVALS`].
pub(in crate::state) fn all_approvals(source: &impl Source) -> Result<Vec<Approval>, StoreError> {
    let (mut all, mut last) = (Vec::new(), None);
    loop {
        let page = approvals_from(source, last, SCAN_RECORDS)?;
        let Some(newest) = page.last() else { return Ok(all) };
        last = Some(newest.id);
        all.extend(page);
    }
}
