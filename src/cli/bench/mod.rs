//! `holdfast bench`: a load generator over the real API, with mutual TLS and real sealing.
//!
//! Every client is a closed loop: it sends its next request when the one before is answered. Keys are sealed and messages
//! encoded before the clock starts, since the load shares its processors with the servers. It kills nothing itself.

mod load;
mod pool;
mod report;
mod setup;
mod usage;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use super::exit::CliError;
use super::exit::Exit;
use super::local_cluster::{ADMINISTRATOR, LocalCluster, LocalOptions};
use super::{Context, Done};
use crate::domain::{DeviceId, DisclosurePolicy, OperatorName, PolicyParts, ProtectorId, limits};
use setup::Target;
use usage::Usage;

/// Most clients and connections.
const MOST: u64 = 4096;

/// What to measure, and how hard.
#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    /// What to do all the time
    #[arg(value_enum)]
    workload: Workload,
    /// Requests in flight
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=MOST))]
    clients: u64,
    /// Connections that they share, each with a certificate of its own if --pki or --local is given
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=MOST))]
    connections: u64,
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Directory that `holdfast pki init` made: certificates, keys to look for and grants are made by the benchmark
    #[arg(long, value_name = "DIR", conflicts_with = "local")]
    pki: Option<PathBuf>,
    /// Administrator who grants what is needed, with --pki
    #[arg(long, default_value = ADMINISTRATOR)]
    admin: OperatorName,
    /// Start a cluster of three servers on this machine for the measurement, and remove it afterwards
    #[arg(long)]
    local: bool,
    /// Directory for the cluster of --local, on the disk that is to be measured; a temporary one if left out
    #[arg(long, value_name = "DIR", requires = "local")]
    dir: Option<PathBuf>,
    /// Which receipts and answers are checked
    #[arg(long, value_enum, default_value_t)]
    verify: Verify,
    /// Escrows a second that keys are sealed for beforehand; beyond that they are sealed while the clock runs
    #[arg(long, default_value_t = 6000)]
    rate: u64,
    /// Keys that are escrowed beforehand, to be found and disclosed
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    keys: u64,
    /// Key ids to find or disclose, if none are to be escrowed
    #[arg(long = "key-id", value_name = "UUID")]
    key_ids: Vec<ProtectorId>,
    /// Device to read, if none is to be made
    #[arg(long, value_name = "UUID")]
    device: Option<DeviceId>,
    /// Which server each connection asks first
    #[arg(long, value_enum, default_value_t)]
    spread: Spread,
}

/// What is done all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Workload {
    /// Escrow keys, as agents do
    Escrow,
    /// Find keys by their first eight digits; audited
    Find,
    /// Disclose keys; audited, and limited to 200 an hour for each operator
    Disclose,
    /// Report compliance, as agents do
    Compliance,
    /// Read a device; linearizable and not audited
    Read,
    /// Escrow keys and report the longest time without an acknowledged write
    Gap,
}

impl Workload {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Escrow => "escrow",
            Self::Find => "find",
            Self::Disclose => "disclose",
            Self::Compliance => "compliance",
            Self::Read => "read",
            Self::Gap => "gap",
        }
    }
}

/// Which answers are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Verify {
    /// One of 64
    #[default]
    Sample,
    /// Every one
    All,
}

impl Verify {
    const fn every(self) -> u64 {
        match self {
            Self::Sample => 64,
            Self::All => 1,
        }
    }
}

/// Which server is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Spread {
    /// One after the other
    #[default]
    All,
    /// Always the one that leads when the measurement begins
    Leader,
}

pub(super) async fn run(context: &Context, args: BenchArgs) -> Done {
    if args.clients < args.connections {
        return Err(CliError::usage("--clients must be at least --connections"));
    }
    if !args.local {
        let target = Target::remote(context, &args)?;
        context.printer.print(&measure(context, &args, &target, &[]).await?)?;
        return Ok(Exit::Ok);
    }
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(temporary_dir()?),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(CliError::failed("no directory for the cluster")),
    };
    let mut cluster = LocalCluster::prepare(LocalOptions::of_this_program(&dir)?)?;
    context.printer.progress("starting three servers");
    let measured = local(context, &args, &mut cluster).await;
    let stopped = cluster.stop().await;
    context.printer.print(&measured?)?;
    stopped?;
    Ok(Exit::Ok)
}

async fn local(
    context: &Context,
    args: &BenchArgs,
    cluster: &mut LocalCluster,
) -> Result<report::Report, CliError> {
    cluster.start().await?;
    let pids: Vec<_> =
        cluster.nodes().iter().filter_map(|node| Some((node.id(), node.pid()?))).collect();
    lift_quotas(cluster).await?;
    let target = Target::local(cluster, args);
    let report = measure(context, args, &target, &pids).await;
    cluster.check_running()?;
    report
}

/// Lets operators disclose as much as a policy may allow: what is measured are servers, and not quotas.
async fn lift_quotas(cluster: &LocalCluster) -> Result<(), CliError> {
    let administrator = cluster.administrator()?;
    let status = administrator.disclosure_status().await?;
    let policy = DisclosurePolicy::new(PolicyParts {
        requester_hour: limits::REQUESTER_HOUR,
        requester_day: limits::REQUESTER_DAY,
        cluster_hour: limits::CLUSTER_HOUR,
        ..DisclosurePolicy::default().parts()
    })?;
    administrator.set_disclosure_policy(status.revision, &policy).await?;
    Ok(())
}

async fn measure(
    context: &Context,
    args: &BenchArgs,
    target: &Target,
    pids: &[(u64, u32)],
) -> Result<report::Report, CliError> {
    let work = work::prepare(context.printer, args, target).await?;
    context.printer.progress(format!(
        "{}: {} clients on {} connections for {} s",
        args.workload.as_str(),
        args.clients,
        args.connections,
        args.seconds
    ));
    let before = Usage::of(pids);
    let measured = work.run(Duration::from_secs(args.seconds)).await?;
    let usage = Usage::of(pids).since(&before);
    Ok(report::Report::new(args, &measured, usage))
}

/// A directory that is removed when it is dropped.
pub(super) fn temporary_dir() -> Result<tempfile::TempDir, CliError> {
    let made = tempfile::Builder::new().prefix("holdfast-").tempdir();
    made.map_err(|error| CliError::failed(format!("making a temporary directory: {error}")))
}
