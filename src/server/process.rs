//! The server as a process: arguments, logs, signals, panics and the exit code.

use std::error::Error;
use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::clock::{SharedClock, SystemClock};
use crate::hardening;
use crate::planted;
use crate::raft;
use crate::storage::panics_are_caught;
use crate::telemetry;

use super::build::build_node;
use super::config::{Config, Sources};
use super::credentials::Credentials;
use super::serve::{Listeners, Outcome, Server};

/// Exit code for arguments and configuration.
const USAGE: u8 = 2;
/// Exit code for a server that could not start.
const NOT_STARTED: u8 = 1;
/// Exit code for a server that could not go on (`EX_SOFTWARE` of sysexits.h).
const FAILED: u8 = 70;

/// Runs one server of a cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServerArgs {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub sources: Sources,
    /// Stop when standard input ends, so that a server does not outlive whoever started it.
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
}

/// Runs a server until it is told to stop or fails. Exit code 0 means stopped in order, 2 a bad configuration, 1 that it
/// could not start, 70 that it could not go on.
pub fn run(args: ServerArgs) -> ExitCode {
    let config = match args.sources.load() {
        Ok(config) => config,
        Err(error) => return complain(&error, USAGE),
    };
    // Files that the configuration names and that don't fit are its faults, as `config check` says too.
    let credentials = match Credentials::load(&config) {
        Ok(credentials) => credentials,
        Err(error) => return complain(&error, USAGE),
    };
    if let Err(error) = telemetry::init(config.log.format, &config.log.level, raft::QUIETER_LOG) {
        return complain(&error, USAGE);
    }
    if let Err(error) = planted::announce() {
        return complain(&error, USAGE);
    }
    if hardening::tracing_allowed() {
        tracing::warn!(
            "HOLDFAST_ALLOW_TRACING is set: this server's user may read its memory, and the keys in it"
        );
    }
    abort_on_panic();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, NOT_STARTED),
    };
    let ended = runtime.block_on(serve(config, credentials, args.exit_with_stdin));
    // Nothing is waited for: in order, everything is closed by now; after a fault, nothing may go on.
    runtime.shutdown_background();
    match ended {
        Ok(Outcome::Stopped) => ExitCode::SUCCESS,
        Ok(Outcome::Failed(why)) => {
            telemetry::last_word(|| {
                tracing::error!(why, "the node can't go on; the process ends at once");
            });
            ExitCode::from(FAILED)
        }
        Err(error) => {
            let error = chain(error.as_ref());
            telemetry::last_word(|| tracing::error!(error, "the server can't start"));
            ExitCode::from(NOT_STARTED)
        }
    }
}

async fn serve(
    config: Config,
    credentials: Credentials,
    with_stdin: bool,
) -> Result<Outcome, Box<dyn Error + Send + Sync>> {
    let clock: SharedClock = Arc::new(SystemClock);
    let listeners = Listeners::bind(&config).await?;
    let stop = stop_signal(with_stdin)?;
    let built =
        build_node(&config, Arc::clone(&credentials.authorities), Arc::clone(&clock)).await?;
    // After a fault nothing is closed any more: the view's engine syncs its file then, which fails on a failed disk, and panics.
    let open = ManuallyDrop::new(Arc::clone(&built.node));
    let ended = Server::new(config, built, credentials, clock).serve(listeners, stop).await;
    if !matches!(ended, Ok(Outcome::Failed(_))) {
        drop(ManuallyDrop::into_inner(open));
    }
    Ok(ended?)
}

/// Done at SIGTERM or SIGINT, or when standard input ends.
fn stop_signal(with_stdin: bool) -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM"),
            _ = interrupt.recv() => tracing::info!("SIGINT"),
            () = end_of_stdin(), if with_stdin => tracing::info!("standard input has ended"),
        }
    })
}

/// Reads standard input to its end, on a thread of its own: such a read can't be given up.
async fn end_of_stdin() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
        drop(ended);
    });
    // It is never sent to: that it is dropped is the signal.
    drop::<Result<(), _>>(end.await);
}

/// A panic ends the process: a server with a dead task in it must not look alive. But for those of the view's engine on damaged
/// files, which are caught where they come up, and for one that says nothing of this server ([`of_a_lost_lead`]).
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let said = info.payload_as_str().unwrap_or("no message");
        if panics_are_caught() {
            tracing::error!(place, said, "the view's engine can't read its files");
            return;
        }
        if of_a_lost_lead(&place, said) {
            tracing::info!("a stream to a follower ended: this node leads no more");
            return;
        }
        if of_a_failed_disk(&place, said) {
            telemetry::last_word(|| {
                let why = format!("the view's disk failed: {said}");
                tracing::error!(place, why, "the node can't go on; the process ends at once");
            });
            std::process::exit(FAILED.into());
        }
        telemetry::last_word(|| {
            tracing::error!(place, said, "panic; the process ends at once");
        });
        std::process::abort();
    }));
}

/// Openraft asserts that what it is about to send to a follower is no reversed range. A node that has just lost the lead may have cut
/// its log back to the new leader's before its streams are told to end: one of them then asks for entries that are no more, and
/// fails that assertion. It has sent nothing, and is of no use any more; the next lead begins new streams.
fn of_a_lost_lead(place: &str, said: &str) -> bool {
    place.contains("/openraft-")
        && place.contains("/src/replication/stream_state.rs:")
        && said.contains("read_log_entries received reversed range")
}

/// The view's engine takes it for impossible that some calls to the disk fail, above all the sync when it is closed.
fn of_a_failed_disk(place: &str, said: &str) -> bool {
    place.contains("/sled-") && said.contains("Os { code: ")
}

fn complain(error: &dyn Error, code: u8) -> ExitCode {
    // Nothing is left to try if standard error is closed.
    drop(writeln!(std::io::stderr().lock(), "error: {}", chain(error)));
    ExitCode::from(code)
}

/// An error with all its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_assertion_of_the_consensus_is_passed_over_and_no_other_panic() {
        let openraft = "/registry/openraft-0.10.0-alpha.37/src/replication/stream_state.rs:228:13";
        let reversed = "assertion `left == right` failed: read_log_entries received reversed range: start(9) > \
                        end(7), log_id_range: (T1-N1.8, T1-N1.6]";
        assert!(of_a_lost_lead(openraft, reversed));
        assert!(!of_a_lost_lead(openraft, "assertion failed: self.is_leader()"));
        assert!(!of_a_lost_lead("src/raft/network.rs:1:1", reversed));
    }

    #[test]
    fn a_disk_that_fails_under_the_views_engine_is_told_from_a_fault_of_the_program() {
        let sled = "/registry/sled-0.34.7/src/pagecache/logger.rs:467:41";
        let failed = "called `Result::unwrap()` on an `Err` value: Os { code: 5, kind: Uncategorized, message: \
                      \"Input/output error\" }";
        assert!(of_a_failed_disk(sled, failed));
        assert!(!of_a_failed_disk(sled, "called `Option::unwrap()` on a `None` value"));
        assert!(!of_a_failed_disk("src/storage/wal/writer.rs:1:1", failed));
    }
}
