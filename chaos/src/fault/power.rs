//! The power goes: the process ends, and what was not synced is gone from the disk.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::StdRng;
use rustix::process::Signal;

use super::{Fault, Hit, Step, Whom, restore, risk, targets};
use crate::env::disk::{Disk, is_mounted};
use crate::env::{Server, World};

/// A loss of power.
pub(crate) struct PowerLoss(pub(crate) Whom);

/// Two files on a disk: one that was synced, and one that was not. What becomes of them shows whether it was a loss of power.
struct Witness {
    synced: PathBuf,
    unsynced: PathBuf,
}

impl Witness {
    fn lay(server: &Server) -> anyhow::Result<Self> {
        let point = server.disk.as_ref().context("no disk of its own")?.point().to_owned();
        let witness = Self { synced: point.join("synced"), unsynced: point.join("unsynced") };
        let mut file = std::fs::File::create(&witness.synced)?;
        file.write_all(b"here to stay")?;
        file.sync_all()?;
        std::fs::File::open(&point)?.sync_all()?;
        // A new file each time: ext4 writes one out early that was there before and was cut to nothing (auto_da_alloc).
        remove(&witness.unsynced)?;
        std::fs::File::create_new(&witness.unsynced)?.write_all(&[7; 4096])?;
        Ok(witness)
    }

    fn look(&self) -> (bool, bool) {
        let kept = std::fs::read(&self.synced).is_ok_and(|bytes| bytes == b"here to stay");
        let gone = std::fs::read(&self.unsynced).map_or(true, |bytes| bytes != [7; 4096]);
        (kept, gone)
    }
}

fn remove(file: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Fault for PowerLoss {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, self.0, rng).await?;
            risk(&hit);
            let witnesses: Vec<Witness> =
                hit.iter().map(|server| Witness::lay(server)).collect::<Result<_, _>>()?;
            let disks: Vec<&Disk> = hit.iter().filter_map(|server| server.disk.as_ref()).collect();
            Disk::power_off(&disks).await?;
            hit.iter().for_each(|server| {
                server.signal(Signal::KILL);
            });
            for server in &hit {
                server.wait_ended(Duration::from_secs(30)).await?;
            }
            let (mut kept, mut gone) = (0, 0);
            for (server, witness) in hit.iter().zip(&witnesses) {
                server.disk.as_ref().context("no disk")?.power_on().await?;
                let (is_kept, is_gone) = witness.look();
                kept += usize::from(is_kept);
                gone += usize::from(is_gone);
            }
            let seen = format!(
                "of {} disks {kept} kept a synced file and {gone} lost one that was not",
                hit.len()
            );
            Ok(if kept == hit.len() && gone == hit.len() {
                Hit::seen(&hit, target, seen)
            } else {
                Hit::unseen(&hit, target, seen)
            })
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            for server in world.servers() {
                if let Some(disk) = server.disk.as_ref().filter(|disk| !is_mounted(disk.point())) {
                    disk.power_on().await?;
                }
            }
            restore(world).await
        })
    }
}
