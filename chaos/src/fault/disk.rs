//! Disks that are full, or hang.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use holdfast::cli::local_cluster::http_get;
use rand::rngs::StdRng;
use tokio::process::{Child, Command};

use super::{Fault, Hit, SEEN, Step, Whom, restore, risk, targets, watch};
use crate::env::command::call;
use crate::env::{Server, World, files};

/// All the room is taken.
pub(crate) struct DiskFull(pub(crate) Whom);

/// The value of a metric of a server.
pub(crate) async fn metric(server: &Server, name: &str) -> Option<f64> {
    let (_, page) = http_get(&server.addresses.http, "/metrics").await.ok()?;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

impl Fault for DiskFull {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, self.0, rng).await?;
            let mut taken = 0;
            for server in &hit {
                taken += server.disk.as_ref().context("no disk of its own")?.fill()?;
            }
            let first = *hit.first().context("nobody")?;
            let low = watch(SEEN, || async {
                metric(first, "holdfast_disk_low").await.filter(|low| *low > 0.0)
            })
            .await;
            let seen = format!("{} MiB were taken, nothing is left", taken >> 20);
            Ok(Hit::seen(
                &hit,
                target,
                match low {
                    Some(_) => format!("{seen}; the server says disk_low"),
                    None => format!("{seen}; the server doesn't say disk_low"),
                },
            ))
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            for disk in world.servers().iter().filter_map(|server| server.disk.as_ref()) {
                disk.free()?;
            }
            restore(world).await
        })
    }
}

/// Every write and fsync hangs: the file system is frozen.
pub(crate) struct HungDisk {
    pub(crate) whom: Whom,
    guard: Option<Child>,
}

/// The file system goes on by itself after this time, whatever becomes of this process: even `kill -9` waits for it.
const THAW: &str = "45";

impl HungDisk {
    pub(crate) const fn new(whom: Whom) -> Self {
        Self { whom, guard: None }
    }
}

/// How many threads of a process wait for a disk and can't be interrupted.
fn hanging(pid: u32) -> usize {
    let tasks = files::entries(std::path::Path::new(&format!("/proc/{pid}/task")));
    let hangs = |task: &std::path::PathBuf| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('D'))
    };
    tasks.iter().filter(|task| hangs(task)).count()
}

impl Fault for HungDisk {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, self.whom, rng).await?;
            risk(&hit);
            let server = *hit.first().context("nobody")?;
            let disk = server.disk.as_ref().context("no disk of its own")?;
            let point = disk.point().display().to_string();
            // It outlives this process on purpose.
            let mut guard = Command::new("sh");
            guard.args(["-c", "sleep \"$0\"; exec fsfreeze -u \"$1\"", THAW, &point]);
            guard.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
            let guard = guard.spawn().context("a guard that thaws")?;
            world.registry().note(guard.id().unwrap_or(0));
            self.guard = Some(guard);
            call("fsfreeze", &["-f", &point]).await?;
            let seen = watch(SEEN, || async {
                Some(hanging(server.pid()?)).filter(|threads| *threads > 0)
            });
            Ok(match seen.await {
                Some(threads) => Hit::seen(&hit, target, format!("{threads} threads in state D")),
                None => Hit::unseen(&hit, target, "frozen, and no thread hangs"),
            })
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            for disk in world.servers().iter().filter_map(|server| server.disk.as_ref()) {
                // An error if it is not frozen, as all but one.
                drop(call("fsfreeze", &["-u", &disk.point().display().to_string()]).await);
            }
            if let Some(mut guard) = self.guard.take() {
                guard.kill().await.context("ending the guard")?;
            }
            // A server that saw its disk hang may be about to end: it says so at once.
            tokio::time::sleep(Duration::from_millis(300)).await;
            restore(world).await
        })
    }
}
