//! One host: its server process, its network, its disk.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use holdfast::cli::local_cluster::{http_get, wait_keeping_stdin};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::disk::Disk;
use super::files;
use super::line::Line;
use super::network::Network;
use crate::controls::PLANT;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Where a host's server is reached.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// By agents and operators.
    pub client: String,
    /// By the other servers.
    pub peer: String,
    /// By monitoring.
    pub http: String,
    /// Where it listens for agents and operators: behind the proxy, if there is one.
    pub client_listen: String,
    /// Where it listens for the other servers.
    pub peer_listen: String,
}

/// A host with a server.
#[derive(Debug)]
pub struct Server {
    /// The host's number. It stays, also when a server with another id takes its place.
    pub host: u64,
    /// Where its server is reached.
    pub addresses: Addresses,
    /// Its network, if it has one of its own.
    pub network: Option<Network>,
    /// Its disk, if it has one of its own.
    pub disk: Option<Disk>,
    pub(super) dir: PathBuf,
    pub(super) program: PathBuf,
    /// Files that a process writes its own id to, to be in a control group.
    pub(super) groups: Vec<PathBuf>,
    pub(super) id: AtomicU64,
    pub(super) pid: Arc<AtomicU32>,
    process: Mutex<Option<Child>>,
    /// Whether it may end without being asked to: a fault is at work on it.
    at_risk: AtomicBool,
    /// File with the offset of the clock that its next processes see.
    clock: std::sync::Mutex<Option<PathBuf>>,
}

impl Server {
    pub(super) fn new(host: u64, addresses: Addresses, dir: PathBuf, program: PathBuf) -> Self {
        Self {
            host,
            addresses,
            network: None,
            disk: None,
            dir,
            program,
            groups: Vec::new(),
            id: AtomicU64::new(host),
            pid: Arc::default(),
            process: Mutex::new(None),
            at_risk: AtomicBool::new(false),
            clock: std::sync::Mutex::new(None),
        }
    }

    /// Its server's id.
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::SeqCst)
    }

    /// Its process, if it has one.
    pub fn pid(&self) -> Option<u32> {
        Some(self.pid.load(Ordering::SeqCst)).filter(|pid| *pid != 0)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("disk").join("data")
    }

    /// What its processes wrote to stderr, in all their lives.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log.txt")
    }

    /// Its log as it is now.
    pub fn log(&self) -> String {
        std::fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Length of its log: what comes after it is new.
    pub fn log_length(&self) -> u64 {
        std::fs::metadata(self.log_path()).map_or(0, |meta| meta.len())
    }

    /// What it wrote to its log since then.
    pub fn log_since(&self, length: u64) -> String {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(self.log_path()).and_then(|mut file| {
            file.seek(SeekFrom::Start(length))?;
            file.read_to_end(&mut bytes)
        });
        // There is no log before the first start.
        read.map(|_| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The same, line by line.
    pub fn lines_since(&self, length: u64) -> Vec<Line> {
        self.log_since(length).lines().filter_map(Line::parse).collect()
    }

    pub(super) fn config_path(&self) -> PathBuf {
        self.dir.join(format!("node-{}.toml", self.id()))
    }

    /// Whether it may end by itself.
    pub fn set_at_risk(&self, at_risk: bool) {
        self.at_risk.store(at_risk, Ordering::SeqCst);
    }

    /// Whether it may end by itself.
    pub fn at_risk(&self) -> bool {
        self.at_risk.load(Ordering::SeqCst)
    }

    /// The clock that its next processes see: a file for libfaketime, or the machine's.
    pub fn set_clock(&self, file: Option<PathBuf>) {
        *self.clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = file;
    }

    /// A program's arguments that run it in this host's control groups and network.
    fn inside(&self) -> Vec<String> {
        let mut words = Vec::new();
        if !self.groups.is_empty() {
            // Before anything is allocated: memory is charged to the group in which it is first touched.
            let enter =
                "while [ \"$1\" != -- ]; do echo $$ > \"$1\"; shift; done; shift; exec \"$@\"";
            words.extend(["sh", "-c", enter, "sh"].map(str::to_owned));
            words.extend(self.groups.iter().map(|file| file.display().to_string()));
            words.push("--".to_owned());
        }
        words.extend(self.network.iter().flat_map(Network::enter));
        words
    }

    /// Starts its server and waits for nothing. It ends with this process, however this one ends.
    ///
    /// # Errors
    /// If it runs already, or can't be started.
    pub async fn spawn(&self) -> anyhow::Result<u32> {
        let mut process = self.process.lock().await;
        if let Some(child) = process.as_mut()
            && child.try_wait().context("a server's state")?.is_none()
        {
            bail!("the server of host {} runs already", self.host);
        }
        let path = self.log_path();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| path.display().to_string())?;
        let mut words = self.inside();
        words.push(self.program.display().to_string());
        words.extend(["server", "--exit-with-stdin", "--config"].map(str::to_owned));
        words.push(self.config_path().display().to_string());
        let (program, arguments) = words.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(arguments);
        // The configuration is the file's alone. A planted bug is none (`controls`).
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOLDFAST_") && name != PLANT {
                command.env_remove(name);
            }
        }
        // Without root the proxy has to look whose a connection is, and strace has to attach.
        command.env(holdfast::hardening::ALLOW_TRACING, "1");
        let clock = self.clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(file) = clock {
            command.env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1");
            command.env("FAKETIME_TIMESTAMP_FILE", file);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        // A group of its own: Ctrl-C in a terminal is for the harness, which then stops the servers in order.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("running {program}"))?;
        let pid = child.id().context("the server ended at once")?;
        self.pid.store(pid, Ordering::SeqCst);
        *process = Some(child);
        Ok(pid)
    }

    /// Its control group of a kind.
    pub fn group(&self, kind: &str) -> Option<PathBuf> {
        let root = Path::new("/sys/fs/cgroup").join(kind);
        let found = self.groups.iter().find(|file| file.starts_with(&root))?;
        found.parent().map(Path::to_owned)
    }

    /// Sends a signal to its process; whether there was one.
    pub fn signal(&self, signal: Signal) -> bool {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Waits until its process has ended, and says how. Ended long ago counts.
    ///
    /// # Errors
    /// If it goes on beyond the limit; it is left alone then.
    pub async fn wait_ended(&self, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let mut process = self.process.lock().await;
        let Some(child) = process.as_mut() else { return Ok(None) };
        match tokio::time::timeout(limit, wait_keeping_stdin(child)).await {
            Ok(ended) => {
                let ended = ended.context("waiting for a server")?;
                self.pid.store(0, Ordering::SeqCst);
                *process = None;
                Ok(Some(ended))
            }
            Err(_) => bail!("the server of host {} goes on after {limit:?}", self.host),
        }
    }

    /// Whether its process has ended by itself, and how.
    ///
    /// # Errors
    /// If that can't be found out.
    pub async fn ended(&self) -> anyhow::Result<Option<ExitStatus>> {
        let Ok(mut process) = self.process.try_lock() else { return Ok(None) };
        let Some(child) = process.as_mut() else { return Ok(None) };
        let ended = child.try_wait().context("a server's state")?;
        if ended.is_some() {
            self.pid.store(0, Ordering::SeqCst);
            *process = None;
        }
        Ok(ended)
    }

    /// Kills it at once, and waits until it is gone.
    ///
    /// # Errors
    /// If it does not go: its disk hangs.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL);
        self.wait_ended(Duration::from_secs(30)).await.map(drop)
    }

    /// Asks it to stop, and waits until it has, with code 0.
    ///
    /// # Errors
    /// If it does not end in time, or with another code.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM);
        match self.wait_ended(Duration::from_secs(30)).await? {
            Some(status) if !status.success() => {
                bail!("node {} was asked to stop, and ended with {status}", self.id())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Starts its server unless it runs, and waits until it listens.
    ///
    /// # Errors
    /// If it ends by itself, or does not listen in time.
    pub async fn start(&self, limit: Duration) -> anyhow::Result<()> {
        if self.pid().is_none() || self.ended().await?.is_some() {
            self.spawn().await?;
        }
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended().await? {
                bail!("node {} did not start ({status}): {}", self.id(), self.last_line());
            }
            if http_get(&self.addresses.http, "/livez").await.is_ok_and(|(code, _)| code == 200) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("node {} does not listen after {limit:?}", self.id());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The last line of its log, for a person.
    pub fn last_line(&self) -> String {
        let log = self.log();
        let last = log.lines().last().unwrap_or_default();
        Line::parse(last).map_or_else(|| last.to_owned(), |line| line.to_string())
    }

    /// Memory (RSS) in bytes, and open descriptors, of its process.
    pub fn usage(&self) -> Option<(u64, u64)> {
        let pid = self.pid()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.trim().split(' ').next()?.parse().ok()?;
        let descriptors = files::entries(Path::new(&format!("/proc/{pid}/fd"))).len();
        Some((kibibytes * 1024, u64::try_from(descriptors).ok()?))
    }
}
