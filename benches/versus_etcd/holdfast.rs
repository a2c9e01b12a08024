//! The same with Holdfast, through its own load generator and its own `dev` cluster.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::load::Figures;

/// The program under measurement.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_holdfast");
const READY: Duration = Duration::from_secs(60);

fn number(value: &Value, at: &str) -> Result<f64> {
    value.pointer(at).and_then(Value::as_f64).with_context(|| format!("no {at} in {value}"))
}

async fn json(command: &mut Command) -> Result<Value> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        bail!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// `holdfast bench WORKLOAD --local`.
pub(crate) async fn run(
    workload: &str,
    clients: usize,
    connections: usize,
    seconds: u64,
    base: Option<&Path>,
) -> Result<Figures> {
    let mut command = Command::new(PROGRAM);
    // Keys for more escrows than there will be: sealing is the agents' work, and not what is compared.
    command.args(["bench", workload, "--local", "-o", "json", "--rate", "13000"]);
    command.arg("--clients").arg(clients.to_string());
    command.arg("--connections").arg(connections.to_string());
    command.arg("--seconds").arg(seconds.to_string());
    let dir = base.map(tempfile::tempdir_in).transpose()?;
    if let Some(dir) = &dir {
        command.arg("--dir").arg(dir.path().join("cluster"));
    }
    let answer = json(&mut command).await?;
    let errors = answer.get("errors").and_then(Value::as_object).context("no errors")?;
    Ok(Figures {
        rate: number(&answer, "/operations_per_second")?,
        p50: number(&answer, "/latency_ms/p50")?,
        p99: number(&answer, "/latency_ms/p99")?,
        errors: errors.values().filter_map(Value::as_u64).sum(),
    })
}

/// A `holdfast dev` cluster that is written to while its leader is killed.
pub(crate) async fn gap(clients: usize, base: Option<&Path>) -> Result<Duration> {
    let dir = match base {
        Some(base) => tempfile::tempdir_in(base)?,
        None => tempfile::tempdir()?,
    };
    let mut dev = Command::new(PROGRAM)
        .arg("dev")
        .arg("--dir")
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let gap = measure(&dir.path().join("dev.json"), clients, &mut dev).await;
    let pid = dev.id().context("dev has ended")?;
    // In order, so that no server is left behind.
    Command::new("kill").arg("-TERM").arg(pid.to_string()).status().await?;
    dev.wait().await?;
    gap
}

async fn measure(file: &Path, clients: usize, dev: &mut Child) -> Result<Duration> {
    let deadline = Instant::now() + READY;
    let cluster: Value = loop {
        if let Ok(text) = tokio::fs::read(file).await {
            break serde_json::from_slice(&text)?;
        }
        if Instant::now() > deadline || dev.try_wait()?.is_some() {
            bail!("holdfast dev does not start");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let text = |at: &str| cluster.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let connect = |command: &mut Command| {
        command.env("HOLDFAST_ADDR", text("/endpoints")).env("HOLDFAST_CACERT", text("/node_ca"));
    };
    let mut bench = Command::new(PROGRAM);
    connect(&mut bench);
    bench.args([
        "bench",
        "gap",
        "-o",
        "json",
        "--seconds",
        "7",
        "--connections",
        "3",
        "--rate",
        "3000",
    ]);
    bench.arg("--clients").arg(clients.to_string()).arg("--pki").arg(text("/pki_dir"));
    let mut status = Command::new(PROGRAM);
    connect(&mut status);
    status.args(["cluster", "status", "-o", "json"]);
    status.env("HOLDFAST_CERT", text("/administrator/cert"));
    status.env("HOLDFAST_KEY", text("/administrator/key"));
    bench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut running = bench.spawn()?;
    let mut said = BufReader::new(running.stderr.take().context("no stderr")?).lines();
    while let Some(line) = said.next_line().await? {
        // The last line before the clock starts.
        if line.contains(" connections for ") {
            break;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let leader = json(&mut status).await?;
    let leader = leader.get("leader_id").and_then(Value::as_u64).context("nobody leads")?;
    let nodes = cluster.get("nodes").and_then(Value::as_array).context("no nodes")?;
    let node =
        nodes.iter().find(|node| node.get("node_id").and_then(Value::as_u64) == Some(leader));
    let pid = node.and_then(|node| node.get("pid")).and_then(Value::as_u64).context("no pid")?;
    Command::new("kill").arg("-9").arg(pid.to_string()).status().await?;
    let drain = tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
    let output = running.wait_with_output().await?;
    drain.await?;
    if !output.status.success() {
        bail!("holdfast bench gap: {}", output.status);
    }
    let measured: Value = serde_json::from_slice(&output.stdout)?;
    Ok(Duration::from_secs_f64(number(&measured, "/longest_gap_ms")? / 1e3))
}
