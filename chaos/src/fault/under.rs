//! Changes of the members and of who leads while another fault lasts.
//!
//! With one server faulty, each change has to be made within a bound. Without a majority none may be acknowledged. What was
//! acknowledged has to hold when all is well again; the checker `members` sees to that.

use std::time::Instant;

use anyhow::Context as _;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::{Fault, Hit, LEADER, Step};
use crate::env::{CHANGE, Server, World};
use crate::history::{Change, Effect};

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    /// The spare host joins and gets a vote, leadership is handed on, and the spare host leaves.
    JoinAndLeave,
    /// The spare host takes the place of the faulty server, which comes back under a new id when it is well.
    Replace,
    /// As `JoinAndLeave`, and none of it can be done.
    Nothing,
}

/// Changes under a fault.
pub(crate) struct Under {
    base: Box<dyn Fault>,
    what: Meanwhile,
}

impl Under {
    pub(crate) fn new(base: impl Fault + 'static, what: Meanwhile) -> Self {
        Self { base: Box::new(base), what }
    }
}

/// What was made, and how long it took, for a person.
#[derive(Default)]
struct Told(Vec<String>);

impl Told {
    async fn change(&mut self, world: &World, change: Change) -> anyhow::Result<bool> {
        let before = Instant::now();
        let made = world.change(change).await?;
        let word = if made { "made" } else { "not made" };
        self.0.push(format!("{change:?} {word} in {:.1?}", before.elapsed()));
        Ok(made)
    }
}

impl Under {
    /// A server that is well and does not lead, to hand leadership to.
    async fn heir<'a>(world: &'a World, faulty: &[u64]) -> anyhow::Result<&'a Server> {
        let leader = world.leader(LEADER).await?.id();
        let mut well = world.servers().iter().filter(|server| !faulty.contains(&server.id()));
        well.find(|server| server.id() != leader).context("nobody could lead but who does")
    }

    async fn join_and_leave(
        world: &World,
        faulty: &[u64],
        rng: &mut StdRng,
    ) -> anyhow::Result<Told> {
        let (spare, mut told) = (world.spare().id(), Told::default());
        let joined = told.change(world, Change::AddLearner(spare)).await?
            && told.change(world, Change::Promote(spare)).await?;
        if !joined {
            return Ok(told);
        }
        // Now and then the newcomer leads when it has to go.
        let to = if rng.random_bool(0.3) { spare } else { Self::heir(world, faulty).await?.id() };
        told.change(world, Change::Transfer(to)).await?;
        told.change(world, Change::Remove(spare)).await?;
        Ok(told)
    }

    async fn replace(world: &World, faulty: &[u64]) -> anyhow::Result<Told> {
        let (spare, mut told) = (world.spare().id(), Told::default());
        let old = *faulty.first().context("nobody is faulty")?;
        if told.change(world, Change::AddLearner(spare)).await?
            && told.change(world, Change::Promote(spare)).await?
        {
            told.change(world, Change::Remove(old)).await?;
        }
        Ok(told)
    }

    async fn nothing(world: &World) -> anyhow::Result<Told> {
        let change = Change::AddLearner(world.spare().id());
        let word = if world.change_in_vain(change).await? { "MADE" } else { "not made" };
        Ok(Told(vec![format!("{change:?} {word}")]))
    }

    async fn changes(
        what: Meanwhile,
        world: &World,
        faulty: &[u64],
        rng: &mut StdRng,
    ) -> anyhow::Result<Told> {
        match what {
            Meanwhile::JoinAndLeave => Self::join_and_leave(world, faulty, rng).await,
            Meanwhile::Replace => Self::replace(world, faulty).await,
            Meanwhile::Nothing => Self::nothing(world).await,
        }
    }
}

impl Fault for Under {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            world.spare().set_at_risk(true);
            // Before the fault: a new server needs nobody to start.
            world.renew(world.spare()).await.context("the spare host's server")?;
            let mut hit = self.base.install(world, rng).await?;
            let Effect::Installed { seen } = &hit.effect else { return Ok(hit) };
            let told = Self::changes(self.what, world, &hit.nodes, rng).await?;
            if let Some(status) = world.spare().ended().await? {
                let spare = world.spare();
                let what = format!("node {} ended ({status}): {}", spare.id(), spare.last_line());
                world.finding("panic", true, what);
            }
            let seen = format!("{seen}; meanwhile: {}", told.0.join(", "));
            hit.effect = Effect::Installed { seen };
            Ok(hit)
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            let healed = self.base.heal(world).await?;
            world.leader(LEADER).await?;
            world.settle().await?;
            world.healthy(CHANGE * 2).await?;
            world.record_members().await?;
            Ok(format!("{healed}; members: {:?}", world.ids()))
        })
    }
}
