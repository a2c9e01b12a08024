//! What the measurement cost: processor time and memory of the servers and of the load generator, as Linux counts them.

use std::path::Path;

use serde::Serialize;

/// Processor time so far, and memory now, of some processes.
#[derive(Debug, Clone, Default)]
pub(super) struct Usage {
    servers: Vec<ProcessUsage>,
    client: ProcessUsage,
}

/// One process.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct ProcessUsage {
    /// Its node; 0 for the load generator.
    pub(super) node_id: u64,
    /// Processor time.
    pub(super) cpu_seconds: f64,
    /// Memory that it holds now.
    pub(super) rss_bytes: u64,
}

/// What was used between two looks.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Used {
    /// The servers, if they run on this machine and were started by the benchmark.
    pub(super) servers: Vec<ProcessUsage>,
    /// The load generator.
    pub(super) client: ProcessUsage,
}

impl Usage {
    /// Looks at processes, given as node and process id, and at this one.
    pub(super) fn of(pids: &[(u64, u32)]) -> Self {
        let servers = pids.iter().map(|(node, pid)| look(*node, *pid)).collect();
        Self { servers, client: look(0, std::process::id()) }
    }

    /// What was used since an earlier look.
    pub(super) fn since(&self, earlier: &Self) -> Used {
        let minus = |now: &ProcessUsage, then: &ProcessUsage| ProcessUsage {
            cpu_seconds: (now.cpu_seconds - then.cpu_seconds).max(0.0),
            ..*now
        };
        let servers = self.servers.iter().zip(&earlier.servers);
        Used {
            servers: servers.map(|(now, then)| minus(now, then)).collect(),
            client: minus(&self.client, &earlier.client),
        }
    }
}

/// What can't be read (another system, a process that has ended) counts as nothing.
fn look(node_id: u64, pid: u32) -> ProcessUsage {
    let process = Path::new("/proc").join(pid.to_string());
    // User and system time of all threads, those that have ended included: fields 14 and 15 of proc_pid_stat(5), of which the
    // second is a name in parentheses that may hold anything.
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    let fields =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    let ticks = ticks.fold(0, u64::saturating_add);
    let millis = ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1);
    let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0);
    let cpu_seconds = std::time::Duration::from_millis(millis).as_secs_f64();
    ProcessUsage { node_id, cpu_seconds, rss_bytes: kib.saturating_mul(1024) }
}
