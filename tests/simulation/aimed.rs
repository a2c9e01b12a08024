//! The nemesis takes aim: at nodes that have just voted, and at whoever leads.

use std::sync::Arc;

use holdfast::fs::sim::Survivors;
use rand::Rng as _;
use turmoil::Sim;

use super::credentials::host;
use super::nemesis::{Mend, Nemesis, stop};
use super::oracle::Check;
use super::world::World;

/// How long two nodes that see each other may take to elect a leader.
const ELECTION: u64 = 3_000;

/// A leader that was cut off.
pub(super) struct Silenced {
    pub(super) leader: u64,
    term: u64,
    since: u64,
}

impl Nemesis {
    /// The power of a node goes as soon as it is in a new term, before anything but its vote is written.
    pub(super) fn strike_voters(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        let mut voted = Vec::new();
        for (id, machine) in world.machines.lock().iter_mut() {
            if std::mem::take(&mut machine.voted) && machine.node.is_some() {
                voted.push(*id);
            }
        }
        // One at a time, or nobody would ever lead.
        let Some(&victim) = voted.first().filter(|_| self.rng.random_ratio(1, 2)) else { return };
        if World::is(&world.ready) {
            world.note(format!("power cut of n{victim}, which has just voted"));
            stop(sim, world, victim, Some(Survivors::None));
            self.later(world, 50..500, Mend::Start(victim));
        }
    }

    /// A leader falls silent until there is another one, which must not take long.
    pub(super) fn silence_leaders(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        let now = world.millis();
        let leader = {
            let machines = world.machines.lock();
            let led = machines.iter().filter(|(_, machine)| machine.leads);
            led.map(|(id, machine)| (*id, machine.term)).max_by_key(|(_, term)| *term)
        };
        if let Some(silenced) = &self.silenced {
            if leader.is_some_and(|(_, term)| term > silenced.term) {
                let links = Self::links_of(world, silenced.leader);
                Self::mend(sim, world, Mend::Links(links));
                self.silenced = None;
                self.next = now + self.rng.random_range(600..1200);
            } else if now > silenced.since + ELECTION {
                let what = format!("n{} fell silent, and nobody leads", silenced.leader);
                world.violation(Check::Elected, what);
            }
            return;
        }
        let Some((leader, term)) = leader.filter(|_| now >= self.next) else { return };
        if World::is(&world.ready) {
            world.note(format!("n{leader} falls silent"));
            for (a, b) in Self::links_of(world, leader) {
                sim.partition(host(a), host(b));
            }
            self.silenced = Some(Silenced { leader, term, since: now });
        }
    }
}
