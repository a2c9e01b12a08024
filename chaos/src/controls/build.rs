//! Builds the programs with planted bugs, into a directory of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

/// Where cargo puts them, so that they never lie among others.
const TARGET: &str = "target/planted";

/// The programs that planted bugs are in.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `holdfast`.
    pub server: PathBuf,
    /// The test binary of `tests/simulation`.
    pub simulation: PathBuf,
}

impl Programs {
    /// Those that are named; the others are built by cargo, in the present directory.
    ///
    /// # Errors
    /// If one can't be built, or has no planted bugs.
    pub fn find(server: Option<PathBuf>, simulation: Option<PathBuf>) -> anyhow::Result<Self> {
        let server = match server {
            Some(server) => server,
            None => built(&["build", "--bin", "holdfast"], "holdfast")?,
        };
        let simulation = match simulation {
            Some(simulation) => simulation,
            None => built(&["test", "--no-run", "--test", "simulation"], "simulation")?,
        };
        check(&server)?;
        Ok(Self { server, simulation })
    }
}

fn check(server: &Path) -> anyhow::Result<()> {
    let output = Command::new(server).arg("--version").output();
    let output = output.with_context(|| server.display().to_string())?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let planted = version.contains("PLANTED");
    anyhow::ensure!(planted, "{} has no planted bugs: {}", server.display(), version.trim());
    Ok(())
}

fn built(what: &[&str], name: &str) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(what)
        .args(["--locked", "-p", "holdfast", "--features", "planted", "--target-dir", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    anyhow::ensure!(output.status.success(), "cargo {}: {}", what.join(" "), output.status);
    let found = executable(&String::from_utf8_lossy(&output.stdout), name);
    found.with_context(|| format!("cargo names no program {name}"))
}

/// The program that cargo's messages name for a target.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut found = messages.filter_map(|message: serde_json::Value| {
        let named = message.pointer("/target/name")?.as_str()? == name;
        message.get("executable")?.as_str().filter(|_| named).map(PathBuf::from)
    });
    found.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_target_is_found_in_what_cargo_says() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"holdfast"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"holdfast"},"executable":"/t/holdfast"}
{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
no json
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "holdfast"), Some(PathBuf::from("/t/holdfast")));
        assert_eq!(executable(messages, "simulation"), None);
    }
}
