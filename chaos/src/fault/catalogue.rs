//! All kinds of faults.

use super::damage::{Damage, Harm};
use super::disk::{DiskFull, HungDisk};
use super::inject::{Evil, Inject};
use super::kill::{Kill, RollingRestart, Transfer};
use super::link::{Bad, Link};
use super::load::{Clients, Rude};
use super::member::Replace;
use super::needs::{Need, lack};
use super::partition::{Cut, Partition};
use super::pause::Pause;
use super::power::PowerLoss;
use super::resource::{Short, Starve};
use super::time::ClockJump;
use super::under::{Meanwhile, Under};
use super::{Fault, Whom};

/// A kind of fault.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// What it belongs to; `--faults` takes this as well.
    pub group: &'static str,
    /// What it does, for a person.
    pub does: &'static str,
    /// What it needs.
    pub needs: &'static [Need],
    /// How long it stays in place, in milliseconds: least and most.
    pub hold: (u64, u64),
    /// Seconds for which escrow and disclosure may stand still through the servers that are well. None if several are faulty.
    pub bound: Option<u64>,
    /// Makes one.
    pub make: fn() -> Box<dyn Fault>,
}

/// Why this machine can't do a fault to hosts with networks and disks of their own; `None` if it can.
pub fn lacks(kind: &Kind) -> Option<String> {
    kind.needs.iter().find_map(|need| lack(*need))
}

/// Why hosts can't have networks and disks of their own here; `None` if they can.
pub fn lacks_hosts() -> Option<String> {
    lack(Need::Hosts)
}

/// Why a fault can't be done to plain processes behind a proxy; `None` if it can.
pub fn lacks_plain(kind: &Kind) -> Option<String> {
    if kind.needs.contains(&Need::Proxy) {
        return None;
    }
    if kind.needs.contains(&Need::Hosts) {
        return Some("the hosts have no network and disk of their own".to_owned());
    }
    lacks(kind)
}

/// A kind by its name.
pub fn find_kind(name: &str) -> Option<&'static Kind> {
    CATALOGUE.iter().find(|kind| kind.name == name)
}

/// The kinds of a list of names and groups; all if the list is empty.
///
/// # Errors
/// The first name that is neither.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Kind>, String> {
    if let Some(unknown) = names
        .iter()
        .find(|name| !CATALOGUE.iter().any(|kind| kind.name == *name || kind.group == *name))
    {
        return Err(format!("there is no fault {unknown:?}; `holdfast-chaos list` shows all"));
    }
    let named = |kind: &&Kind| names.iter().any(|name| kind.name == name || kind.group == name);
    Ok(CATALOGUE.iter().filter(|kind| names.is_empty() || named(kind)).collect())
}

const NET: &[Need] = &[Need::Hosts, Need::Nft];
const CUT: &[Need] = &[Need::Proxy, Need::Hosts, Need::Nft];
const THIN: &[Need] = &[Need::Proxy, Need::Hosts, Need::Nft, Need::Shaper];
const DELAY: &[Need] = &[Need::Proxy, Need::Hosts, Need::Nft, Need::Queues];
const DISK: &[Need] = &[Need::Hosts];
const FREEZE: &[Need] = &[Need::Hosts, Need::Freeze];
const POWER: &[Need] = &[Need::Hosts, Need::Power];
const GROUPS: &[Need] = &[Need::Hosts, Need::Groups];
const STRACE: &[Need] = &[Need::Strace];
const CLOCK: &[Need] = &[Need::FakeTime];

/// A silent server costs an election of at most some two seconds, and a client's own time limit.
const BOUND: Option<u64> = Some(5);
/// A leader whose disk hangs or crawls gives up after a watchdog's time, and only then a new one is elected.
const SLOW: Option<u64> = Some(10);
/// Several servers are faulty at once: nothing is promised while it lasts.
const FREE: Option<u64> = None;

macro_rules! kinds {
    ($($group:literal { $($name:literal, $does:literal, $needs:expr, $hold:expr, $bound:expr, $make:expr;)* })*) => {
        /// All kinds.
        pub const CATALOGUE: &[Kind] = &[$($(Kind {
            name: $name, group: $group, does: $does, needs: $needs, hold: $hold, bound: $bound,
            make: || Box::new($make),
        },)*)*];
    };
}

kinds! {
    "kill" {
        "kill-leader", "kill -9 of the leader", &[], (200, 5000), BOUND, Kill(Whom::Leader);
        "kill-follower", "kill -9 of a follower", &[], (200, 5000), BOUND, Kill(Whom::Follower);
        "kill-two", "kill -9 of the leader and a follower at once", &[], (200, 3000), FREE, Kill(Whom::Two);
        "kill-all", "kill -9 of all servers at once", &[], (200, 2000), FREE, Kill(Whom::All);
        "kill-at-fsync", "the leader is killed as it enters its n-th fsync", STRACE, (200, 2000), BOUND,
            Inject::new(Evil::KillAtSync, Whom::Leader);
    }
    "pause" {
        "pause-leader", "SIGSTOP of the leader", &[], (200, 12_000), BOUND, Pause(Whom::Leader);
        "pause-follower", "SIGSTOP of a follower", &[], (200, 30_000), BOUND, Pause(Whom::Follower);
    }
    "restart" {
        "rolling-restart", "each server is stopped in order and started again, one after the other", &[], (0, 100), FREE,
            RollingRestart;
    }
    "transfer" {
        "transfer", "leadership is handed on", &[], (0, 500), BOUND, Transfer;
    }
    "partition" {
        "partition-leader", "the leader sees no other server, clients see it", CUT, (2000, 10_000), BOUND,
            Partition::new(Cut::Leader);
        "partition-follower", "a follower sees no other server, clients see it", CUT, (2000, 10_000), BOUND,
            Partition::new(Cut::Follower);
        "partition-host", "the leader's host is cut off from everybody", CUT, (2000, 10_000), BOUND, Partition::new(Cut::Host);
        "partition-all", "no server sees another one", CUT, (1000, 5000), FREE, Partition::new(Cut::Everybody);
        "partition-bridge", "leader and a follower don't see each other, the third sees both", CUT, (2000, 10_000), BOUND,
            Partition::new(Cut::Bridge);
        "partition-one-way", "what the leader sends to a follower is lost, the other way is sound", CUT, (2000, 10_000), BOUND,
            Partition::new(Cut::OneWay);
        "partition-new-only", "the leader can make no new connection to the others", CUT, (2000, 8000), BOUND,
            Partition::new(Cut::NewOnly);
        "partition-flapping", "the leader sees no other server, on and off every second or so", CUT, (5000, 12_000), BOUND,
            Partition::new(Cut::Flapping);
        "reset-storm", "each packet between the leader and the others is answered with a TCP reset", CUT, (2000, 8000), BOUND,
            Partition::new(Cut::Resets);
    }
    "network" {
        "loss", "a fifth of the packets to a host is lost", NET, (3000, 10_000), BOUND, Link::new(Bad::Loss);
        "duplication", "each packet of a host is sent twice", NET, (3000, 8000), BOUND, Link::new(Bad::Duplicates);
        "thin-pipe", "a host sends 256 kbit a second", THIN, (3000, 10_000), BOUND,
            Link::new(Bad::Thin);
        "delay", "packets to a host come 50 ms late", DELAY, (3000, 10_000), BOUND,
            Link::new(Bad::Delay);
        "jitter", "packets to a host come 5 to 105 ms late, in another order", DELAY,
            (3000, 10_000), BOUND, Link::new(Bad::Jitter);
    }
    "power" {
        "power-leader", "the leader's power goes: what was not synced is lost", POWER, (500, 5000), BOUND,
            PowerLoss(Whom::Leader);
        "power-follower", "a follower's power goes", POWER, (500, 5000), BOUND, PowerLoss(Whom::Follower);
        "power-two", "the power of the leader and a follower goes at once", POWER, (200, 2000), FREE, PowerLoss(Whom::Two);
        "power-all", "the power of all goes at once", POWER, (100, 1000), FREE, PowerLoss(Whom::All);
    }
    "disk" {
        "disk-full-leader", "the leader's disk is full", DISK, (3000, 10_000), SLOW, DiskFull(Whom::Leader);
        "disk-full-follower", "a follower's disk is full", DISK, (3000, 10_000), SLOW, DiskFull(Whom::Follower);
        "fsync-eio", "an fsync of the leader's log fails with EIO", STRACE, (200, 3000), SLOW,
            Inject::new(Evil::SyncEio, Whom::Leader);
        "fsync-enospc", "an fsync of a follower's log fails with ENOSPC", STRACE, (200, 3000), SLOW,
            Inject::new(Evil::SyncNoSpace, Whom::Follower);
        "write-eio", "a write to a follower's log fails with EIO", STRACE, (200, 3000), SLOW,
            Inject::new(Evil::WriteEio, Whom::Follower);
        "write-enospc", "a write to the leader's log fails with ENOSPC", STRACE, (200, 3000), SLOW,
            Inject::new(Evil::WriteNoSpace, Whom::Leader);
        "slow-fsync", "each fsync of the leader takes 200 ms longer", STRACE, (3000, 10_000), SLOW,
            Inject::new(Evil::SlowSync, Whom::Leader);
        "hung-disk", "every write of the leader hangs", FREEZE, (2000, 12_000), SLOW,
            HungDisk::new(Whom::Leader);
    }
    "damage" {
        "torn-tail", "a batch at the end of a killed server's log was written in part", &[], (0, 500), BOUND,
            Damage(Harm::TornTail);
        "rot-wal", "a bit in the log of a stopped server flips; it refuses, and is replaced", &[], (0, 500), BOUND,
            Damage(Harm::Log);
        "rot-vote", "a bit of a stopped server's vote flips; it refuses, and is replaced", &[], (0, 500), BOUND,
            Damage(Harm::Vote);
        "rot-snapshot", "a bit of a stopped server's newest snapshot flips", &[], (0, 500), BOUND, Damage(Harm::Snapshot);
        "rot-view", "a bit of a stopped server's view flips", &[], (0, 500), BOUND, Damage(Harm::View);
        "view-deleted", "a stopped server's view is deleted", &[], (0, 500), BOUND, Damage(Harm::NoView);
    }
    "replace" {
        "disk-lost", "a server and its whole disk are lost; a new one takes its place under a new id", &[], (0, 500), BOUND,
            Replace { lost: true, whom: Whom::Any };
        "member-change", "a sound server is stopped and replaced by one under a new id", &[], (0, 500), BOUND,
            Replace { lost: false, whom: Whom::Follower };
    }
    "change" {
        "change-under-kill", "a server joins, leadership is handed on and the server leaves while a follower is dead", &[],
            (0, 100), BOUND, Under::new(Kill(Whom::Follower), Meanwhile::JoinAndLeave);
        "change-under-pause", "the same while a follower stands still", &[], (0, 100), BOUND,
            Under::new(Pause(Whom::Follower), Meanwhile::JoinAndLeave);
        "change-under-partition", "the same while a follower sees no other server", CUT, (0, 100), BOUND,
            Under::new(Partition::new(Cut::Follower), Meanwhile::JoinAndLeave);
        "change-under-cut-off", "the same while the old leader sees no other server", CUT, (0, 100), BOUND,
            Under::new(Partition::new(Cut::Leader), Meanwhile::JoinAndLeave);
        "change-under-loss", "the same while a fifth of the packets to a host is lost", NET, (0, 100), BOUND,
            Under::new(Link::new(Bad::Loss), Meanwhile::JoinAndLeave);
        "change-under-delay", "the same while packets to a host come 50 ms late", DELAY, (0, 100), BOUND,
            Under::new(Link::new(Bad::Delay), Meanwhile::JoinAndLeave);
        "change-under-power-loss", "the same while a follower is without power", POWER, (0, 100), BOUND,
            Under::new(PowerLoss(Whom::Follower), Meanwhile::JoinAndLeave);
        "change-under-disk-full", "the same while a follower's disk is full", DISK, (0, 100), SLOW,
            Under::new(DiskFull(Whom::Follower), Meanwhile::JoinAndLeave);
        "change-under-slow-fsync", "the same while each fsync of the leader takes 200 ms longer", STRACE, (0, 100), SLOW,
            Under::new(Inject::new(Evil::SlowSync, Whom::Leader), Meanwhile::JoinAndLeave);
        "change-under-clock-ahead", "the same while a follower's clock is an hour ahead", CLOCK, (0, 100), BOUND,
            Under::new(ClockJump { whom: Whom::Follower, offset: "+3600" }, Meanwhile::JoinAndLeave);
        "change-under-clock-behind", "the same while a follower's clock is an hour back", CLOCK, (0, 100), BOUND,
            Under::new(ClockJump { whom: Whom::Follower, offset: "-3600" }, Meanwhile::JoinAndLeave);
        "change-without-majority", "a server is to join while the leader and a follower are dead: it can't", &[], (0, 100),
            FREE, Under::new(Kill(Whom::Two), Meanwhile::Nothing);
        "change-while-parted", "a server is to join while no server sees another one: it can't", CUT, (0, 100), FREE,
            Under::new(Partition::new(Cut::Everybody), Meanwhile::Nothing);
        "replace-under-kill", "a dead follower is replaced, and comes back under a new id", &[], (0, 100), BOUND,
            Under::new(Kill(Whom::Follower), Meanwhile::Replace);
        "replace-under-pause", "a follower that stands still is replaced, goes on, and comes back under a new id", &[],
            (0, 100), BOUND, Under::new(Pause(Whom::Follower), Meanwhile::Replace);
        "replace-under-partition", "a leader that sees no other server is replaced, and comes back under a new id", CUT,
            (0, 100), BOUND, Under::new(Partition::new(Cut::Leader), Meanwhile::Replace);
        "replace-under-disk-full", "a follower with a full disk is replaced, and comes back under a new id", DISK, (0, 100),
            SLOW, Under::new(DiskFull(Whom::Follower), Meanwhile::Replace);
        "replace-under-power-loss", "a follower without power is replaced, and comes back under a new id", POWER, (0, 100),
            BOUND, Under::new(PowerLoss(Whom::Follower), Meanwhile::Replace);
    }
    "clock" {
        "clock-ahead", "a follower's clock jumps ahead by an hour", CLOCK, (3000, 8000), BOUND,
            ClockJump { whom: Whom::Follower, offset: "+3600" };
        "clock-behind", "a follower's clock jumps back by an hour", CLOCK, (3000, 8000), BOUND,
            ClockJump { whom: Whom::Follower, offset: "-3600" };
    }
    "starve" {
        "cpu-starved", "a server gets a twentieth of a processor", GROUPS, (3000, 10_000), BOUND,
            Starve(Short::Cpu);
        "memory-limit", "a server gets less memory than it uses", GROUPS, (3000, 8000), BOUND,
            Starve(Short::Memory);
    }
    "clients" {
        "flood", "3000 connections to a server that say nothing", &[], (3000, 8000), BOUND, Clients::new(Rude::Flood);
        "slow-clients", "200 connections to a server that send a byte a second", &[], (3000, 10_000), BOUND,
            Clients::new(Rude::Slow);
        "oversize", "messages of 4 MiB to a server", &[], (0, 500), BOUND, Clients::new(Rude::Oversize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_groups_choose_their_kinds() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|kind| kind.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        let some = chosen(&["kill".to_owned(), "loss".to_owned()]).unwrap();
        assert!(some.iter().all(|kind| kind.group == "kill" || kind.name == "loss"));
        assert_eq!(some.len(), 6);
        assert_eq!(chosen(&[]).unwrap().len(), count);
        assert!(chosen(&["kil".to_owned()]).unwrap_err().contains("kil"));
    }

    #[test]
    fn without_root_links_can_be_cut_and_slowed_and_hosts_can_not_fail() {
        for name in ["partition-host", "partition-flapping", "reset-storm", "delay", "thin-pipe"] {
            assert_eq!(lacks_plain(find_kind(name).unwrap()), None, "{name}");
        }
        for name in ["power-all", "disk-full-leader", "loss", "cpu-starved", "change-under-loss"] {
            assert!(lacks_plain(find_kind(name).unwrap()).is_some(), "{name}");
        }
    }

    #[test]
    fn the_bounds_are_those_that_docs_reliability_md_states() {
        let docs = include_str!("../../../docs/reliability.md");
        let (_, bounds) = docs.split_once("## Bounds").unwrap();
        let row = |words: &str| bounds.lines().find(|line| line.contains(words)).unwrap();
        let (usual, slow, none) = (row("| 5 s |"), row("| 10 s"), row("| none"));
        for kind in CATALOGUE {
            let (name, group) = (format!("`{}`", kind.name), format!("`{}`", kind.group));
            match kind.bound {
                Some(5) => assert!(usual.contains(&group), "{name}"),
                Some(10) => assert!(slow.contains(&group) || slow.contains(&name), "{name}"),
                None => assert!(none.contains(&name), "{name}"),
                Some(other) => panic!("{name}: {other} s are stated nowhere"),
            }
        }
    }
}
