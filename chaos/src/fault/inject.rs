//! System calls that fail, are slow, or are the last thing that a process does: strace, attached to a running server.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::process::{Child, Command};

use super::{Fault, Hit, Step, Whom, restore, risk, targets, watch};
use crate::env::{Server, World, files};

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evil {
    /// fsync of the log fails with EIO.
    SyncEio,
    /// A write to the log fails with EIO.
    WriteEio,
    /// A write to the log fails with ENOSPC.
    WriteNoSpace,
    /// fsync of the log fails with ENOSPC.
    SyncNoSpace,
    /// The process is killed as it enters its n-th fsync.
    KillAtSync,
    /// Each fsync takes 200 ms longer.
    SlowSync,
}

/// A server under strace.
pub(crate) struct Inject {
    evil: Evil,
    whom: Whom,
    strace: Option<Child>,
}

impl Inject {
    pub(crate) const fn new(evil: Evil, whom: Whom) -> Self {
        Self { evil, whom, strace: None }
    }

    fn expression(&self, rng: &mut StdRng) -> (&'static str, String) {
        let sync = "fdatasync";
        match self.evil {
            Evil::SyncEio => (sync, "error=EIO:when=1".to_owned()),
            Evil::SyncNoSpace => (sync, "error=ENOSPC:when=1".to_owned()),
            Evil::WriteEio => ("pwrite64", "error=EIO:when=1".to_owned()),
            Evil::WriteNoSpace => ("pwrite64", "error=ENOSPC:when=1".to_owned()),
            Evil::KillAtSync => {
                (sync, format!("signal=KILL:when={}", rng.random_range(1..=40_u32)))
            }
            Evil::SlowSync => (sync, "delay_exit=200ms".to_owned()),
        }
    }

    /// Attaches strace to a server's calls on its log.
    async fn attach(
        &mut self,
        world: &World,
        server: &Server,
        rng: &mut StdRng,
    ) -> anyhow::Result<PathBuf> {
        let pid = server.pid().context("it does not run")?;
        let (call, what) = self.expression(rng);
        let trace = server.log_path().with_file_name("strace.txt");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&trace);
        command.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{what}")]);
        // The n-th call and slowness are for the whole server, errors for its log: of others nobody promises anything.
        if !matches!(self.evil, Evil::SlowSync | Evil::KillAtSync) {
            for segment in files::entries(&server.data_dir().join("wal")) {
                command.arg("-P").arg(segment);
            }
        }
        command.args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let strace = command.kill_on_drop(true).spawn().context("starting strace")?;
        world.registry().note(strace.id().unwrap_or(0));
        self.strace = Some(strace);
        Ok(trace)
    }
}

impl Fault for Inject {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, self.whom, rng).await?;
            risk(&hit);
            let server = *hit.first().context("nobody")?;
            let before = server.log_length();
            let trace = self.attach(world, server, rng).await?;
            if self.evil == Evil::SlowSync {
                let delayed = watch(Duration::from_secs(10), || async {
                    let text = std::fs::read_to_string(&trace).unwrap_or_default();
                    Some(text.matches("DELAYED").count()).filter(|count| *count > 0)
                });
                return Ok(match delayed.await {
                    Some(count) => Hit::seen(&hit, target, format!("{count} calls were delayed")),
                    None => Hit::unseen(&hit, target, "no call was delayed"),
                });
            }
            let ended = server.wait_ended(Duration::from_secs(15)).await;
            let lines = server.lines_since(before);
            let last = lines.last().map(ToString::to_string).unwrap_or_default();
            Ok(match ended {
                Ok(Some(status)) if self.evil == Evil::KillAtSync => {
                    Hit::seen(&hit, target, format!("ended at an fsync: {status}"))
                }
                Ok(Some(status)) if last.contains("failed") || last.contains("can't go on") => {
                    Hit::seen(&hit, target, format!("ended ({status}): {last}"))
                }
                Ok(status) => Hit::unseen(&hit, target, format!("ended {status:?}: {last}")),
                Err(error) => Hit::unseen(&hit, target, error.to_string()),
            })
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            if let Some(mut strace) = self.strace.take() {
                strace.kill().await.context("ending strace")?;
            }
            restore(world).await
        })
    }
}
