//! One run: a cluster, its callers, its faults, and then the healing, after which all has to be well.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use holdfast::state::query;
use turmoil::{Builder, Sim};

use super::credentials::{AGENTS, agent_host};
use super::disks;
use super::nemesis::{Faults, Nemesis};
use super::operator;
use super::oracle::Check;
use super::probes;
use super::sights::Listener;
use super::workload;
use super::world::World;

/// How long things go wrong.
const FAULTS: u64 = 8_000;
/// How often it is looked at what would be on a disk if the power went, in milliseconds.
const POWER: u64 = 67;
/// How long callers go on after everything is mended.
const CALM: u64 = 1_000;
/// How long the nodes may take to be level after that. What was cut off is lost for good to a simulated connection, which sends
/// nothing twice; one for snapshots is given up 35 s later.
const LEVEL: u64 = 60_000;
/// How long a write may take to be acknowledged after everything is mended.
const FIRST_WRITE: u64 = 10_000;

/// What came of it.
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) events: Vec<String>,
    /// How often what was seen, as `name=times`.
    pub(crate) sights: String,
    pub(crate) simulated: Duration,
    pub(crate) wall: Duration,
    /// Time that a processor worked on it: a busy machine does not count.
    pub(crate) processor: Duration,
}

pub(crate) fn run(seed: u64, faults: Faults, echo: bool) -> Report {
    holdfast::planted::announce().unwrap();
    let (began, worked) = (Instant::now(), processor_time());
    holdfast::turns::simulate(seed);
    if faults == Faults::Slow {
        holdfast::turns::slow_disks();
    }
    let world = World::new(seed, echo);
    // Where all messages take equally long, nothing but chance keeps two candidates apart.
    let latency = if faults == Faults::Elections { (5, 5) } else { LATENCY };
    let _listening = Listener(Arc::clone(&world.oracle.lock().sights)).listen();
    let mut nemesis = Nemesis::new(seed, faults);
    let mut sim = three_nodes(&world, &mut nemesis, latency);
    for number in 1..=AGENTS {
        sim.client(agent_host(number), workload::agent(Arc::clone(&world), number));
    }
    sim.client("desk", workload::desk(Arc::clone(&world)));
    sim.client("ops", operator::operator(Arc::clone(&world)));
    if faults != Faults::All {
        sim.client("reader", probes::reader(Arc::clone(&world)));
        sim.client("forger", probes::forger(Arc::clone(&world)));
        sim.client("stranger", probes::stranger(Arc::clone(&world)));
    }
    drive(&mut sim, &world, &mut nemesis);
    let ids: Vec<u64> = world.machines.lock().keys().copied().collect();
    for id in ids {
        let disk = world.machines.lock()[&id].disk.clone();
        disks::check_log(&world, id, &disk);
    }
    let millis = world.millis();
    let oracle = world.oracle.lock();
    Report {
        hash: oracle.hash(),
        violations: oracle.violations.clone(),
        events: oracle.events.clone(),
        sights: oracle.sights.lock().to_string(),
        simulated: Duration::from_millis(millis),
        wall: began.elapsed(),
        processor: processor_time().saturating_sub(worked),
    }
}

/// Milliseconds that a message takes: least and most.
pub(crate) const LATENCY: (u64, u64) = (1, 8);

/// Three machines on a network, not yet a cluster.
pub(crate) fn three_nodes(
    world: &Arc<World>,
    nemesis: &mut Nemesis,
    (least, most): (u64, u64),
) -> Sim<'static> {
    let mut sim = Builder::new()
        .rng_seed(world.seed)
        .simulation_duration(Duration::from_secs(3600))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(least))
        .max_message_latency(Duration::from_millis(most))
        .tcp_capacity(4096)
        .enable_random_order()
        .build();
    for _ in 0..3 {
        nemesis.add_machine(&mut sim, world);
    }
    sim
}

/// How long this thread, which does everything, has had a processor.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// One step of the whole simulation. False once all callers are done or something is wrong.
pub(crate) fn step(sim: &mut Sim<'_>, world: &Arc<World>) -> bool {
    let done = match sim.step() {
        Ok(done) => done,
        Err(error) => {
            world.violation(Check::Ended, format!("the simulation failed: {error}"));
            true
        }
    };
    world.set_millis(u64::try_from(sim.elapsed().as_millis()).unwrap());
    !done && world.oracle.lock().violations.is_empty()
}

fn drive(sim: &mut Sim<'_>, world: &Arc<World>, nemesis: &mut Nemesis) {
    while world.millis() < FAULTS {
        if !step(sim, world) {
            return;
        }
        nemesis.step(sim, world);
        if world.millis().is_multiple_of(POWER) {
            disks::if_power_went(world, world.millis() / POWER);
        }
    }
    nemesis.heal(sim, world);
    let healed = world.millis();
    let before = world.oracle.lock().escrows.len();
    let mut written = false;
    while world.millis() < healed + CALM || !written {
        if !step(sim, world) {
            return;
        }
        nemesis.keep_up(sim, world);
        written = written || world.oracle.lock().escrows.len() > before;
        if !written && world.millis() > healed + FIRST_WRITE {
            world.violation(Check::Live, "no write is acknowledged although all is mended");
            return;
        }
    }
    world.stopping.store(true, Ordering::Relaxed);
    let stopped = world.millis();
    let mut level = None;
    // Level for a while, and everybody has been answered.
    while level.is_none_or(|since: u64| world.millis() < since + 300) {
        if !step(sim, world) {
            return;
        }
        nemesis.keep_up(sim, world);
        let idle = world.working.load(Ordering::Relaxed) == 0;
        level = if idle && is_level(world) { level.or(Some(world.millis())) } else { None };
        if world.millis() > stopped + LEVEL {
            let what = if idle { "the nodes are not level" } else { "callers have no answer" };
            world.violation(
                Check::Live,
                format!("{what} although all is mended: {}", standing(world)),
            );
            return;
        }
    }
    world.note("level");
    everything_is_there(world);
    world.level.store(true, Ordering::Relaxed);
    while step(sim, world) {}
}

/// Whether all members run and have applied the same.
fn is_level(world: &World) -> bool {
    if world.change.lock().is_some() || !world.removed.lock().is_empty() {
        return false;
    }
    let machines = world.machines.lock();
    let mut applied = Vec::new();
    for machine in machines.values() {
        let Some((last, index)) = machine.seen.filter(|_| machine.node.is_some()) else {
            return false;
        };
        if last != index {
            return false;
        }
        applied.push(index);
    }
    applied.windows(2).all(|pair| pair[0] == pair[1])
}

/// Where every machine stands, in words.
fn standing(world: &World) -> String {
    let machines = world.machines.lock();
    let mut said: Vec<String> = machines
        .iter()
        .map(|(id, machine)| {
            let runs = if machine.node.is_some() { "runs" } else { "is off" };
            let leads = if machine.leads { ", leads" } else { "" };
            format!(
                "n{id} {runs}{leads}, term {}, log and applied {:?}",
                machine.term, machine.seen
            )
        })
        .collect();
    drop(machines);
    said.extend(world.change.lock().map(|change| format!("{change:?} is not done")));
    said.extend(world.removed.lock().iter().map(|id| format!("n{id} is removed and runs")));
    said.join("; ")
}

/// Every acknowledged escrow is in the state of every node, as it was sent.
fn everything_is_there(world: &World) {
    let escrows = world.oracle.lock().escrows.clone();
    let machines = world.machines.lock();
    let mut lost = Vec::new();
    for (id, machine) in machines.iter() {
        let Some(node) = &machine.node else { continue };
        for escrowed in &escrows {
            match query::key(node.view(), escrowed.protector, escrowed.version) {
                Ok(Some(stored)) if stored.sealed == escrowed.sealed => {}
                Ok(_) => lost.push(format!("n{id} lost the escrow at {}", escrowed.index)),
                Err(error) => lost.push(format!("n{id} can't read: {error}")),
            }
        }
    }
    drop(machines);
    for what in lost {
        world.violation(Check::Lost, what);
    }
}
