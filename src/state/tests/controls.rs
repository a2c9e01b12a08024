//! What bounds disclosures: quotas, approvals by a second person, and the days on which quotas are lifted.

mod approval;
mod mass_recovery;
mod model;
mod property;
mod quota;

use super::fixtures::*;
use crate::domain::*;
use crate::state::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// A machine with two administrators, a help desk, a policy, and a key of each of two devices; the second one enrolled in the
/// group `vip`.
fn bounded(change: impl FnOnce(&mut PolicyParts)) -> Rig {
    let mut rig = Rig::ready();
    rig.accept(operator(ROOT), grant(RUTH, Role::Administrator));
    rig.accept(operator(ROOT), agent_ca(1, 1));
    rig.accept(operator(ROOT), issue_for(1, group("vip", 1)));
    rig.accept(node(1), enrol_of(1, 2, 1, 1));
    rig.escrow(escrow_of(1, 1, 1, 0, 1));
    rig.escrow(escrow_of(2, 1, 4, 0, 1));
    rig.accept(operator(ROOT), set_policy(0, change));
    rig
}

/// Which keys of devices in `vip` take a second person.
fn marked(parts: &mut PolicyParts) {
    parts.dual_control = ["vip".parse().unwrap()].into();
}

fn requested(rig: &mut Rig, who: &str, p: u8) -> u64 {
    match rig.accept(operator(who), request_approval(p)) {
        Accepted::ApprovalRequested { id, .. } => id.get(),
        other => panic!("{other:?}"),
    }
}

fn proposed(rig: &mut Rig, minutes: u64) -> u64 {
    match rig.accept(operator(ROOT), propose_mass_recovery(minutes)) {
        Accepted::MassRecoveryProposed { number } => number,
        other => panic!("{other:?}"),
    }
}

fn by_hugo(p: u8) -> CommandBody {
    disclose_of(p, 0, Some("eve"))
}

fn quota_of(rejection: &Rejection) -> (QuotaScope, u32, u64) {
    match rejection {
        Rejection::QuotaExceeded { scope, limit, until } => (*scope, *limit, until.as_millis()),
        other => panic!("{other:?}"),
    }
}

fn unusable(why: Unusable) -> Rejection {
    Rejection::ApprovalUnusable(why)
}
