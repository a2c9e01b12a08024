//! A server whose clock jumps by an hour while it runs. Time that only goes on (monotonic) is not touched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::StdRng;

use super::disk::metric;
use super::{Fault, Hit, Step, Whom, restore, risk, targets, watch};
use crate::env::command::call;
use crate::env::{Server, World, files};

/// A jump.
pub(crate) struct ClockJump {
    pub(crate) whom: Whom,
    /// As libfaketime takes it.
    pub(crate) offset: &'static str,
}

/// What the library reads, at each look at the clock.
fn set(file: &Path, offset: &str) -> anyhow::Result<()> {
    // Written beside and renamed: the server may read it at any moment.
    let new = file.with_extension("new");
    files::write(&new, offset.as_bytes())?;
    std::fs::rename(&new, file).context("the file of a clock")
}

/// The hour and minute of a moment, in minutes of the day.
fn minutes(time: &str) -> Option<i64> {
    let (_, time) = time.trim().split_once('T')?;
    let mut parts = time.split(':');
    let hour: i64 = parts.next()?.parse().ok()?;
    let minute: i64 = parts.next()?.parse().ok()?;
    Some(hour * 60 + minute)
}

/// How far a line's time is from the machine's, in minutes, within half a day.
fn off(time: &str, now: i64) -> Option<i64> {
    let difference = (minutes(time)? - now).rem_euclid(1440);
    Some(if difference > 720 { difference - 1440 } else { difference })
}

async fn machine_time() -> Option<i64> {
    minutes(&call("date", &["-u", "+%FT%T"]).await.ok()?)
}

impl ClockJump {
    /// What shows that the server sees another time: its own alarm, or a line in its log.
    async fn seen(world: &World, server: &Server, before: u64) -> Option<String> {
        // Leadership is moved to make it say something; it may well refuse, and say that.
        let id = server.id().to_string();
        drop(world.holdfast(&["cluster", "transfer", &id]).await);
        watch(Duration::from_secs(10), || async {
            if metric(server, "holdfast_clock_ahead").await.is_some_and(|ahead| ahead > 0.0) {
                return Some("the server says that its clock is ahead".to_owned());
            }
            let now = machine_time().await?;
            let lines = server.lines_since(before);
            let mut times = lines.iter().filter_map(|line| off(&line.time, now));
            let off = times.find(|off| off.abs() > 50)?;
            Some(format!("its log is {off} minutes off"))
        })
        .await
    }
}

fn clock_file(server: &Server) -> PathBuf {
    server.log_path().with_file_name("clock")
}

impl Fault for ClockJump {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, self.whom, rng).await?;
            risk(&hit);
            let server = *hit.first().context("nobody")?;
            let file = clock_file(server);
            set(&file, "+0")?;
            server.stop().await?;
            server.set_clock(Some(file.clone()));
            world.start(server).await?;
            world.healthy(Duration::from_secs(60)).await?;
            let before = server.log_length();
            set(&file, self.offset)?;
            Ok(match Self::seen(world, server, before).await {
                Some(seen) => Hit::seen(&hit, target, seen),
                None => Hit::unseen(&hit, target, "nothing shows another time"),
            })
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            for server in world.servers() {
                if clock_file(server).exists() {
                    set(&clock_file(server), "+0")?;
                    std::fs::remove_file(clock_file(server))?;
                    server.set_clock(None);
                    server.stop().await?;
                }
            }
            restore(world).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_tells_how_far_its_clock_is_off_also_over_midnight() {
        assert_eq!(off("2026-11-24T23:30:00.5Z", 22 * 60 + 30), Some(60));
        assert_eq!(off("2026-11-25T00:10:00Z", 23 * 60 + 10), Some(60));
        assert_eq!(off("2026-11-24T23:10:00Z", 10), Some(-60));
        assert_eq!(off("no time at all", 10), None);
    }
}
