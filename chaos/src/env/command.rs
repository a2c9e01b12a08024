//! Other programs: what they say is kept for whoever has to explain a failure.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How long a program may take that is expected to end at once. Taking away a file system waits for its disk.
const LIMIT: Duration = Duration::from_secs(60);

/// Where a program lies, if it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let dirs = std::env::split_paths(&path).chain(sbin);
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn said(program: &str, args: &[&str], output: &Output) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}: {}", args.join(" "), output.status, error.trim());
    }
    Ok(text)
}

/// Runs a program to its end and gives what it printed. For the time before and after the runtime.
///
/// # Errors
/// If it can't be run, or ends with another code than 0.
pub fn call_blocking(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C in a terminal is for the harness, which takes away what is there already.
    let mut child =
        command.process_group(0).spawn().with_context(|| format!("running {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("input of {program}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {program}"))?;
    said(program, args, &output)
}

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// If it can't be run, takes too long, or ends with another code than 0.
pub async fn call(program: &str, args: &[&str]) -> anyhow::Result<String> {
    call_with(program, args, "").await
}

/// The same with something on its standard input.
///
/// # Errors
/// As [`call`].
pub async fn call_with(program: &str, args: &[&str], input: &str) -> anyhow::Result<String> {
    use tokio::io::AsyncWriteExt as _;
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.process_group(0).spawn().with_context(|| format!("running {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let written = stdin.write_all(input.as_bytes()).await;
        written.with_context(|| format!("input of {program}"))?;
    }
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    let output = output.with_context(|| format!("{program} {}", args.join(" ")))?;
    said(program, args, &output.with_context(|| format!("waiting for {program}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_its_own_words() {
        let error = call("sh", &["-c", "echo broken >&2; exit 3"]).await.unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
        assert_eq!(call_with("cat", &[], "there and back").await.unwrap(), "there and back");
        assert!(find("sh").is_some() && find("no-such-program").is_none());
    }
}
