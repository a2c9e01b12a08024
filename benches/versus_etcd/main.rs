//! Holdfast and etcd in turns, in one run, on one machine: three servers each, mTLS between all, the same number of clients
//! and connections. Needs Debian's `etcd-server`; prints a table for `docs/performance.md`.
//!
//! `cargo bench --bench versus_etcd -- --seconds 60 --in-flight 1,16,64,256 --gaps 5`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

mod etcd;
mod holdfast;
mod load;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use etcd::Etcd;
use load::{Figures, Kind};

/// Connections over which requests are spread, if there are that many in flight.
const CONNECTIONS: usize = 4;

#[derive(Debug, clap::Parser)]
struct Args {
    /// How long each load lasts
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Requests in flight
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    in_flight: Vec<usize>,
    /// What is compared
    #[arg(long, value_delimiter = ',', default_value = "escrow,find,read")]
    loads: Vec<String>,
    /// How often each leader is killed; 0 to leave that out
    #[arg(long, default_value_t = 5)]
    gaps: usize,
    /// etcd's program
    #[arg(long, default_value = "/usr/bin/etcd")]
    etcd: PathBuf,
    /// Directory on the disk that is to be measured
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if !args.etcd.exists() {
        println!("SKIPPED: {} is missing (Debian: etcd-server)", args.etcd.display());
        return Ok(());
    }
    println!("| In flight | Load | Operations/s | p50 ms | p99 ms | Errors | Ratio |");
    println!("|---|---|---|---|---|---|---|");
    for clients in &args.in_flight {
        turns(&args, *clients).await?;
    }
    if args.gaps > 0 {
        gaps(&args).await?;
    }
    Ok(())
}

/// One row for each load; a load of Holdfast follows the one of etcd that it is compared with.
async fn turns(args: &Args, clients: usize) -> Result<()> {
    let pairs = [
        (Kind::Put, "etcd put", "escrow"),
        (Kind::Txn, "etcd transaction", "find"),
        (Kind::Get, "etcd get", "read"),
    ];
    let connections = clients.min(CONNECTIONS);
    let base = args.dir.as_deref();
    let wanted = |workload: &str| args.loads.iter().any(|load| load == workload);
    for (kind, name, workload) in pairs.into_iter().filter(|(_, _, load)| wanted(load)) {
        let cluster = Etcd::start(&args.etcd, base).await?;
        let time = Duration::from_secs(args.seconds);
        let theirs = load::run(&cluster, kind, clients, connections, time).await?;
        drop(cluster);
        row(clients, name, &theirs, None);
        let ours = holdfast::run(workload, clients, connections, args.seconds, base).await?;
        row(clients, &format!("holdfast {workload}"), &ours, Some(ours.rate / theirs.rate));
    }
    Ok(())
}

fn row(clients: usize, name: &str, figures: &Figures, ratio: Option<f64>) {
    let Figures { rate, p50, p99, errors } = figures;
    let ratio = ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    println!("| {clients} | {name} | {rate:.0} | {p50:.2} | {p99:.2} | {errors} | {ratio} |");
}

/// Kills leaders under writes, in turns.
async fn gaps(args: &Args) -> Result<()> {
    const WRITERS: usize = 8;
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    let base = args.dir.as_deref();
    for _ in 0..args.gaps {
        let mut cluster = Etcd::start(&args.etcd, base).await?;
        theirs.push(load::gap(&mut cluster, WRITERS).await?);
        drop(cluster);
        ours.push(holdfast::gap(WRITERS, base).await?);
    }
    println!();
    println!(
        "Longest time without an acknowledged write, leader killed with SIGKILL, {WRITERS} writers:"
    );
    println!();
    for (name, gaps) in [("etcd", &mut theirs), ("holdfast", &mut ours)] {
        gaps.sort_unstable();
        let median = gaps.get(gaps.len() / 2).context("no gap")?;
        println!("- {name}: median {} ms of {:?}", median.as_millis(), gaps);
    }
    Ok(())
}
