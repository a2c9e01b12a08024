//! Which devices a caller's grants reach, by the state that this node has applied.
//!
//! What changes something, and what opens a key, is decided again by apply. A search or a disclosure is not refused here for
//! its device: the record that apply writes then names who asked for which key.

use crate::auth::{Action, Denied};
use crate::domain::{Actor, DeviceId, Reach, Right};
use crate::state::query;

use super::{Consensus, Context, ServiceError};

impl<C: Consensus> Context<C> {
    /// For which devices an operator has a right that an action takes. It was there when the action was permitted; if it was
    /// taken away since, there are none.
    pub(super) fn reach(
        &self,
        actor: &Actor,
        action: Action,
        right: Right,
    ) -> Result<Reach, ServiceError> {
        let granted = match actor {
            Actor::Operator(name) => query::granted(self.consensus().view(), name)?.reach(right),
            // By the token of this very call, which says nothing of groups of devices.
            Actor::Oidc(_) => Some(Reach::ALL),
            Actor::Agent(_) | Actor::Node(_) => None,
        };
        granted.ok_or_else(|| self.outside(actor, action))
    }

    /// Refuses what is about a device that an operator has no grant for.
    pub(super) fn check_reach(
        &self,
        actor: &Actor,
        action: Action,
        right: Right,
        device: DeviceId,
    ) -> Result<(), ServiceError> {
        let reach = self.reach(actor, action, right)?;
        let view = self.consensus().view();
        if reach.is_limited() && !reach.covers(&query::groups_of(view, device)?) {
            return Err(self.outside(actor, action));
        }
        Ok(())
    }

    /// The refusal; it is counted, to be recorded later.
    pub(super) fn outside(&self, actor: &Actor, action: Action) -> ServiceError {
        let denied = Denied::outside_groups(actor);
        self.count_denied(actor, action.name(), denied.reason);
        ServiceError::Denied(denied)
    }
}
