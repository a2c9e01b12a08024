//! What faults need of the machine, and whether it has that.

use std::sync::OnceLock;

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
    /// No more than the proxy where the hosts have no networks of their own; it needs none of what follows then.
    Proxy,
}

/// Why the machine can't give something; `None` if it can. Found out once, by trying.
pub(super) fn lack(need: Need) -> Option<String> {
    static FOUND: [OnceLock<Option<String>>; 10] = [const { OnceLock::new() }; 10];
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
    let for_anybody = matches!(need, Need::Strace | Need::FakeTime | Need::Proxy);
    if !rustix::process::geteuid().is_root() && !for_anybody {
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
        Need::Proxy => None,
    }
}
