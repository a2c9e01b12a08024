//! Servers that are replaced: after their disk was lost, or in good health.

use anyhow::Context as _;
use rand::rngs::StdRng;

use super::{Fault, Hit, Step, Whom, restore, risk, targets};
use crate::env::World;

/// A server is replaced by a new one under a new id and with an empty disk.
pub(crate) struct Replace {
    /// Whether the old one is lost at once. If not, it is stopped in order.
    pub(crate) lost: bool,
    pub(crate) whom: Whom,
}

impl Fault for Replace {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, self.whom, rng).await?;
            let server = *hit.first().context("nobody")?;
            risk(&hit);
            let mut event = Hit::seen(&hit, target, "");
            if !self.lost {
                server.stop().await?;
            }
            let (old, new) = world.replace(server).await?;
            let seen = format!("node {new} took the place of node {old}");
            event.effect = crate::history::Effect::Installed { seen };
            event.nodes.push(new);
            Ok(event)
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(restore(world))
    }
}
