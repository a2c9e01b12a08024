//! A disk that has not yet done what the process waits for, when the power goes: what the process did without waiting shows.

use anyhow::Context as _;
use rand::rngs::StdRng;
use rustix::process::Signal;

use super::inject::{Evil, Inject};
use super::{Fault, Hit, Step, Whom};
use crate::env::disk::{Disk, is_mounted};
use crate::env::{Server, World};

/// How long the process may take to be gone.
const ENDS: std::time::Duration = std::time::Duration::from_secs(30);

/// The fsyncs of the leader's log begin late, and in the middle of that its power goes.
pub(crate) struct LateLog {
    late: Inject,
    hit: Vec<u64>,
}

impl LateLog {
    pub(crate) const fn new() -> Self {
        Self { late: Inject::new(Evil::LateSync, Whom::Leader), hit: Vec::new() }
    }
}

async fn cut(server: &Server) -> anyhow::Result<()> {
    let disk = server.disk.as_ref().context("no disk of its own")?;
    Disk::power_off(&[disk]).await?;
    server.signal(Signal::KILL);
    server.wait_ended(ENDS).await?;
    disk.power_on().await
}

impl Fault for LateLog {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let hit = self.late.install(world, rng).await?;
            self.hit.clone_from(&hit.nodes);
            Ok(hit)
        })
    }

    /// The power goes now: while this lasted, the fsyncs were late.
    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            let hit = std::mem::take(&mut self.hit);
            for server in world.servers() {
                if hit.contains(&server.id()) && server.pid().is_some() {
                    cut(server).await?;
                } else if let Some(disk) = &server.disk
                    && !is_mounted(disk.point())
                {
                    disk.power_on().await?;
                }
            }
            self.late.heal(world).await
        })
    }
}
