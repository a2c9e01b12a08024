//! One fault after the other: put in place, looked at, taken away, and all well again.

use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;

use super::{Run, WELL, pause};
use crate::fault::{Fault, Hit, Kind};
use crate::history::{Effect, Event, FaultEvent, FaultStep};
use crate::schedule::{Next, Schedule};
use crate::workload::Workload;

/// How long a step of a fault may take: a replacement waits for a whole copy, and changes of members for each other.
const STEP: Duration = Duration::from_secs(240);

impl Run {
    pub(super) async fn faults(
        &self,
        load: &Workload,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let possible: Vec<_> = self
            .options
            .kinds
            .iter()
            .copied()
            .filter(|kind| self.left_out(kind).is_none())
            .collect();
        let millis = u64::try_from(self.options.duration.as_millis())?;
        let deadline = Instant::now() + self.options.duration;
        for (number, next) in (1..).zip(Schedule::new(possible, self.options.seed, millis)) {
            if *stop.borrow() || Instant::now() >= deadline {
                return Ok(());
            }
            self.one_fault(number, next, load, stop).await?;
            pause(Duration::from_millis(next.rest), stop).await;
        }
        // No fault was chosen that this machine can do.
        pause(deadline.saturating_duration_since(Instant::now()), stop).await;
        Ok(())
    }

    async fn one_fault(
        &self,
        number: u64,
        next: Next,
        load: &Workload,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut fault = (next.kind.make)();
        let hit = self.install(number, next, fault.as_mut(), stop).await;
        // A server that was replaced is another one to the clients from now on.
        load.set_endpoints(self.endpoints());
        pause(Duration::from_millis(next.hold), stop).await;
        self.heal(number, next.kind, fault.as_mut(), &hit).await?;
        load.set_endpoints(self.endpoints());
        if let Err(error) = self.world.healthy(WELL).await {
            let what =
                format!("after fault {number}, {} of {}: {error:#}", next.kind.name, hit.target);
            self.world.finding("converge", true, what);
        }
        Ok(())
    }

    async fn install(
        &self,
        number: u64,
        next: Next,
        fault: &mut dyn Fault,
        stop: &watch::Receiver<bool>,
    ) -> Hit {
        let at = self.recorder.now();
        let mut rng = StdRng::seed_from_u64(next.seed);
        let mut stop = stop.clone();
        let installed = tokio::select! {
            installed = tokio::time::timeout(STEP, fault.install(&self.world, &mut rng)) => installed,
            _ = stop.wait_for(|stop| *stop) => Ok(Err(anyhow::anyhow!("interrupted"))),
        };
        let hit = match installed {
            Ok(Ok(hit)) => hit,
            Ok(Err(error)) => unclear(format!("{error:#}")),
            Err(_) => unclear(format!("it took longer than {STEP:?}")),
        };
        tracing::info!("fault {number}: {} of {}: {:?}", next.kind.name, hit.target, hit.effect);
        self.record(at, number, next.kind, &hit, (FaultStep::Install, hit.effect.clone()));
        hit
    }

    /// Heals a fault. If that fails, the run can go on no longer: what comes after it would be judged wrongly.
    async fn heal(
        &self,
        number: u64,
        kind: &'static Kind,
        fault: &mut dyn Fault,
        hit: &Hit,
    ) -> anyhow::Result<()> {
        let at = self.recorder.now();
        let healed = tokio::time::timeout(STEP, fault.heal(&self.world)).await;
        let healed = healed.map_err(anyhow::Error::from).flatten();
        let effect = match &healed {
            Ok(seen) => Effect::Installed { seen: seen.clone() },
            Err(error) => Effect::Indeterminate { why: format!("{error:#}") },
        };
        self.record(at, number, kind, hit, (FaultStep::Heal, effect));
        if let Err(error) = healed {
            let what = format!(
                "fault {number}, {} of {}, is not healed: {error:#}",
                kind.name, hit.target
            );
            self.world.finding("converge", true, what.clone());
            anyhow::bail!(what);
        }
        Ok(())
    }

    fn record(
        &self,
        at: u64,
        number: u64,
        kind: &Kind,
        hit: &Hit,
        (step, effect): (FaultStep, Effect),
    ) {
        self.recorder.record(&Event::Fault(FaultEvent {
            at,
            until: self.recorder.now(),
            number,
            kind: kind.name.to_owned(),
            target: hit.target.clone(),
            nodes: hit.nodes.clone(),
            step,
            effect,
        }));
    }
}

fn unclear(why: String) -> Hit {
    Hit { target: String::new(), nodes: Vec::new(), effect: Effect::Indeterminate { why } }
}
