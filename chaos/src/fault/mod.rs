//! Faults: how each is put in place, how it is taken away, and how it is seen that it took effect.
//!
//! A fault that was not seen to take effect counts as nothing: a run in which nothing broke proves nothing. "Seen" is an
//! observation of its own, such as a counter of dropped packets, and never that a command ended with 0.

mod catalogue;
mod damage;
mod disk;
mod inject;
mod kill;
mod link;
mod load;
mod member;
mod needs;
mod partition;
mod pause;
mod power;
mod resource;
mod time;
mod under;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

pub use catalogue::{CATALOGUE, Kind, chosen, find_kind, lacks, lacks_hosts, lacks_plain};
pub use link::delay_packets;
pub use needs::Need;

use crate::env::{Server, World};
use crate::history::Effect;

/// How long somebody may take to lead.
pub(crate) const LEADER: Duration = Duration::from_secs(20);
/// How long an effect may take to be seen.
const SEEN: Duration = Duration::from_secs(5);

/// Something that takes a while.
pub type Step<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + Send + 'a>>;

/// What was hit, and whether it took effect.
#[derive(Debug, Clone)]
pub struct Hit {
    /// For a person.
    pub target: String,
    /// Servers.
    pub nodes: Vec<u64>,
    /// Whether it took effect.
    pub effect: Effect,
}

impl Hit {
    fn seen(servers: &[&Server], target: impl Into<String>, seen: impl Into<String>) -> Self {
        let effect = Effect::Installed { seen: seen.into() };
        Self { target: target.into(), nodes: ids(servers), effect }
    }

    fn unseen(servers: &[&Server], target: impl Into<String>, why: impl Into<String>) -> Self {
        let effect = Effect::Indeterminate { why: why.into() };
        Self { target: target.into(), nodes: ids(servers), effect }
    }

    fn skipped(servers: &[&Server], target: impl Into<String>, why: impl Into<String>) -> Self {
        let effect = Effect::Skipped { why: why.into() };
        Self { target: target.into(), nodes: ids(servers), effect }
    }
}

fn ids(servers: &[&Server]) -> Vec<u64> {
    servers.iter().map(|server| server.id()).collect()
}

/// A fault. One that was never put in place, or only in part, can be taken away too, and once more.
pub trait Fault: Send {
    /// Puts it in place.
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit>;

    /// Takes it away and lets every server run again; says what was seen.
    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String>;
}

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    Leader,
    Follower,
    Any,
    Two,
    All,
}

/// Chooses servers, with a name for the choice.
async fn targets<'a>(
    world: &'a World,
    whom: Whom,
    rng: &mut StdRng,
) -> anyhow::Result<(Vec<&'a Server>, String)> {
    let leader = world.leader(LEADER).await?;
    let others: Vec<&Server> =
        world.servers().iter().filter(|server| server.host != leader.host).collect();
    let hit: Vec<&Server> = match whom {
        Whom::Leader => vec![leader],
        Whom::Follower => others.choose(rng).into_iter().copied().collect(),
        Whom::Any => world.servers().choose(rng).into_iter().collect(),
        Whom::Two => others.choose(rng).into_iter().copied().chain([leader]).collect(),
        Whom::All => world.servers().iter().collect(),
    };
    let name = hit
        .iter()
        .map(|server| {
            let role = if server.host == leader.host { "leader" } else { "follower" };
            format!("node {} ({role})", server.id())
        })
        .collect::<Vec<_>>()
        .join(", ");
    Ok((hit, name))
}

/// Looks at a condition until it gives something or the limit is over.
async fn watch<T, F, Fut>(limit: Duration, mut look: F) -> Option<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Marks servers that a fault may end.
fn risk(servers: &[&Server]) {
    servers.iter().for_each(|server| server.set_at_risk(true));
}

/// Lets every server run again. Nothing to do for one that runs.
async fn restore(world: &World) -> anyhow::Result<String> {
    let mut started = Vec::new();
    for server in world.servers() {
        server.signal(rustix::process::Signal::CONT);
        // What ended a moment ago is noticed here.
        let ended = server.ended().await?;
        if ended.is_some() || server.pid().is_none() {
            // All at once: after a loss of power nobody waits for another.
            world.registry().note(server.spawn().await?);
            started.push(server.id());
        }
    }
    for server in world.servers() {
        world.start(server).await?;
        server.set_at_risk(false);
    }
    Ok(match started.as_slice() {
        [] => "all run".to_owned(),
        started => format!("started: {started:?}"),
    })
}
