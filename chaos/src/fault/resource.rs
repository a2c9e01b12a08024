//! Servers that are short of processor time or memory: control groups.

use std::path::PathBuf;

use anyhow::Context as _;
use rand::rngs::StdRng;

use super::{Fault, Hit, SEEN, Step, Whom, restore, risk, targets, watch};
use crate::env::{Server, World, files};

/// What is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    /// A twentieth of a processor.
    Cpu,
    /// Less memory than it has now.
    Memory,
}

/// A control group that gives less.
pub(crate) struct Starve(pub(crate) Short);

fn group(server: &Server, kind: &str) -> anyhow::Result<PathBuf> {
    let group = server.group(kind).context("the server is in no control group")?;
    Ok(group)
}

fn counter(path: PathBuf, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    found.unwrap_or(0)
}

impl Starve {
    /// Puts the limit in place and gives the counter that shows it at work: its file, its line, its name for a person.
    fn limit(&self, server: &Server) -> anyhow::Result<(PathBuf, &'static str, &'static str)> {
        match self.0 {
            Short::Cpu => {
                let group = group(server, "cpu")?;
                files::poke(&group.join("cpu.cfs_period_us"), "100000")?;
                files::poke(&group.join("cpu.cfs_quota_us"), "5000")?;
                Ok((group.join("cpu.stat"), "nr_throttled", "periods of no processor"))
            }
            Short::Memory => {
                let group = group(server, "memory")?;
                let used = counter(group.join("memory.usage_in_bytes"), "");
                // What lies in the page cache can be given up; of the rest there has to be some left to run on.
                let mut limit = (used / 2).max(24 << 20);
                let file = group.join("memory.limit_in_bytes");
                while files::poke(&file, &limit.to_string()).is_err() && limit < used * 2 {
                    limit += 8 << 20;
                }
                Ok((group.join("memory.failcnt"), "", "allocations at the limit"))
            }
        }
    }
}

impl Fault for Starve {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, Whom::Any, rng).await?;
            risk(&hit);
            let server = *hit.first().context("nobody")?;
            let (file, line, what) = self.limit(server)?;
            let before = counter(file.clone(), line);
            let more = watch(SEEN, || async {
                counter(file.clone(), line).checked_sub(before).filter(|more| *more > 0)
            });
            Ok(match more.await {
                Some(more) => Hit::seen(&hit, target, format!("{more} {what}")),
                None => Hit::unseen(&hit, target, format!("no {what}")),
            })
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            for server in world.servers() {
                if let Some(group) = server.group("cpu") {
                    files::poke(&group.join("cpu.cfs_quota_us"), "-1")?;
                }
                if let Some(group) = server.group("memory") {
                    files::poke(&group.join("memory.limit_in_bytes"), "-1")?;
                }
            }
            restore(world).await
        })
    }
}
