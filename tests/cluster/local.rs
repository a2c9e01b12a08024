//! `holdfast dev` and `holdfast demo`, run as somebody runs them who tries the product.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use holdfast::cli::local_cluster::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::harness::{LIMIT, binary};

/// How long a whole demonstration may take; each of its steps has a deadline of its own.
const STORY: Duration = Duration::from_secs(300);

fn start(args: &[&str]) -> Child {
    let mut command = Command::new(binary());
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().unwrap()
}

fn pid(number: u64) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

fn signal(child: &Child, signal: Signal) {
    kill_process(pid(child.id().unwrap().into()), signal).unwrap();
}

async fn ended(child: Child) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(STORY, child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A killed server may need a moment, and stays a zombie until whoever adopted it looks.
async fn gone(server: u64) {
    wait_for("a server is gone", LIMIT, || async {
        let stat = std::fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start().to_owned();
        if state.is_empty() || state.starts_with('Z') { Ok(()) } else { Err(state) }
    })
    .await
    .unwrap();
}

/// What `dev` wrote for programs, once it is about this process and its cluster works.
async fn description(dir: &Path, dev: &Child) -> Value {
    let id = u64::from(dev.id().unwrap());
    wait_for("dev.json is written", LIMIT, || async {
        let text = std::fs::read(dir.join("dev.json")).map_err(|error| error.to_string())?;
        let json: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        if json["pid"] == id { Ok(json) } else { Err("it is of an earlier start".to_owned()) }
    })
    .await
    .unwrap()
}

fn server_pids(description: &Value) -> Vec<u64> {
    let nodes = description["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["pid"].as_u64().unwrap()).collect()
}

/// Pastes what `dev` printed into a shell.
async fn paste(commands: &str) -> (Option<i32>, String, String) {
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", commands]).stdin(Stdio::null());
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(shell.kill_on_drop(true).spawn().unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_prints_commands_that_work_and_a_second_start_brings_the_data_back() {
    let temporary = tempfile::tempdir().unwrap();
    let (dir, name) = (temporary.path(), temporary.path().display().to_string());
    let dev = start(&["dev", "--dir", &name]);
    let first = description(dir, &dev).await;
    for identity in ["administrator", "help_desk", "auditor", "agent"] {
        for file in ["cert", "key"] {
            assert!(Path::new(first[identity][file].as_str().unwrap()).is_file(), "{identity}");
        }
    }
    for ca in ["node_ca", "agent_ca", "operator_ca"] {
        assert!(Path::new(first[ca].as_str().unwrap()).is_file(), "{ca}");
    }
    let (code, _, err) = ended(start(&["dev", "--dir", &name])).await;
    assert_eq!(code, Some(6), "a second one in the same directory: {err}");
    assert!(err.contains("is in use"), "{err}");

    // All that it printed is needed before it ends; the pipe holds it.
    let mut dev = dev;
    let commands = printed_commands(&mut dev).await;
    let (code, out, err) = paste(&commands).await;
    assert_eq!(code, Some(0), "{commands}\n{out}\n{err}");
    assert!(out.contains("471207-278498-422125-177177-561902-537405-468006-693451"), "{out}");
    assert!(out.contains("the chain holds"), "{out}");
    assert_eq!(grants(&out), 3, "{out}");

    signal(&dev, Signal::INT);
    let (code, _, err) = ended(dev).await;
    assert_eq!(code, Some(0), "{err}");
    for server in server_pids(&first) {
        gone(server).await;
    }

    let mut dev = start(&["dev", "--dir", &name]);
    let second = description(dir, &dev).await;
    assert_eq!(first["cluster_id"], second["cluster_id"]);
    let commands = printed_commands(&mut dev).await;
    let find: String = commands.lines().filter(|line| !line.contains("escrow")).fold(
        String::new(),
        |all, line| {
            if line.trim_start().starts_with("--device") { all } else { all + line + "\n" }
        },
    );
    let (code, out, err) = paste(&find).await;
    assert_eq!(code, Some(0), "{find}\n{out}\n{err}");
    assert!(out.contains("471207-278498"), "{out}");
    assert_eq!(grants(&out), 3, "a second start grants what is granted already: {out}");

    kill_process(pid(server_pids(&second)[1]), Signal::KILL).unwrap();
    let mut said = BufReader::new(dev.stderr.take().unwrap()).lines();
    let reported = async {
        while let Some(line) = said.next_line().await.unwrap() {
            if line.contains("server 2 has ended") {
                return;
            }
        }
        panic!("it ended without a word about server 2");
    };
    tokio::time::timeout(LIMIT, reported).await.unwrap();
    signal(&dev, Signal::TERM);
    assert_eq!(ended(dev).await.0, Some(0));
}

/// Records of grants in a listing of the audit trail.
fn grants(listing: &str) -> usize {
    listing.lines().filter(|line| line.split_whitespace().any(|word| word == "grant")).count()
}

/// The commands that `dev` printed.
async fn printed_commands(dev: &mut Child) -> String {
    let mut lines = BufReader::new(dev.stdout.as_mut().unwrap()).lines();
    let mut commands = String::new();
    let read = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("export ") || !commands.is_empty() {
                commands += &format!("{line}\n");
            }
            if line.contains("Ctrl-C") {
                break;
            }
        }
    };
    tokio::time::timeout(LIMIT, read).await.unwrap();
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demonstration_holds_and_leaves_nothing_running() {
    let (code, out, err) = ended(start(&["demo"])).await;
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("All 10 steps held"), "{out}");
    for server in processes(&out) {
        gone(server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_demonstration_that_does_not_hold_ends_it_with_1_and_is_named() {
    let mut demo = start(&["demo"]);
    let mut lines = BufReader::new(demo.stdout.as_mut().unwrap()).lines();
    let mut servers = Vec::new();
    while servers.len() < 3 {
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap();
        servers.extend(processes(&line.expect("it names its servers")));
    }
    for server in &servers[1..] {
        kill_process(pid(*server), Signal::KILL).unwrap();
    }
    drop(lines);
    let (code, out, err) = ended(demo).await;
    assert_eq!(code, Some(1), "{out}\n{err}");
    assert!(err.contains("step ") && err.contains("does not hold"), "{err}");
    assert!(!out.contains("steps held"), "{out}");
    gone(servers[0]).await;
}

/// The process ids in `server 1: process 4711, ...`.
fn processes(text: &str) -> Vec<u64> {
    let after = text.split("process ").skip(1);
    after.filter_map(|rest| rest.split(',').next()?.parse().ok()).collect()
}
