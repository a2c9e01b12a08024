//! What a run leaves on the machine carries the run's name, and is found by it: a later run takes away what a dead one left,
//! and never what a living one uses.
//!
//! A run has a directory of its own in the registry, with a file for itself and one for each process that it started. A
//! process is known by its id and the time at which it began, so that a stranger who got the same id is left alone.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::command::call_blocking;
use super::{disk, files};

/// What all names begin with that a run gives to anything outside its directory.
const PREFIX: &str = "hfc-";

/// The entry of a run.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    pid: u32,
    began: u64,
    out: PathBuf,
}

/// A living run's place in the registry; [`Registry::close`] gives it up.
#[derive(Debug)]
pub struct Registry {
    id: String,
    dir: PathBuf,
    out: PathBuf,
}

/// When a process began, in clock ticks since the machine did. None if there is no such process, or it is dead and only not
/// yet waited for.
pub fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    // The 22nd field of the line is the 20th after the name.
    fields.nth(18)?.parse().ok()
}

fn root() -> PathBuf {
    let run = Path::new("/run");
    let shared = rustix::process::geteuid().is_root() && run.is_dir();
    let parent = if shared { run.to_owned() } else { std::env::temp_dir() };
    parent.join(format!("holdfast-chaos-{}", rustix::process::geteuid().as_raw()))
}

impl Registry {
    /// Sweeps what dead runs left, then enters a new one whose files lie in `out`.
    ///
    /// # Errors
    /// If the registry can't be written.
    pub fn open(out: &Path) -> anyhow::Result<Self> {
        Self::open_in(&root(), out)
    }

    fn open_in(root: &Path, out: &Path) -> anyhow::Result<Self> {
        for problem in sweep(root) {
            tracing::warn!("{problem:#}");
        }
        let id: String = Uuid::new_v4().simple().to_string().chars().take(6).collect();
        let dir = root.join(&id);
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let pid = std::process::id();
        let entry = Entry { pid, began: began(pid).unwrap_or(0), out: out.to_owned() };
        let text = serde_json::to_vec(&entry)?;
        files::write(&dir.join("run.json"), &text)?;
        Ok(Self { id, dir, out: out.to_owned() })
    }

    /// A name for something outside the run's directory.
    pub fn name(&self, what: &str) -> String {
        format!("{PREFIX}{}-{what}", self.id)
    }

    /// Notes a process that the run started. It need not be taken off again: a dead one is known to be dead.
    pub fn note(&self, pid: u32) {
        let Some(began) = began(pid) else { return };
        let noted =
            files::write(&self.dir.join(format!("{pid}.pid")), began.to_string().as_bytes());
        if let Err(error) = noted {
            tracing::warn!("{error:#}");
        }
    }

    /// Takes away whatever the run still has outside its directory, and its entry.
    pub fn close(&self) -> Vec<anyhow::Error> {
        take_away(&self.dir, &self.id, &self.out)
    }
}

/// Takes away what runs left that are dead.
fn sweep(root: &Path) -> Vec<anyhow::Error> {
    let mut problems = Vec::new();
    for dir in files::entries(root) {
        let read = std::fs::read(dir.join("run.json")).ok();
        let Some(entry) = read.and_then(|text| serde_json::from_slice::<Entry>(&text).ok()) else {
            continue;
        };
        if began(entry.pid) == Some(entry.began) {
            continue;
        }
        let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        problems.extend(take_away(&dir, &id, &entry.out));
    }
    problems
}

fn take_away(dir: &Path, id: &str, out: &Path) -> Vec<anyhow::Error> {
    let mut problems = Vec::new();
    // A frozen file system holds even those who are killed.
    disk::thaw_all_below(out);
    end_processes(dir);
    problems.extend(disk::unmount_all_below(out));
    let prefix = format!("{PREFIX}{id}-");
    let mut called = |program: &str, args: &[&str]| {
        problems.extend(call_blocking(program, args, "").err());
    };
    for namespace in files::entries(Path::new("/run/netns")) {
        let name = namespace.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            called("ip", &["netns", "del", &name]);
        }
    }
    for group in ["cpu", "memory"]
        .iter()
        .flat_map(|kind| files::entries(&Path::new("/sys/fs/cgroup").join(kind)))
    {
        let name = group.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            let removed = std::fs::remove_dir(&group);
            problems.extend(removed.with_context(|| group.display().to_string()).err());
        }
    }
    if problems.is_empty() {
        let removed = std::fs::remove_dir_all(dir);
        problems.extend(removed.with_context(|| dir.display().to_string()).err());
    }
    problems
}

/// Kills what a run noted, as far as it is still the same process.
fn end_processes(dir: &Path) {
    let mut killed = Vec::new();
    for file in files::entries(dir).into_iter().filter(|file| file.extension().is_some()) {
        let pid = file.file_stem().and_then(|stem| stem.to_string_lossy().parse::<u32>().ok());
        let noted = std::fs::read_to_string(&file).ok().and_then(|text| text.parse::<u64>().ok());
        let (Some(pid), Some(noted)) = (pid, noted) else { continue };
        if began(pid) != Some(noted) {
            continue;
        }
        if let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw)
            && kill_process(target, Signal::KILL).is_ok()
        {
            killed.push((pid, noted));
        }
    }
    files::wait_until(std::time::Duration::from_secs(20), || {
        killed.iter().all(|(pid, noted)| began(*pid) != Some(*noted))
    });
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_new_run_ends_what_a_dead_run_started_and_leaves_a_living_ones_alone() {
        let root = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        let living = Registry::open_in(root.path(), out.path()).unwrap();
        let dead = Registry::open_in(root.path(), out.path()).unwrap();
        let mut kept = Command::new("sleep").arg("600").spawn().unwrap();
        let mut left = Command::new("sleep").arg("600").spawn().unwrap();
        living.note(kept.id());
        dead.note(left.id());
        // A run whose process has this id now and began at another time.
        let entry = Entry { pid: std::process::id(), began: 1, out: out.path().to_owned() };
        files::write(&dead.dir.join("run.json"), &serde_json::to_vec(&entry).unwrap()).unwrap();

        let next = Registry::open_in(root.path(), out.path()).unwrap();
        assert!(!left.wait().unwrap().success(), "killed");
        assert!(kept.try_wait().unwrap().is_none(), "still runs");
        assert!(!dead.dir.exists() && living.dir.exists());
        for run in [living, next] {
            assert!(run.close().is_empty());
        }
        assert!(!kept.wait().unwrap().success(), "ended with its own run");
    }

    #[test]
    fn a_process_is_known_by_when_it_began() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let began_at = began(child.id());
        assert!(began_at.is_some() && began_at >= began(std::process::id()));
        child.kill().unwrap();
        files::wait_until(std::time::Duration::from_secs(10), || began(child.id()).is_none());
        assert_eq!(began(child.id()), None, "dead, and not yet waited for");
        child.wait().unwrap();
    }
}
