//! Runs a program with a secret on its standard input, a deadline, and bounded output.
//!
//! The program leads a process group of its own, and whatever ends the call (its deadline, too much output, the caller losing
//! interest) ends the whole group.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::BufReader;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};

/// Most bytes that are taken from either output: the largest metadata area of LUKS2 and some more.
const MOST_OUTPUT: usize = 5 * 1024 * 1024;
/// Longest line of progress.
const MOST_LINE: u64 = 16 * 1024;
/// How much of what a program said is kept for a person.
const KEPT_WORDS: usize = 300;
/// How long a program that was asked to end may take before it is killed: it may have a piece of the disk in its hands.
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait for a killed program. One that waits for a dead disk can't be killed.
const REAP: Duration = Duration::from_secs(5);

/// What to run.
pub(super) struct Call<'a> {
    pub(super) program: &'a Path,
    pub(super) args: &'a [OsString],
    /// Goes to the standard input, and nothing after it.
    pub(super) input: &'a [u8],
    /// Where the program puts files of its own.
    pub(super) directory: &'a Path,
    /// For all of it, or between two lines of progress.
    pub(super) deadline: Duration,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Answer {
    /// Exit code; -1 if a signal ended it.
    pub(super) code: i32,
    pub(super) output: Vec<u8>,
    /// The beginning of what stands on the error output, for a person: nothing is decided by it.
    pub(super) said: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("it can't be started: {0}")]
    Start(#[source] io::Error),
    #[error("it did not end in time")]
    Hung,
    #[error("it said more than {MOST_OUTPUT} bytes")]
    TooMuch,
    #[error("its pipes failed: {0}")]
    Pipe(#[source] io::Error),
}

/// Runs it to its end.
pub(super) async fn run(call: &Call<'_>) -> Result<Answer, RunError> {
    let mut running = Running::start(call)?;
    let Pipes { input, output, errors } = running.pipes()?;
    let talk = async {
        let ((), output, errors) =
            tokio::try_join!(feed(input, call.input), read_all(output), read_all(errors))?;
        let status = running.child.wait().await.map_err(RunError::Pipe)?;
        Ok((status, output, errors))
    };
    let outcome = timeout(call.deadline, talk).await.unwrap_or(Err(RunError::Hung));
    match outcome {
        Ok((status, output, errors)) => {
            running.ended();
            Ok(answer(status, output, &errors))
        }
        Err(error) => {
            running.kill().await;
            Err(error)
        }
    }
}

/// Runs it to its end, however long that takes, as long as a line comes now and then.
pub(super) async fn follow(
    call: &Call<'_>,
    line: &(dyn Fn(&[u8]) + Send + Sync),
) -> Result<Answer, RunError> {
    let mut running = Running::start(call)?;
    let Pipes { input, output, errors } = running.pipes()?;
    let group = running.group;
    let talk = async {
        let ((), asked, errors) = tokio::try_join!(
            feed(input, call.input),
            read_lines(output, call.deadline, group, line),
            read_all(errors)
        )?;
        let ended = timeout(call.deadline, running.child.wait()).await;
        let status = ended.map_err(|_| RunError::Hung)?.map_err(RunError::Pipe)?;
        Ok((status, asked, errors))
    };
    match talk.await {
        Ok((status, asked, errors)) => {
            running.ended();
            if asked { Err(RunError::Hung) } else { Ok(answer(status, Vec::new(), &errors)) }
        }
        Err(error) => {
            running.kill().await;
            Err(error)
        }
    }
}

fn answer(status: ExitStatus, output: Vec<u8>, errors: &[u8]) -> Answer {
    let words = String::from_utf8_lossy(errors);
    let words: Vec<&str> = words.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let words = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let said = words.chars().take(KEPT_WORDS).collect();
    Answer { code: status.code().unwrap_or(-1), output, said }
}

struct Pipes {
    input: ChildStdin,
    output: ChildStdout,
    errors: ChildStderr,
}

/// A process and its group, which end with it.
struct Running {
    child: Child,
    /// The group, until its leader has been waited for: after that its number may be somebody else's.
    group: Option<Pid>,
}

impl Running {
    fn start(call: &Call<'_>) -> Result<Self, RunError> {
        let mut command = Command::new(call.program);
        command.args(call.args).current_dir(call.directory).env_clear();
        // Nothing is decided by words; these keep them in one language, and the directories of what it may call itself.
        command.env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(RunError::Start)?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group })
    }

    fn pipes(&mut self) -> Result<Pipes, RunError> {
        let lost = || RunError::Pipe(io::ErrorKind::BrokenPipe.into());
        Ok(Pipes {
            input: self.child.stdin.take().ok_or_else(lost)?,
            output: self.child.stdout.take().ok_or_else(lost)?,
            errors: self.child.stderr.take().ok_or_else(lost)?,
        })
    }

    /// The leader was waited for.
    fn ended(&mut self) {
        self.group = None;
    }

    async fn kill(&mut self) {
        signal(self.group, Signal::KILL);
        if timeout(REAP, self.child.wait()).await.is_ok() {
            self.ended();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        signal(self.group, Signal::KILL);
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It fails if the group has ended by itself, which is as good.
        kill_process_group(group, signal).ok();
    }
}

async fn feed(mut to: ChildStdin, input: &[u8]) -> Result<(), RunError> {
    let written = async {
        to.write_all(input).await?;
        to.shutdown().await
    };
    match written.await {
        // It ended without wanting all of it; its exit code says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(RunError::Pipe),
    }
}

async fn read_all(from: impl AsyncRead + Unpin) -> Result<Vec<u8>, RunError> {
    let mut bytes = Vec::new();
    let one_more = u64::try_from(MOST_OUTPUT).unwrap_or(u64::MAX).saturating_add(1);
    from.take(one_more).read_to_end(&mut bytes).await.map_err(RunError::Pipe)?;
    if bytes.len() > MOST_OUTPUT { Err(RunError::TooMuch) } else { Ok(bytes) }
}

/// Reads lines to the end. If none comes in time, the program is asked to end, and its last words are still read: it would die of
/// nobody listening, in the midst of what it has in its hands. Says whether it was asked.
async fn read_lines(
    from: ChildStdout,
    between: Duration,
    group: Option<Pid>,
    line: &(dyn Fn(&[u8]) + Send + Sync),
) -> Result<bool, RunError> {
    let mut from = BufReader::new(from);
    let mut last = None;
    loop {
        let mut read = Vec::new();
        let mut limited = (&mut from).take(MOST_LINE);
        let until = last.unwrap_or_else(|| Instant::now() + between);
        match timeout_at(until, limited.read_until(b'\n', &mut read)).await {
            Err(_) if last.is_some() => return Err(RunError::Hung),
            Err(_) => {
                signal(group, Signal::TERM);
                last = Some(Instant::now() + GRACE);
            }
            Ok(Err(error)) => return Err(RunError::Pipe(error)),
            Ok(Ok(0)) => return Ok(last.is_some()),
            Ok(Ok(_)) if !read.ends_with(b"\n") && read.len() as u64 >= MOST_LINE => {
                return Err(RunError::TooMuch);
            }
            Ok(Ok(_)) => line(&read),
        }
    }
}
