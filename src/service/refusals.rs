//! Coalesces refusals, so that refusing is no way to fill the log: equal ones become one record with a count.
//!
//! Bounded: past [`MOST_KINDS`] different ones, the rest is counted together, in the node's own name.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::domain::{Actor, RequestId, Text, limits};
use crate::state::RefusalCount;

use super::context::new_request_id;

/// Most different refusals that are told apart between two records.
pub const MOST_KINDS: usize = limits::PAGE_ITEMS;

type Kind = (Actor, &'static str, &'static str);

/// Counts refusals until they are recorded.
#[derive(Debug)]
pub struct Refusals {
    node: Actor,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<Kind, u64>,
    /// What is being recorded. It keeps its request id until its outcome is known, so that it is recorded once.
    pending: Option<(RequestId, Vec<RefusalCount>)>,
}

impl Refusals {
    /// For the node that refuses.
    pub fn new(node: Actor) -> Self {
        Self { node, state: Mutex::default() }
    }

    /// Counts one refusal.
    pub fn count(&self, actor: &Actor, action: &'static str, reason: &'static str) {
        let mut state = self.state.lock();
        let kind = (actor.clone(), action, reason);
        let known = state.counts.contains_key(&kind);
        // One place is kept for the rest.
        let kind = if known || state.counts.len() < MOST_KINDS.saturating_sub(1) {
            kind
        } else {
            (self.node.clone(), "Other", "OVERFLOW")
        };
        let count = state.counts.entry(kind).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// What has to be recorded now, if anything: what was not recorded the last time, else what was counted since.
    pub fn begin(&self) -> Option<(RequestId, Vec<RefusalCount>)> {
        let mut state = self.state.lock();
        if state.pending.is_none() && !state.counts.is_empty() {
            let counts = std::mem::take(&mut state.counts);
            let counts = counts.into_iter().map(|((actor, action, reason), count)| RefusalCount {
                actor,
                action: text(action),
                reason: text(reason),
                count,
            });
            state.pending = Some((new_request_id(), counts.collect()));
        }
        state.pending.clone()
    }

    /// What [`Refusals::begin`] gave is recorded.
    pub fn done(&self) {
        self.state.lock().pending = None;
    }
}

/// Our own short constants always fit.
fn text(constant: &'static str) -> Text {
    Text::name("refusal", constant).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DeviceId, NodeId};

    fn agent(n: u16) -> Actor {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        Actor::Agent(DeviceId::from_bytes(id))
    }

    fn refusals() -> Refusals {
        Refusals::new(Actor::Node(NodeId::new(1)))
    }

    #[test]
    fn equal_refusals_become_one_count() {
        let refusals = refusals();
        for _ in 0..5 {
            refusals.count(&agent(1), "DiscloseKey", "NOT_GRANTED");
        }
        refusals.count(&agent(1), "FindKeys", "NOT_GRANTED");
        let (_, counts) = refusals.begin().unwrap();
        assert_eq!(counts.iter().map(|c| c.count).collect::<Vec<_>>(), [5, 1]);
    }

    #[test]
    fn nothing_refused_is_nothing_to_record() {
        assert_eq!(refusals().begin(), None);
    }

    #[test]
    fn a_batch_keeps_its_request_id_until_it_is_recorded() {
        let refusals = refusals();
        refusals.count(&agent(1), "FindKeys", "NOT_GRANTED");
        let first = refusals.begin().unwrap();
        refusals.count(&agent(2), "FindKeys", "NOT_GRANTED");
        assert_eq!(refusals.begin().unwrap(), first);
        refusals.done();
        let (id, counts) = refusals.begin().unwrap();
        assert_ne!(id, first.0);
        assert_eq!(counts[0].actor, agent(2));
    }

    #[test]
    fn past_a_thousand_kinds_the_rest_is_counted_together() {
        let refusals = refusals();
        for n in 0..1100 {
            refusals.count(&agent(n), "FindKeys", "NOT_GRANTED");
        }
        refusals.count(&agent(0), "FindKeys", "NOT_GRANTED");
        let (_, counts) = refusals.begin().unwrap();
        assert_eq!(counts.len(), MOST_KINDS);
        assert_eq!(counts.iter().map(|c| c.count).sum::<u64>(), 1101);
        let rest = counts.iter().find(|c| c.reason.as_str() == "OVERFLOW").unwrap();
        assert_eq!((rest.count, &rest.actor), (101, &Actor::Node(NodeId::new(1))));
    }
}
