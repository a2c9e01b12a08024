//! `holdfast-chaos`: faults against real servers, and what came of it.

use clap::Parser;

/// Fault injection against real Holdfast servers
#[derive(Debug, Parser)]
#[command(name = "holdfast-chaos", version, arg_required_else_help = true)]
struct Cli {}

fn main() {
    let _cli = Cli::parse();
}
