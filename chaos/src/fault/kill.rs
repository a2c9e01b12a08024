//! Processes that end at once, or in order.

use std::time::Duration;

use rand::rngs::StdRng;
use rustix::process::Signal;

use super::{Fault, Hit, LEADER, Step, Whom, restore, risk, targets};
use crate::env::World;

/// `kill -9`.
pub(crate) struct Kill(pub(crate) Whom);

impl Fault for Kill {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, self.0, rng).await?;
            risk(&hit);
            // All are hit before any is waited for.
            hit.iter().for_each(|server| {
                server.signal(Signal::KILL);
            });
            let mut seen = Vec::new();
            for server in &hit {
                let ended = server.wait_ended(Duration::from_secs(30)).await?;
                seen.push(ended.map_or_else(|| "was gone".to_owned(), |status| status.to_string()));
            }
            Ok(Hit::seen(&hit, target, format!("ended: {}", seen.join(", "))))
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(restore(world))
    }
}

/// Each server is stopped in order and started again, one after the other.
pub(crate) struct RollingRestart;

impl Fault for RollingRestart {
    fn install<'a>(&'a mut self, world: &'a World, _: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let all: Vec<_> = world.servers().iter().collect();
            for server in &all {
                server.set_at_risk(true);
                server.stop().await?;
                world.start(server).await?;
                world.healthy(Duration::from_secs(60)).await?;
                server.set_at_risk(false);
            }
            Ok(Hit::seen(&all, "all, one after the other", "each ended with code 0 and came back"))
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(restore(world))
    }
}

/// Leadership is handed on, as before maintenance.
pub(crate) struct Transfer;

impl Fault for Transfer {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, _) = targets(world, Whom::Follower, rng).await?;
            let old = world.leader(LEADER).await?.id();
            let to = hit.first().map_or(0, |server| server.id());
            let id = to.to_string();
            world.holdfast(&["cluster", "transfer", &id]).await?;
            let now = world.leader(LEADER).await?.id();
            let target = format!("from node {old} to node {to}");
            Ok(if now == to {
                Hit::seen(&hit, target, format!("node {now} leads"))
            } else {
                Hit::unseen(&hit, target, format!("node {now} leads"))
            })
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(restore(world))
    }
}
