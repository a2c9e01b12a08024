//! All kinds of faults, what each needs, and whether this machine has it.

use std::sync::OnceLock;

use super::damage::{Damage, Harm};
use super::disk::{DiskFull, HungDisk};
use super::inject::{Evil, Inject};
use super::kill::{Kill, RollingRestart, Transfer};
use super::late::LateLog;
use super::link::{Bad, Link};
use super::load::{Clients, Rude};
use super::member::Replace;
use super::partition::{Cut, Partition};
use super::pause::Pause;
use super::power::PowerLoss;
use super::resource::{Short, Starve};
use super::time::ClockJump;
use super::{Fault, Whom};
use crate::env::command::{call_blocking, find};

/// What a fault needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Hosts with networks and disks of their own: root, namespaces, loop devices.
    Hosts,
    /// nft, for rules in a host's network.
    Nft,
    /// iptables-legacy, for queues of packets.
    Queues,
    /// tc, for little bandwidth.
    Shaper,
    /// perl, for the ioctl that cuts a disk's power.
    Power,
    /// strace that may attach.
    Strace,
    /// fsfreeze.
    Freeze,
    /// libfaketime.
    FakeTime,
    /// Control groups, version 1.
    Groups,
}

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
    /// Makes one.
    pub make: fn() -> Box<dyn Fault>,
}

/// Why the machine can't give something; `None` if it can. Found out once, by trying.
fn lack(need: Need) -> Option<String> {
    static FOUND: [OnceLock<Option<String>>; 9] = [const { OnceLock::new() }; 9];
    let place = FOUND.get(need as usize)?;
    place.get_or_init(|| probe(need)).clone()
}

fn tool(name: &str, package: &str) -> Option<String> {
    find(name).is_none().then(|| format!("no program {name} (Debian package {package})"))
}

fn tried(what: &str, program: &str, args: &[&str], input: &str) -> Option<String> {
    let error = call_blocking(program, args, input).err()?;
    let text = format!("{error:#}");
    Some(format!("{what}: {}", text.lines().last().unwrap_or_default()))
}

/// Tries a program in a network namespace that is thrown away.
fn in_namespace(what: &str, script: &str) -> Option<String> {
    tried(what, "unshare", &["-n", "sh", "-ec", script], "")
}

fn probe(need: Need) -> Option<String> {
    if !rustix::process::geteuid().is_root() && need != Need::Strace {
        return Some("not root".to_owned());
    }
    match need {
        Need::Hosts => tool("ip", "iproute2")
            .or_else(|| tool("nsenter", "util-linux"))
            .or_else(|| tool("mkfs.ext4", "e2fsprogs"))
            .or_else(|| {
                in_namespace(
                    "veth",
                    "ip link add name v0 type veth peer name v1; ip link add name br0 type bridge",
                )
            })
            .or_else(|| tried("loop devices", "losetup", &["-f"], "")),
        Need::Nft => tool("nft", "nftables").or_else(|| {
            let rules = "table inet x {\nchain y {\ntype filter hook input priority 0;\n\
                         meta l4proto tcp numgen random mod 100 < 20 counter drop\n\
                         meta l4proto tcp counter reject with tcp reset\n}\n}\n";
            in_namespace("nft", &format!("nft -f - <<'END'\n{rules}END\n"))
        }),
        Need::Queues => tool("iptables-legacy", "iptables").or_else(|| {
            let rule = "iptables-legacy -A INPUT -p tcp -j NFQUEUE --queue-num 5 --queue-bypass";
            in_namespace("NFQUEUE", rule)
        }),
        Need::Shaper => tool("tc", "iproute2").or_else(|| {
            let add = "ip link add name e0 type veth peer name e1; \
                       tc qdisc add dev e0 root tbf rate 256kbit burst 4kb latency 400ms";
            in_namespace("tbf", add)
        }),
        Need::Power => tool("perl", "perl-base"),
        Need::Strace => tool("strace", "strace").or_else(|| {
            // It attaches to a child of its own parent, as it will to servers.
            let script = "sleep 5 & p=$!; timeout -s INT 0.3 strace -qq -o /dev/null -p $p; r=$?; \
                          kill $p; [ $r = 124 ] || [ $r = 130 ] || exit 1";
            tried("strace -p", "sh", &["-c", script], "")
        }),
        Need::Freeze => tool("fsfreeze", "util-linux"),
        Need::FakeTime => {
            let script = "LD_PRELOAD='/usr/$LIB/faketime/libfaketimeMT.so.1' FAKETIME=+7200 \
                          date +%s > /dev/null && ls /usr/lib/*/faketime/libfaketimeMT.so.1";
            tried("no libfaketime (Debian package libfaketime)", "sh", &["-c", script], "")
        }
        Need::Groups => {
            let missing = ["cpu/cpu.cfs_quota_us", "memory/memory.limit_in_bytes"]
                .into_iter()
                .find(|file| !std::path::Path::new("/sys/fs/cgroup").join(file).exists());
            missing.map(|file| format!("no /sys/fs/cgroup/{file} (control groups, version 1)"))
        }
    }
}

/// Why this machine can't do a fault; `None` if it can.
pub fn lacks(kind: &Kind) -> Option<String> {
    kind.needs.iter().find_map(|need| lack(*need))
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
const DISK: &[Need] = &[Need::Hosts];
const POWER: &[Need] = &[Need::Hosts, Need::Power];
const STRACE: &[Need] = &[Need::Strace];

macro_rules! kinds {
    ($($group:literal { $($name:literal, $does:literal, $needs:expr, $hold:expr, $make:expr;)* })*) => {
        /// All kinds.
        pub const CATALOGUE: &[Kind] = &[$($(Kind {
            name: $name, group: $group, does: $does, needs: $needs, hold: $hold,
            make: || Box::new($make),
        },)*)*];
    };
}

kinds! {
    "kill" {
        "kill-leader", "kill -9 of the leader", &[], (200, 5000), Kill(Whom::Leader);
        "kill-follower", "kill -9 of a follower", &[], (200, 5000), Kill(Whom::Follower);
        "kill-two", "kill -9 of the leader and a follower at once", &[], (200, 3000), Kill(Whom::Two);
        "kill-all", "kill -9 of all servers at once", &[], (200, 2000), Kill(Whom::All);
        "kill-at-fsync", "the leader is killed as it enters its n-th fsync", STRACE, (200, 2000),
            Inject::new(Evil::KillAtSync, Whom::Leader);
    }
    "pause" {
        "pause-leader", "SIGSTOP of the leader", &[], (200, 12_000), Pause(Whom::Leader);
        "pause-follower", "SIGSTOP of a follower", &[], (200, 30_000), Pause(Whom::Follower);
    }
    "restart" {
        "rolling-restart", "each server is stopped in order and started again, one after the other", &[], (0, 100),
            RollingRestart;
    }
    "transfer" {
        "transfer", "leadership is handed on", &[], (0, 500), Transfer;
    }
    "partition" {
        "partition-leader", "the leader sees no other server, clients see it", NET, (2000, 10_000),
            Partition::new(Cut::Leader);
        "partition-follower", "a follower sees no other server, clients see it", NET, (2000, 10_000),
            Partition::new(Cut::Follower);
        "partition-host", "the leader's host is cut off from everybody", NET, (2000, 10_000), Partition::new(Cut::Host);
        "partition-all", "no server sees another one", NET, (1000, 5000), Partition::new(Cut::Everybody);
        "partition-bridge", "leader and a follower don't see each other, the third sees both", NET, (2000, 10_000),
            Partition::new(Cut::Bridge);
        "partition-one-way", "what the leader sends to a follower is lost, the other way is sound", NET, (2000, 10_000),
            Partition::new(Cut::OneWay);
        "partition-new-only", "the leader can make no new connection to the others", NET, (2000, 8000),
            Partition::new(Cut::NewOnly);
        "partition-flapping", "the leader sees no other server, on and off every second or so", NET, (5000, 12_000),
            Partition::new(Cut::Flapping);
        "reset-storm", "each packet between the leader and the others is answered with a TCP reset", NET, (2000, 8000),
            Partition::new(Cut::Resets);
    }
    "network" {
        "loss", "a fifth of the packets to a host is lost", NET, (3000, 10_000), Link::new(Bad::Loss);
        "duplication", "each packet of a host is sent twice", NET, (3000, 8000), Link::new(Bad::Duplicates);
        "thin-pipe", "a host sends 256 kbit a second", &[Need::Hosts, Need::Nft, Need::Shaper], (3000, 10_000),
            Link::new(Bad::Thin);
        "delay", "packets to a host come 50 ms late", &[Need::Hosts, Need::Nft, Need::Queues], (3000, 10_000),
            Link::new(Bad::Delay);
        "jitter", "packets to a host come 5 to 105 ms late, in another order", &[Need::Hosts, Need::Nft, Need::Queues],
            (3000, 10_000), Link::new(Bad::Jitter);
    }
    "power" {
        "power-leader", "the leader's power goes: what was not synced is lost", POWER, (500, 5000),
            PowerLoss(Whom::Leader);
        "power-follower", "a follower's power goes", POWER, (500, 5000), PowerLoss(Whom::Follower);
        "power-two", "the power of the leader and a follower goes at once", POWER, (200, 2000), PowerLoss(Whom::Two);
        "power-all", "the power of all goes at once", POWER, (100, 1000), PowerLoss(Whom::All);
    }
    "disk" {
        "disk-full-leader", "the leader's disk is full", DISK, (3000, 10_000), DiskFull(Whom::Leader);
        "disk-full-follower", "a follower's disk is full", DISK, (3000, 10_000), DiskFull(Whom::Follower);
        "fsync-eio", "an fsync of the leader's log fails with EIO", STRACE, (200, 3000),
            Inject::new(Evil::SyncEio, Whom::Leader);
        "fsync-enospc", "an fsync of a follower's log fails with ENOSPC", STRACE, (200, 3000),
            Inject::new(Evil::SyncNoSpace, Whom::Follower);
        "write-eio", "a write to a follower's log fails with EIO", STRACE, (200, 3000),
            Inject::new(Evil::WriteEio, Whom::Follower);
        "write-enospc", "a write to the leader's log fails with ENOSPC", STRACE, (200, 3000),
            Inject::new(Evil::WriteNoSpace, Whom::Leader);
        "slow-fsync", "each fsync of the leader takes 200 ms longer", STRACE, (3000, 10_000),
            Inject::new(Evil::SlowSync, Whom::Leader);
        "late-fsync-power", "each fsync of the leader's log begins 1.2 s late, and then its power goes",
            &[Need::Hosts, Need::Power, Need::Strace], (2000, 6000), LateLog::new();
        "hung-disk", "every write of the leader hangs", &[Need::Hosts, Need::Freeze], (2000, 12_000),
            HungDisk::new(Whom::Leader);
    }
    "damage" {
        "torn-tail", "a batch at the end of a killed server's log was written in part", &[], (0, 500),
            Damage(Harm::TornTail);
        "rot-wal", "a bit in the log of a stopped server flips; it refuses, and is replaced", &[], (0, 500),
            Damage(Harm::Log);
        "rot-vote", "a bit of a stopped server's vote flips; it refuses, and is replaced", &[], (0, 500),
            Damage(Harm::Vote);
        "rot-snapshot", "a bit of a stopped server's newest snapshot flips", &[], (0, 500), Damage(Harm::Snapshot);
        "rot-view", "a bit of a stopped server's view flips", &[], (0, 500), Damage(Harm::View);
        "view-deleted", "a stopped server's view is deleted", &[], (0, 500), Damage(Harm::NoView);
    }
    "replace" {
        "disk-lost", "a server and its whole disk are lost; a new one takes its place under a new id", &[], (0, 500),
            Replace { lost: true, whom: Whom::Any };
        "member-change", "a sound server is stopped and replaced by one under a new id", &[], (0, 500),
            Replace { lost: false, whom: Whom::Follower };
    }
    "clock" {
        "clock-ahead", "a follower's clock jumps ahead by an hour", &[Need::FakeTime], (3000, 8000),
            ClockJump { whom: Whom::Follower, offset: "+3600" };
        "clock-behind", "a follower's clock jumps back by an hour", &[Need::FakeTime], (3000, 8000),
            ClockJump { whom: Whom::Follower, offset: "-3600" };
    }
    "starve" {
        "cpu-starved", "a server gets a twentieth of a processor", &[Need::Hosts, Need::Groups], (3000, 10_000),
            Starve(Short::Cpu);
        "memory-limit", "a server gets less memory than it uses", &[Need::Hosts, Need::Groups], (3000, 8000),
            Starve(Short::Memory);
    }
    "clients" {
        "flood", "3000 connections to a server that say nothing", &[], (3000, 8000), Clients::new(Rude::Flood);
        "slow-clients", "200 connections to a server that send a byte a second", &[], (3000, 10_000),
            Clients::new(Rude::Slow);
        "oversize", "messages of 4 MiB to a server", &[], (0, 500), Clients::new(Rude::Oversize);
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
}
