//! Files of a stopped server that are damaged, cut off or deleted, and whether it then does what docs/operations.md says: what
//! can be made again is made again, loudly; what can't is refused, and the server is replaced under a new id.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::Rng as _;
use rand::rngs::StdRng;

use super::{Fault, Hit, Step, Whom, restore, risk, targets};
use crate::env::{Line, Server, World, files};

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// A bit in the middle of the log.
    Log,
    /// A bit of the vote.
    Vote,
    /// A bit of the newest snapshot.
    Snapshot,
    /// A bit of the view.
    View,
    /// The view is deleted.
    NoView,
    /// A batch at the end of the log that was not written to its end.
    TornTail,
}

/// Damage to a stopped server.
pub(crate) struct Damage(pub(crate) Harm);

/// Bytes before the first batch of a segment, and before the first record of a batch.
const HEADER: usize = 512;
const BATCH: usize = 32;
const MAGIC: &[u8] = b"HFB1";
/// A record of a vote.
const VOTE: u8 = 4;

/// A batch in a segment.
#[derive(Debug, Clone)]
struct Batch {
    segment: PathBuf,
    at: usize,
    length: usize,
    kind: u8,
}

fn batches_of(segment: &Path, bytes: &[u8]) -> Vec<Batch> {
    let (mut found, mut at) = (Vec::new(), HEADER);
    while let Some(head) = bytes.get(at..at + BATCH + 1).filter(|head| head.starts_with(MAGIC)) {
        let length = head.get(4..8).and_then(|length| length.try_into().ok());
        let Some(length) = length.and_then(|l| usize::try_from(u32::from_le_bytes(l)).ok()) else {
            break;
        };
        let kind = head.last().copied().unwrap_or(0);
        let length = BATCH + length;
        found.push(Batch { segment: segment.to_owned(), at, length, kind });
        at += length.next_multiple_of(8);
    }
    found
}

/// All batches of a log, in order.
fn batches(wal: &Path) -> anyhow::Result<Vec<Batch>> {
    let mut all = Vec::new();
    for segment in files::entries(wal) {
        let bytes = std::fs::read(&segment).with_context(|| segment.display().to_string())?;
        all.extend(batches_of(&segment, &bytes));
    }
    Ok(all)
}

/// Flips a bit of a file, and reads it again: what it was, and what it is.
fn flip(path: &Path, at: usize) -> anyhow::Result<String> {
    let mut bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let byte = bytes.get_mut(at).with_context(|| format!("{} is too short", path.display()))?;
    let before = *byte;
    *byte ^= 4;
    files::write(path, &bytes)?;
    let after = std::fs::read(path)?.get(at).copied();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match after {
        Some(after) if after != before => {
            Ok(format!("byte {at} of {name} was {before:#04x} and is {after:#04x}"))
        }
        _ => bail!("byte {at} of {name} is as it was"),
    }
}

fn newest_snapshot(data: &Path) -> Option<PathBuf> {
    let all = files::entries(&data.join("snapshots"));
    all.into_iter().rfind(|path| path.extension().is_some_and(|ending| ending == "snap"))
}

/// Does the damage; what was seen, or nothing if there is nothing to damage.
fn harm(what: Harm, data: &Path, rng: &mut StdRng) -> anyhow::Result<Option<String>> {
    match what {
        Harm::Log => {
            let all = batches(&data.join("wal"))?;
            // Not the last ones: those could pass for a torn tail.
            let Some(upper) = all.len().checked_sub(20).filter(|upper| *upper > 0) else {
                return Ok(None);
            };
            let Some(batch) = all.get(rng.random_range(0..upper)) else { return Ok(None) };
            flip(&batch.segment, batch.at + rng.random_range(BATCH..batch.length)).map(Some)
        }
        Harm::Vote => {
            let all = batches(&data.join("wal"))?;
            let Some(batch) = all.iter().rfind(|batch| batch.kind == VOTE) else { return Ok(None) };
            flip(&batch.segment, batch.at + BATCH + 8).map(Some)
        }
        Harm::Snapshot => {
            let Some(path) = newest_snapshot(data) else { return Ok(None) };
            let length = usize::try_from(std::fs::metadata(&path)?.len())?;
            flip(&path, rng.random_range(64.min(length - 1)..length)).map(Some)
        }
        Harm::View => {
            let view = files::all_below(&data.join("view"));
            let Some(path) = view.into_iter().find(|path| path.ends_with("db")) else {
                return Ok(None);
            };
            let length = usize::try_from(std::fs::metadata(&path)?.len())?;
            flip(&path, rng.random_range(0..length)).map(Some)
        }
        Harm::NoView => {
            let view = data.join("view");
            let count = files::all_below(&view).len();
            std::fs::remove_dir_all(&view).context("deleting the view")?;
            Ok(Some(format!("{count} files of the view were deleted")))
        }
        Harm::TornTail => torn_tail(&data.join("wal"), rng),
    }
}

/// Appends the beginning of a batch with the next number, as a write leaves it that the power ended.
fn torn_tail(wal: &Path, rng: &mut StdRng) -> anyhow::Result<Option<String>> {
    let all = batches(wal)?;
    let Some(last) = all.last() else { return Ok(None) };
    let mut bytes = std::fs::read(&last.segment)?;
    let Some(mut torn) = bytes.get(last.at..last.at + last.length).map(<[u8]>::to_vec) else {
        return Ok(None);
    };
    let number = torn.get(8..16).and_then(|number| number.try_into().ok());
    let number = u64::from_le_bytes(number.context("a batch without a number")?) + 1;
    torn.splice(8..16, number.to_le_bytes());
    // Its checksum is of the batch that it was copied from, and its end is missing.
    torn.truncate(rng.random_range(9..torn.len()));
    let at = last.at + last.length.next_multiple_of(8);
    if bytes.len() < at + torn.len() {
        return Ok(None);
    }
    bytes.splice(at..at + torn.len(), torn.iter().copied());
    files::write(&last.segment, &bytes)?;
    Ok(Some(format!("{} bytes of batch {number} stand at {at}", torn.len())))
}

impl Damage {
    /// Stops the server as fits the damage: rot is for a server that stopped in order, a torn tail for one that did not.
    async fn stop(&self, server: &Server) -> anyhow::Result<()> {
        if self.0 == Harm::TornTail { server.kill().await } else { server.stop().await }
    }

    /// What the server does about it, against what the documentation says. Whatever it does, it is a member that is well
    /// afterwards, if that can be had: what comes later must not be judged by this.
    async fn answer(&self, world: &World, server: &Server) -> anyhow::Result<Answer> {
        let before = server.log_length();
        world.registry().note(server.spawn().await?);
        let refuses = matches!(self.0, Harm::Log | Harm::Vote);
        let ended = if refuses {
            server.wait_ended(ANSWER).await.ok().flatten()
        } else {
            self.wait_said(server, before).await?
        };
        let lines = server.lines_since(before);
        let code = ended.map(|status| status.code());
        let answer = judge(self.0, code, &lines);
        if refuses || code.is_some() {
            let (old, new) = world.replace(server).await?;
            let replaced = format!("; node {new} took the place of node {old}");
            return Ok(answer.map(|said| said + &replaced).map_err(|said| said + &replaced));
        }
        if let Err(error) = world.healthy(ANSWER).await {
            return Ok(Err(format!("it is not well again: {error:#}; it said: {}", told(&answer))));
        }
        // It is well, and must not have died of it meanwhile.
        match server.ended().await? {
            Some(status) => Ok(Err(format!("it ended ({status}): {}", server.last_line()))),
            None => Ok(answer),
        }
    }

    /// Waits until a server has said what it has to say, or has ended, or the time is over; how it ended.
    async fn wait_said(
        &self,
        server: &Server,
        before: u64,
    ) -> anyhow::Result<Option<std::process::ExitStatus>> {
        let deadline = Instant::now() + ANSWER;
        loop {
            if let Some(status) = server.ended().await? {
                return Ok(Some(status));
            }
            let said = judge(self.0, None, &server.lines_since(before)).is_ok();
            if said || Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn told(answer: &Answer) -> &str {
    match answer {
        Ok(said) | Err(said) => said,
    }
}

/// What a server did about damage: as docs/operations.md says, or otherwise.
type Answer = Result<String, String>;

/// How long a server may take to answer damage: it checks all its data, and a snapshot in the background.
const ANSWER: Duration = Duration::from_secs(60);
/// The last line of a server that refuses to start.
const REFUSED: &str = "the server can't start";

/// The lines of which one has to be said, word by word; for [`REFUSED`], what its error begins with.
const fn due(harm: Harm) -> &'static [&'static str] {
    match harm {
        Harm::Log | Harm::Vote => &["the log is damaged"],
        Harm::Snapshot => &["a snapshot is passed over", "a published snapshot is damaged"],
        // Where the bit lies in no record, the check of all records is the answer.
        Harm::View => &[
            "the view is thrown away and rebuilt",
            "the view was not closed in order: checking all its records",
        ],
        Harm::NoView => &[
            "the view is thrown away and rebuilt",
            "the view begins empty; the log is applied from its beginning",
        ],
        Harm::TornTail => &["a torn tail of the log is dropped"],
    }
}

/// Holds what a server did against what it should have done. `code` is that of its end, if it ended; the code itself is missing
/// if a signal ended it.
fn judge(harm: Harm, code: Option<Option<i32>>, lines: &[Line]) -> Answer {
    let last = lines.last().map_or_else(|| "nothing".to_owned(), ToString::to_string);
    match (harm, code) {
        (Harm::Log | Harm::Vote, Some(Some(1))) => {
            let refusal = lines.last().filter(|line| line.message == REFUSED);
            let error = refusal.map(|line| line.field("error")).unwrap_or_default();
            let names_it = due(harm).iter().any(|due| error.starts_with(due));
            if names_it {
                Ok(format!("it refused to start: {error}"))
            } else {
                Err(format!("it refused with: {last}"))
            }
        }
        (Harm::Log | Harm::Vote, None) => {
            Err(format!("it should refuse to start, and runs; it said: {last}"))
        }
        (_, Some(code)) => Err(format!("it ended with {code:?}: {last}")),
        (_, None) => {
            let said = lines.iter().find(|line| due(harm).contains(&line.message.as_str()));
            said.map(|line| format!("it started: {line}"))
                .ok_or_else(|| format!("it started and did not speak of it; it said: {last}"))
        }
    }
}

impl Fault for Damage {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, Whom::Any, rng).await?;
            let server = *hit.first().context("nobody")?;
            risk(&hit);
            self.stop(server).await?;
            let Some(done) = harm(self.0, &server.data_dir(), rng)? else {
                return Ok(Hit::skipped(&hit, target, "there is nothing yet to damage"));
            };
            let event = Hit::seen(&hit, target, "");
            let answer = self.answer(world, server).await.with_context(|| done.clone())?;
            let seen = format!("{done}; {}", told(&answer));
            let what = format!("{:?} at {}: {seen}", self.0, event.target);
            world.finding("damage", answer.is_err(), what);
            Ok(Hit { effect: crate::history::Effect::Installed { seen }, ..event })
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(restore(world))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    fn segment(path: &Path, batches: u64) {
        let mut bytes = vec![0; HEADER];
        for number in 1..=batches {
            let mut batch = [MAGIC, &40_u32.to_le_bytes(), &number.to_le_bytes()].concat();
            batch.resize(BATCH + 40, 1);
            batch[BATCH] = if number == 2 { VOTE } else { 2 };
            bytes.extend(batch);
        }
        bytes.resize(bytes.len() + 4096, 0);
        files::write(path, &bytes).unwrap();
    }

    #[test]
    fn batches_of_a_log_are_found_and_a_torn_one_stands_behind_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("wal");
        std::fs::create_dir(&wal).unwrap();
        let path = wal.join("0000000000000000.log");
        segment(&path, 30);
        assert_eq!(batches(&wal).unwrap().len(), 30);
        let mut rng = StdRng::seed_from_u64(1);
        let before = std::fs::read(&path).unwrap();
        let torn = harm(Harm::TornTail, dir.path(), &mut rng).unwrap().unwrap();
        assert!(torn.contains("batch 31"), "{torn}");
        let after = std::fs::read(&path).unwrap();
        let end = HEADER + 30 * (BATCH + 40);
        assert!(after[..end] == before[..end] && after.len() == before.len());
        assert!(after[end..].starts_with(MAGIC));
    }

    #[test]
    fn rot_changes_one_byte_of_what_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("wal");
        std::fs::create_dir(&wal).unwrap();
        let path = wal.join("0000000000000000.log");
        segment(&path, 30);
        let before = std::fs::read(&path).unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        harm(Harm::Vote, dir.path(), &mut rng).unwrap().unwrap();
        let after = std::fs::read(&path).unwrap();
        let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(changed, [HEADER + (BATCH + 40) + BATCH + 8], "the vote is in the second batch");
        assert_eq!(harm(Harm::Snapshot, dir.path(), &mut rng).unwrap(), None, "there is none");
    }

    fn said(message: &str, error: &str) -> Line {
        let line = serde_json::json!({
            "timestamp": "", "level": "ERROR", "message": message, "error": error,
        });
        Line::parse(&line.to_string()).unwrap()
    }

    #[test]
    fn rot_of_the_log_has_to_be_refused_with_its_reason() {
        let right =
            [said("x", ""), said(REFUSED, "the log is damaged: batch 3 (file a, offset 9)")];
        assert!(judge(Harm::Log, Some(Some(1)), &right).is_ok());
        let wrong = [said(REFUSED, "IDENTITY is damaged")];
        assert!(judge(Harm::Log, Some(Some(1)), &wrong).is_err());
        assert!(judge(Harm::Vote, None, &right).unwrap_err().contains("should refuse"));
        assert!(judge(Harm::Vote, Some(None), &right).is_err(), "a panic is no answer");
        assert!(judge(Harm::Vote, Some(Some(70)), &right).is_err());
    }

    #[test]
    fn what_can_be_made_again_has_to_be_made_again_and_told() {
        for harm in [Harm::Snapshot, Harm::View, Harm::NoView, Harm::TornTail] {
            for message in due(harm) {
                assert!(judge(harm, None, &[said(message, ""), said("x", "")]).is_ok());
            }
            assert!(judge(harm, None, &[said("ready to serve", "")]).is_err(), "{harm:?}");
            assert!(judge(harm, Some(Some(1)), &[said(REFUSED, "")]).is_err(), "{harm:?}");
        }
    }
}
