//! Quotas of disclosures, counted by the state's clock. A clock that is behind moves nothing, and the leader refuses commands
//! from one that is far ahead (`raft/time.rs`): no single node opens a window.

use bytes::Bytes;

use super::{Batch, Context, Ruled};
use crate::domain::{DisclosurePolicy, QuotaScope, Timestamp, limits};
use crate::state::query::{corrupt, policy_from};
use crate::state::records::{Quota, Tallies, Window, keys};
use crate::state::{Rejection, Store, StoreError, Table, codec};

/// A disclosure that the quotas allow, counted, and not yet written.
pub(super) enum Charge {
    /// As clusters of earlier versions count, until somebody sets a policy: all nodes have to count alike, also those that read
    /// an old log once more.
    Fixed(Quota),
    /// By the policy.
    Sliding {
        /// Of the requester.
        own: Tallies,
        /// Of all.
        all: Tallies,
    },
}

impl<S: Store> Batch<'_, S> {
    /// The counts with one more disclosure, if there is room for it.
    pub(super) fn charge(&mut self, context: &Context<'_>) -> Ruled<Charge> {
        match policy_from(&self.txn)? {
            None => self.charge_fixed(context).map(Charge::Fixed),
            Some(record) => self.charge_sliding(context, &record.policy),
        }
    }

    pub(super) fn write_charge(
        &mut self,
        context: &Context<'_>,
        charge: Charge,
    ) -> Result<(), StoreError> {
        let requester = keys::quota(&context.command.actor);
        match charge {
            Charge::Fixed(quota) => {
                self.txn.put(Table::Quotas, &requester, codec::encode_quota(quota))
            }
            Charge::Sliding { own, all } => {
                self.txn.put(Table::Tallies, &requester, codec::encode_tallies(&own))?;
                let cluster = Bytes::from_static(keys::CLUSTER_TALLIES);
                self.txn.put(Table::Tallies, &cluster, codec::encode_tallies(&all))
            }
        }
    }

    fn charge_sliding(
        &mut self,
        context: &Context<'_>,
        policy: &DisclosurePolicy,
    ) -> Ruled<Charge> {
        let mut own = self.tallies(&keys::quota(&context.command.actor))?;
        let mut all = self.tallies(&Bytes::from_static(keys::CLUSTER_TALLIES))?;
        let now = self.heads.time;
        let counted = [
            (QuotaScope::RequesterHour, &mut own.minutes, Window::HOUR),
            (QuotaScope::RequesterDay, &mut own.hours, Window::DAY),
            (QuotaScope::ClusterHour, &mut all.minutes, Window::HOUR),
        ];
        for (scope, tally, window) in counted {
            let limit = policy.quota(scope);
            if let Some(until) = tally.full_until(window, now, limit) {
                return Err(Rejection::QuotaExceeded { scope, limit, until }.into());
            }
            tally.add(window, now);
        }
        Ok(Charge::Sliding { own, all })
    }

    fn tallies(&mut self, key: &Bytes) -> Result<Tallies, StoreError> {
        let value = self.txn.get(Table::Tallies, key)?;
        let tallies = value.map(|value| codec::decode_tallies(&value)).transpose();
        Ok(tallies.map_err(corrupt(Table::Tallies))?.unwrap_or_default())
    }

    /// A window begins with the first disclosure after the end of the last.
    fn charge_fixed(&mut self, context: &Context<'_>) -> Ruled<Quota> {
        let value = self.txn.get(Table::Quotas, &keys::quota(&context.command.actor))?;
        let quota = value.map(|value| codec::decode_quota(&value));
        let quota = quota.transpose().map_err(corrupt(Table::Quotas))?;
        let now = self.heads.time;
        let fresh = Quota { window_start: now, used: 0 };
        let quota = quota.filter(|quota| now < window_end(quota)).unwrap_or(fresh);
        let limit = limits::QUOTA_DISCLOSURES;
        if quota.used >= limit {
            let (scope, until) = (QuotaScope::RequesterHour, window_end(&quota));
            return Err(Rejection::QuotaExceeded { scope, limit, until }.into());
        }
        Ok(Quota { used: quota.used + 1, ..quota })
    }
}

const fn window_end(quota: &Quota) -> Timestamp {
    let start = quota.window_start.as_millis();
    Timestamp::from_millis(start.saturating_add(limits::QUOTA_WINDOW_MS))
}
