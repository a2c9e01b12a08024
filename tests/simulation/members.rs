//! The nemesis changes who is a member, while everything else goes wrong too.

use std::sync::Arc;

use rand::Rng as _;
use turmoil::Sim;

use super::credentials::MOST_NODES;
use super::nemesis::Nemesis;
use super::world::{Change, World};

/// One number is kept for a node that replaces one whose disk has rotted.
const MOST_CHOSEN: u64 = MOST_NODES - 1;
/// With more, a change of members takes up much of a run.
const MOST_AT_ONCE: usize = 5;

impl Nemesis {
    /// Has the operator add, replace or remove a member. Never fewer than three are left: with two, a disk that rots later would be
    /// half of all that there is.
    pub(super) fn change_members(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        let (members, rotten): (Vec<u64>, bool) = {
            let machines = world.machines.lock();
            let removed = world.removed.lock();
            let members = machines.keys().copied().filter(|id| !removed.contains(id)).collect();
            (members, machines.values().any(|machine| machine.rotten))
        };
        // A disk that has rotted may show at the next start, in the middle of the change.
        if rotten || world.change.lock().is_some() {
            return;
        }
        let leader = world.oracle.lock().last_leader().filter(|leader| members.contains(leader));
        let any = members[self.rng.random_range(0..members.len())];
        let chosen = leader.filter(|_| self.rng.random_ratio(1, 2)).unwrap_or(any);
        let new_one = self.last_machine < MOST_CHOSEN;
        let change = match self.rng.random_range(0..3) {
            0 if new_one && members.len() < MOST_AT_ONCE => {
                Change::Grow(self.add_machine(sim, world))
            }
            1 if new_one => Change::Replace { old: chosen, new: self.add_machine(sim, world) },
            _ if members.len() > 3 => Change::Shrink(chosen),
            _ => return,
        };
        world.note(format!("members are to change: {change:?}"));
        *world.change.lock() = Some(change);
    }
}
