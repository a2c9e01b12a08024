//! What goes wrong, and when: drawn from the seed.

use std::sync::Arc;

use holdfast::fs::sim::{SimFs, Survivors};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use turmoil::Sim;

use super::aimed::Silenced;
use super::cluster::process;
use super::credentials::host;
use super::disks;
use super::oracle::Check;
use super::sights::Sight;
use super::world::{Change, Machine, World};

const HOUR: i64 = 3_600_000;
const YEAR: i64 = 365 * 24 * HOUR;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    /// Everything.
    All,
    /// Everything, and callers that put single promises to the test; all that follow have them too.
    Probes,
    /// Everything, and power cuts aimed at nodes that have just voted.
    Votes,
    /// A log that rots, and then everything.
    Rot,
    /// Everything, on disks that write a little late.
    Slow,
    /// Nothing but leaders that fall silent, one after another.
    Elections,
}

impl Faults {
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "" | "all" => Self::All,
            "probes" => Self::Probes,
            "votes" => Self::Votes,
            "rot" => Self::Rot,
            "slow" => Self::Slow,
            "elections" => Self::Elections,
            _ => panic!("{name:?} is none of all, probes, votes, rot, slow, elections"),
        }
    }
}

/// What is mended later.
pub(super) enum Mend {
    Start(u64),
    Links(Vec<(u64, u64)>),
    Held(u64, u64),
    Latency,
    Clock(u64),
    SwitchOff(u64),
}

/// Breaks things.
pub(crate) struct Nemesis {
    pub(super) rng: StdRng,
    pub(super) next: u64,
    mends: Vec<(u64, Mend)>,
    rotted: bool,
    kinds: Faults,
    pub(super) silenced: Option<Silenced>,
    pub(super) last_machine: u64,
}

impl Nemesis {
    pub(crate) fn new(seed: u64, kinds: Faults) -> Self {
        let rng = StdRng::seed_from_u64(seed.wrapping_mul(7919).wrapping_add(17));
        let (mends, silenced) = (Vec::new(), None);
        Self { rng, next: 1500, mends, rotted: false, kinds, silenced, last_machine: 0 }
    }

    /// A new machine, whose process is started. Numbers are never used twice.
    pub(crate) fn add_machine(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) -> u64 {
        self.last_machine += 1;
        let id = self.last_machine;
        world.add_machine(id);
        let shared = Arc::clone(world);
        sim.host(host(id), move || process(Arc::clone(&shared), id));
        id
    }

    fn nodes(world: &World) -> Vec<u64> {
        world.machines.lock().keys().copied().collect()
    }

    /// Machines that are no members any more are switched off after a while.
    fn switch_off(&mut self, world: &World) {
        let removed: Vec<u64> = world.removed.lock().iter().copied().collect();
        for id in removed {
            let waits = |mend: &Mend| matches!(mend, Mend::SwitchOff(other) if *other == id);
            if !self.mends.iter().any(|(_, mend)| waits(mend)) {
                self.later(world, 0..1500, Mend::SwitchOff(id));
            }
        }
    }

    fn up(world: &World) -> Vec<u64> {
        let machines = world.machines.lock();
        machines.iter().filter(|(_, machine)| machine.node.is_some()).map(|(id, _)| *id).collect()
    }

    /// Mends what is due, and breaks something now and then.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        let now = world.millis();
        self.keep_up(sim, world);
        match self.kinds {
            Faults::All | Faults::Probes | Faults::Rot | Faults::Slow => {}
            Faults::Votes => self.strike_voters(sim, world),
            Faults::Elections => return self.silence_leaders(sim, world),
        }
        if now >= self.next && World::is(&world.ready) {
            self.next = now + self.rng.random_range(150..1800);
            if world.change.lock().is_some() {
                world.saw(Sight::FaultDuringChange);
            }
            self.attack(sim, world);
        }
    }

    pub(super) fn links_of(world: &World, id: u64) -> Vec<(u64, u64)> {
        let all = Self::nodes(world);
        all.into_iter().filter(|other| *other != id).map(|other| (id, other)).collect()
    }

    /// A process that ended by itself is stopped, and started again later.
    fn bury(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        let ended: Vec<(u64, String, bool, bool)> = world
            .machines
            .lock()
            .iter_mut()
            .filter_map(|(id, machine)| {
                Some((*id, machine.ended.take()?, machine.may_end, machine.rotten))
            })
            .collect();
        for (id, why, may_end, rotten) in ended {
            if !may_end && !rotten {
                world.violation(Check::Ended, format!("n{id} ended for no reason: {why}"));
            }
            stop(sim, world, id, None);
            if rotten && why.starts_with("refused") {
                self.replace(sim, world, id);
                continue;
            }
            self.later(world, 100..1500, Mend::Start(id));
        }
    }

    /// Where the power went within a write the machine is dark, whatever its process was doing with the disk.
    fn darken(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        let torn = |machine: &Machine| machine.disk.torn();
        let dark: Vec<u64> = {
            let machines = world.machines.lock();
            machines.iter().filter(|(_, machine)| torn(machine)).map(|(id, _)| *id).collect()
        };
        for id in dark {
            world.note(format!("n{id} is dark"));
            stop(sim, world, id, Some(Survivors::Random(self.rng.random())));
            self.later(world, 50..1500, Mend::Start(id));
        }
    }

    /// A node whose disk is lost is replaced by a new one under a new id.
    fn replace(&mut self, sim: &mut Sim<'_>, world: &Arc<World>, old: u64) {
        world.machines.lock().remove(&old);
        let new = self.add_machine(sim, world);
        world.note(format!("n{old} is to be replaced by n{new}"));
        *world.change.lock() = Some(Change::Replace { old, new });
        world.saw(Sight::Replaced);
    }

    pub(super) fn later(&mut self, world: &World, within: std::ops::Range<u64>, mend: Mend) {
        let at = world.millis() + self.rng.random_range(within);
        self.mends.push((at, mend));
    }

    pub(super) fn mend(sim: &mut Sim<'_>, world: &Arc<World>, mend: Mend) {
        match mend {
            Mend::Start(id) => start(sim, world, id),
            Mend::Links(links) => {
                world.note("links mended");
                for (a, b) in links {
                    sim.repair(host(a), host(b));
                }
            }
            Mend::Held(a, b) => {
                world.note("messages released");
                sim.release(host(a), host(b));
            }
            Mend::Latency => sim.set_max_message_latency(std::time::Duration::from_millis(8)),
            Mend::Clock(id) => {
                world.note(format!("clock of n{id} right"));
                if let Some(machine) = world.machines.lock().get(&id) {
                    machine.clock.set_wrong_by(0);
                }
            }
            Mend::SwitchOff(id) => {
                if world.machines.lock().contains_key(&id) {
                    world.note(format!("n{id} switched off"));
                    stop(sim, world, id, None);
                    world.machines.lock().remove(&id);
                }
                world.removed.lock().remove(&id);
            }
        }
    }

    /// Mends everything at once.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        if let Some(silenced) = self.silenced.take() {
            let links = Self::links_of(world, silenced.leader);
            Self::mend(sim, world, Mend::Links(links));
        }
        for (_, mend) in std::mem::take(&mut self.mends) {
            Self::mend(sim, world, mend);
        }
        for machine in world.machines.lock().values() {
            machine.disk.disarm();
        }
        world.note("healed");
    }

    /// Mends what is due, and starts again what has ended: that may be noticed late.
    pub(crate) fn keep_up(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        self.darken(sim, world);
        self.bury(sim, world);
        self.switch_off(world);
        let now = world.millis();
        let (due, rest) =
            std::mem::take(&mut self.mends).into_iter().partition(|(at, _)| *at <= now);
        self.mends = rest;
        let due: Vec<(u64, Mend)> = due;
        for (_, mend) in due {
            Self::mend(sim, world, mend);
        }
    }

    fn attack(&mut self, sim: &mut Sim<'_>, world: &Arc<World>) {
        let all = Self::nodes(world);
        let up = Self::up(world);
        let Some(&victim) = up.get(self.rng.random_range(0..up.len().max(1))) else { return };
        if self.kinds == Faults::Rot && !self.rotted {
            return self.rot(sim, world, victim);
        }
        match self.rng.random_range(0..18) {
            0 | 1 => {
                world.note(format!("n{victim} killed"));
                world.saw(Sight::Kill);
                stop(sim, world, victim, None);
                self.later(world, 20..1500, Mend::Start(victim));
            }
            2..=4 => self.power_cut(sim, world, &up),
            5 | 6 => self.partition(sim, world, &all, victim),
            7 => {
                let other = all[self.rng.random_range(0..all.len())];
                if other != victim {
                    world.note(format!("n{victim} and n{other}: messages held"));
                    world.saw(Sight::Held);
                    sim.hold(host(victim), host(other));
                    self.later(world, 100..2500, Mend::Held(victim, other));
                }
            }
            8 => {
                world.note("slow network");
                world.saw(Sight::Slow);
                let most = self.rng.random_range(20..150);
                sim.set_max_message_latency(std::time::Duration::from_millis(most));
                self.later(world, 300..2500, Mend::Latency);
            }
            9 | 10 => self.clock(world, victim),
            11 => {
                let nth = self.rng.random_range(1..30);
                world.note(format!("n{victim}: sync {nth} from now fails"));
                let mut machines = world.machines.lock();
                let machine = machines.get_mut(&victim).unwrap();
                machine.may_end = true;
                machine.disk.fail_sync(nth);
            }
            12 => {
                let (nth, bytes) = (self.rng.random_range(1..30), self.rng.random_range(0..2000));
                world.note(format!("n{victim}: power goes in write {nth} after {bytes} bytes"));
                let mut machines = world.machines.lock();
                let machine = machines.get_mut(&victim).unwrap();
                machine.may_end = true;
                machine.disk.tear_write(nth, bytes);
            }
            13 | 14 => self.rot(sim, world, victim),
            _ => self.change_members(sim, world),
        }
    }

    fn power_cut(&mut self, sim: &mut Sim<'_>, world: &Arc<World>, up: &[u64]) {
        let all = self.rng.random_ratio(1, 2);
        let dead: Vec<u64> =
            up.iter().copied().filter(|_| all || self.rng.random_ratio(1, 2)).collect();
        let survivors = match self.rng.random_range(0..4) {
            0 => Survivors::None,
            1 => Survivors::All,
            _ => Survivors::Random(self.rng.random()),
        };
        world.note(format!("power cut of {dead:?}"));
        world.saw(Sight::PowerCut);
        if dead == up && up.len() > 2 && survivors != Survivors::All {
            world.saw(Sight::PowerCutOfAll);
        }
        for id in dead {
            stop(sim, world, id, Some(survivors));
            self.later(world, 50..1500, Mend::Start(id));
        }
    }

    fn partition(&mut self, sim: &mut Sim<'_>, world: &Arc<World>, all: &[u64], victim: u64) {
        let one_way = self.rng.random_ratio(1, 3);
        let some = self.rng.random_ratio(1, 3);
        world.note(format!("n{victim} cut off (one way: {one_way}, partly: {some})"));
        world.saw(if one_way { Sight::OneWay } else { Sight::Partition });
        let others = all.iter().copied().filter(|other| *other != victim);
        let links: Vec<(u64, u64)> =
            others.take(if some { 1 } else { all.len() }).map(|other| (victim, other)).collect();
        for (a, b) in &links {
            if one_way {
                sim.partition_oneway(host(*a), host(*b));
            } else {
                sim.partition(host(*a), host(*b));
            }
        }
        self.later(world, 100..3000, Mend::Links(links));
    }

    fn clock(&mut self, world: &Arc<World>, victim: u64) {
        // Most often so far ahead that certificates have expired: that is asked at each call. That they are not valid yet is asked
        // when a connection is made.
        let by = match self.rng.random_range(0..7) {
            0..=2 => 10 * YEAR,
            3 => -10 * YEAR,
            4 => self.rng.random_range(-4 * YEAR..4 * YEAR),
            5 => self.rng.random_range(-HOUR..HOUR),
            _ => self.rng.random_range(-3000..3000),
        };
        world.note(format!("clock of n{victim} wrong by {by} ms"));
        world.saw(if by.abs() > YEAR { Sight::ClockYears } else { Sight::Clock });
        world.machines.lock()[&victim].clock.set_wrong_by(by);
        self.later(world, 500..6000, Mend::Clock(victim));
    }

    /// One disk a run rots at most: what two of three nodes lose may be lost for good. Nor does one rot while members change: a new
    /// one that never starts would be waited for.
    fn rot(&mut self, sim: &mut Sim<'_>, world: &Arc<World>, victim: u64) {
        stop(sim, world, victim, None);
        let log = self.kinds == Faults::Rot || self.rng.random_ratio(1, 2);
        if !self.rotted && world.change.lock().is_none() {
            let mut machines = world.machines.lock();
            let machine = machines.get_mut(&victim).unwrap();
            self.rotted = if log {
                disks::rot_log(&machine.disk, &mut self.rng)
            } else {
                disks::rot_snapshot(&machine.disk, &mut self.rng)
            };
            machine.rotten = self.rotted;
            if self.rotted {
                world.saw(if log { Sight::RotOfLog } else { Sight::RotOfSnapshot });
            }
        }
        let disk = world.machines.lock()[&victim].disk.clone();
        disks::check_log(world, victim, &disk);
        world.note(format!("n{victim} stopped (rot: {}, in the log: {log})", self.rotted));
        self.later(world, 20..600, Mend::Start(victim));
    }
}

/// Counts the faults that lay in wait in a disk and have struck.
fn struck(world: &World, disk: &SimFs) {
    for _ in 0..disk.failed_syncs() {
        world.saw(Sight::FailedSync);
    }
    if disk.torn() {
        world.saw(Sight::TornWrite);
    }
}

/// Ends a process. With `power`, the machine loses what was not synced.
pub(crate) fn stop(sim: &mut Sim<'_>, world: &Arc<World>, id: u64, power: Option<Survivors>) {
    let (node, disk) = {
        let mut machines = world.machines.lock();
        let machine = machines.get_mut(&id).unwrap();
        struck(world, &machine.disk);
        let after = match power {
            Some(survivors) => machine.disk.crash(survivors),
            None => machine.disk.restart(),
        };
        // What still runs must not write to the disk of its successor.
        machine.disk.power_cut();
        machine.disk = after.clone();
        machine.may_end = false;
        machine.ended = None;
        machine.seen = None;
        (machine.node.take(), after)
    };
    sim.crash(host(id));
    drop(node);
    disks::check_log(world, id, &disk);
}

/// Starts a process.
pub(crate) fn start(sim: &mut Sim<'_>, world: &Arc<World>, id: u64) {
    if world.machines.lock().get(&id).is_some_and(|machine| machine.node.is_none()) {
        world.note(format!("n{id} started"));
        sim.bounce(host(id));
    }
}
