//! A process that stands still in the middle of whatever it does, and goes on later as if nothing had been.

use rand::rngs::StdRng;
use rustix::process::Signal;

use super::{Fault, Hit, SEEN, Step, Whom, restore, targets, watch};
use crate::env::World;

/// SIGSTOP, later SIGCONT.
pub(crate) struct Pause(pub(crate) Whom);

/// The letter of a process's state.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

impl Fault for Pause {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, self.0, rng).await?;
            for server in &hit {
                server.signal(Signal::STOP);
            }
            let stopped = watch(SEEN, || async {
                let stands = |pid: Option<u32>| pid.and_then(state) == Some('T');
                hit.iter().all(|server| stands(server.pid())).then_some(())
            });
            Ok(match stopped.await {
                Some(()) => Hit::seen(&hit, target, "the process is in state T (stopped)"),
                None => Hit::unseen(&hit, target, "the process is not in state T"),
            })
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(restore(world))
    }
}
