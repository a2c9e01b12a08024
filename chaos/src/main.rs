//! `holdfast-chaos`: faults against real servers, and what came of it.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use holdfast::planted::Plant;
use holdfast_chaos::controls::{self, Outcome};
use holdfast_chaos::fault::{CATALOGUE, chosen, delay_packets, lacks, lacks_hosts, lacks_plain};
use holdfast_chaos::run::{Ended, Options, fresh_out, program, run};
use holdfast_chaos::simulate::{SimulateArgs, simulate};
use holdfast_chaos::{check, report};

/// Fault injection against real Holdfast servers
#[derive(Debug, Parser)]
#[command(name = "holdfast-chaos", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run three servers under a load, and break hosts, links and disks
    Run(RunArgs),
    /// Show all faults, what each does, and whether this machine can do it
    List,
    /// Check a recorded run again
    Check {
        /// Directory of the run
        dir: PathBuf,
    },
    /// Plant bugs in the product, one after another, and see that each is caught
    Controls(ControlsArgs),
    /// Run many seeds of the deterministic simulation
    Simulate(SimulateArgs),
    /// Let packets of a queue wait; a part of `run`
    #[command(hide = true)]
    DelayPackets {
        /// Number of the queue
        queue: u16,
        /// Milliseconds that each waits at least
        base: u64,
        /// Milliseconds that it may wait longer
        jitter: u64,
    },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// How long faults go on: 90s, 10m, 1h
    #[arg(long, default_value = "120s", value_parser = duration)]
    duration: Duration,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Names or groups of faults, as `list` shows them; all if left out
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Servers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    nodes: u64,
    /// New directory for history, logs and report; a fresh one below the temporary directory if left out
    #[arg(long)]
    out: Option<PathBuf>,
    /// The program holdfast; the one beside this program if left out
    #[arg(long)]
    server: Option<PathBuf>,
    /// Calls a second at most
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Clients
    #[arg(long, default_value_t = 24)]
    clients: u32,
    /// Devices that escrow
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=200))]
    devices: u32,
    /// Plain processes on loopback, as without root: what needs more is left out
    #[arg(long)]
    plain: bool,
    /// Keep the disks' images
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, clap::Args)]
struct ControlsArgs {
    /// Only this planted bug
    #[arg(long, value_parser = controls::plant)]
    only: Option<Plant>,
    /// New directory for what the runs leave; a fresh one below the temporary directory if left out
    #[arg(long)]
    out: Option<PathBuf>,
    /// The program holdfast with planted bugs; built by cargo in the present directory if left out
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The simulation with planted bugs; built by cargo in the present directory if left out
    #[arg(long)]
    simulation: Option<PathBuf>,
    /// Simulations at the same time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().map_err(|_| "a number with s, m or h".to_owned())?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("{unit:?} is none of s, m, h")),
    };
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("standard output")
}

fn list() -> anyhow::Result<()> {
    let plain = lacks_hosts();
    if let Some(lack) = &plain {
        say(&format!("Plain processes on loopback behind a proxy: {lack}"))?;
    }
    say(
        "The seconds are those for which escrow and disclosure may stand still, through the servers that are well.",
    )?;
    for kind in CATALOGUE {
        let lack = if plain.is_none() { lacks(kind) } else { lacks_plain(kind) };
        let can = lack.map_or_else(|| "yes".to_owned(), |lack| format!("no: {lack}"));
        let bound = kind.bound.map_or_else(|| "any".to_owned(), |bound| format!("{bound} s"));
        say(&format!("{:10} {:25} {bound:>5}  {can:4} {}", kind.group, kind.name, kind.does))?;
    }
    Ok(())
}

fn start(args: RunArgs) -> anyhow::Result<ExitCode> {
    let kinds = chosen(&args.faults).map_err(anyhow::Error::msg)?;
    let lack = lacks_hosts();
    let isolated = !args.plain && lack.is_none();
    if let Some(lack) = lack.filter(|_| !args.plain) {
        say(&format!("plain processes on loopback behind a proxy: {lack}"))?;
    }
    if !isolated {
        let left_out = kinds.iter().filter_map(|kind| Some((kind.name, lacks_plain(kind)?)));
        for (name, lack) in left_out {
            say(&format!("left out: {name}: {lack}"))?;
        }
    }
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let out = args.out.map_or_else(fresh_out, Ok)?;
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let options = Options {
        duration: args.duration,
        seed: args.seed,
        kinds,
        named: !args.faults.is_empty(),
        nodes: args.nodes,
        out: out.canonicalize()?,
        program: program(args.server.as_deref())?,
        isolated,
        rate: args.rate,
        clients: args.clients,
        devices: args.devices,
        keep: args.keep,
        command,
    };
    say(&format!("run in {}", options.out.display()))?;
    let out = options.out.clone();
    let ended = run(options);
    let verdict = judge(&out);
    if ended? == Ended::Interrupted {
        return Ok(ExitCode::from(130));
    }
    verdict
}

fn judge(dir: &std::path::Path) -> anyhow::Result<ExitCode> {
    let verdict = check::check_dir(dir);
    report::write(dir, &verdict)?;
    for result in &verdict.results {
        let checked = format!("{} {}", result.checked, result.unit);
        say(&format!("{:14} {:?}, {checked}", result.name, result.status))?;
        for violation in result.violations.iter().take(5) {
            say(&format!("    {}", violation.what))?;
        }
    }
    for reason in &verdict.reasons {
        say(&format!("because {reason}"))?;
    }
    say(&format!("{:?}: {}", verdict.judgement, dir.join("report.html").display()))?;
    Ok(if verdict.green() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(outcome: &Outcome) {
    let after = format!("{} seeds, {} operations", outcome.seeds, outcome.seen.operations);
    let by = outcome.seen.checkers.join(", ");
    let line = match &outcome.fault {
        None => format!("{:22} caught by {by} after {after}: {}", outcome.plant, outcome.harness),
        Some(fault) => {
            format!("{:22} FAILED after {after}: {}: {fault}", outcome.plant, outcome.harness)
        }
    };
    // Told again at the end, when a closed standard output is an error.
    drop(say(&line));
}

fn run_controls(args: ControlsArgs) -> anyhow::Result<ExitCode> {
    let out = args.out.map_or_else(fresh_out, Ok)?;
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let programs = controls::Programs::find(args.binary, args.simulation)?;
    let options =
        controls::Options { only: args.only, out: out.canonicalize()?, programs, jobs: args.jobs };
    let outcomes = controls::run(&options, &tell)?;
    let path = options.out.join("controls.json");
    holdfast_chaos::env::files::write(&path, &serde_json::to_vec_pretty(&outcomes)?)?;
    say("")?;
    outcomes.iter().for_each(tell);
    let failed = outcomes.iter().filter(|outcome| outcome.fault.is_some()).count();
    say(&format!("{} planted bugs, {failed} failed: {}", outcomes.len(), path.display()))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn main() -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,holdfast_chaos=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Run(args) => start(args),
        Command::List => list().map(|()| ExitCode::SUCCESS),
        Command::Check { dir } => judge(&dir),
        Command::Controls(args) => run_controls(args),
        Command::Simulate(args) => simulate(args),
        Command::DelayPackets { queue, base, jitter } => {
            delay_packets(queue, base, jitter).map(|()| ExitCode::SUCCESS)
        }
    }
}
