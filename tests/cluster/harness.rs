//! A cluster for one test, and the people who use it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use holdfast::cli::local_cluster::{LocalCluster, LocalOptions, http_get, wait_for};
use holdfast::cli::pki::IssuedPaths;
use holdfast::client::{Client, ClientOptions, DisclosureRequest, NewEscrow};
use holdfast::crypto::system_rng;
use holdfast::domain::{
    DeviceId, KeyVersion, OperatorName, ProtectorId, ProtectorKind, Reason, RecoveryKey, Role,
    Text, User, VolumeId, VolumeKind,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use uuid::Uuid;

use crate::disk::Mount;

/// How long a condition may take to come true; far more than it takes on a quiet machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A running cluster with an identity of every kind.
pub(crate) struct Harness {
    pub(crate) cluster: LocalCluster,
    pub(crate) device: DeviceId,
    pub(crate) administrator: IssuedPaths,
    pub(crate) help_desk: IssuedPaths,
    pub(crate) auditor: IssuedPaths,
    pub(crate) reader: IssuedPaths,
    pub(crate) agent: IssuedPaths,
    /// One for each node that has one; goes after the servers, and before the directory that it lies in.
    pub(crate) mounts: Vec<Mount>,
    _dir: TempDir,
}

/// Raft times that hold while a debug build shares two processors with other tests, and small files. On a machine that is
/// busy with more than that, `HOLDFAST_TEST_SLOW=5` makes the times five times as long.
fn settings() -> toml::Table {
    let slow = std::env::var("HOLDFAST_TEST_SLOW").map_or(1, |times| times.parse().unwrap());
    let mut settings = toml::toml! {
        [log]
        level = "info"
        [raft]
        heartbeat_ms = 60
        election_min_ms = 400
        election_max_ms = 800
        [storage]
        wal_segment_bytes = 4194304
        view_cache_bytes = 16777216
    };
    for (_, time) in settings["raft"].as_table_mut().unwrap() {
        *time = toml::Value::Integer(time.as_integer().unwrap() * slow);
    }
    settings
}

pub(crate) fn temporary_dir() -> TempDir {
    tempfile::Builder::new().prefix("holdfast-test-").tempdir().unwrap()
}

/// The plain configuration of a local cluster in a directory of its own, for tests that start its servers one by one.
pub(crate) fn prepared(dir: &TempDir) -> LocalCluster {
    let options = LocalOptions { binary: binary(), dir: dir.path().to_owned(), extra: settings() };
    LocalCluster::prepare(options).unwrap()
}

pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_holdfast"))
}

pub(crate) fn operator(name: &str) -> OperatorName {
    name.parse().unwrap()
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::start_with(toml::Table::new()).await
    }

    /// With tables of settings laid over the usual ones.
    pub(crate) async fn start_with(more: toml::Table) -> Self {
        Self::start_mounted(more, |_| Vec::new()).await
    }

    /// The same, with whatever is mounted for the nodes.
    pub(crate) async fn start_mounted(
        more: toml::Table,
        mount: impl FnOnce(&LocalCluster) -> Vec<Mount>,
    ) -> Self {
        let mut harness = Self::prepare(more, mount);
        let cluster = &mut harness.cluster;
        cluster.start().await.unwrap();
        cluster.grant(&operator("helen"), &[Role::HelpDesk]).await.unwrap();
        cluster.grant(&operator("arthur"), &[Role::Auditor]).await.unwrap();
        cluster.grant(&operator("rita"), &[Role::ReportReader]).await.unwrap();
        harness
    }

    /// The files of three servers, for a test that changes them before it starts anything.
    pub(crate) fn not_started() -> Self {
        Self::prepare(toml::Table::new(), |_| Vec::new())
    }

    /// Three servers that run and are in no cluster.
    pub(crate) async fn not_initialised() -> Self {
        let mut harness = Self::prepare(toml::Table::new(), |_| Vec::new());
        harness.cluster.start_nodes().await.unwrap();
        harness
    }

    fn prepare(more: toml::Table, mount: impl FnOnce(&LocalCluster) -> Vec<Mount>) -> Self {
        let dir = temporary_dir();
        let mut extra = settings();
        for (name, table) in more {
            let usual = extra.entry(name).or_insert_with(|| toml::Table::new().into());
            usual.as_table_mut().unwrap().extend(table.as_table().unwrap().clone());
        }
        let options = LocalOptions { binary: binary(), dir: dir.path().to_owned(), extra };
        let cluster = LocalCluster::prepare(options).unwrap();
        let mounts = mount(&cluster);
        let device = cluster.device();
        Self {
            administrator: cluster.operator(&operator("admin")).unwrap(),
            help_desk: cluster.operator(&operator("helen")).unwrap(),
            auditor: cluster.operator(&operator("arthur")).unwrap(),
            reader: cluster.operator(&operator("rita")).unwrap(),
            agent: cluster.agent(device).unwrap(),
            cluster,
            mounts,
            device,
            _dir: dir,
        }
    }

    pub(crate) fn client(&self, who: &IssuedPaths) -> Client {
        self.cluster.client(who).unwrap()
    }

    pub(crate) fn client_of_node(&self, node: u64, who: &IssuedPaths) -> Client {
        self.cluster.client_of_node(node, who).unwrap()
    }

    /// A client that gives up after a few seconds.
    pub(crate) fn hasty(&self, addresses: &str, ca: &Path, who: &IssuedPaths) -> Client {
        let options = ClientOptions::new(addresses, ca).unwrap();
        let options = options.with_identity(&who.certificate, &who.private_key);
        Client::open(options.with_deadline(Duration::from_secs(5))).unwrap()
    }

    /// Sends a signal to a server: `STOP` holds it in the middle of whatever it does, `CONT` lets it go on.
    pub(crate) fn signal(&self, node: u64, signal: Signal) {
        let pid = i32::try_from(self.cluster.node(node).unwrap().pid().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// A page of a server's monitoring port: status and body.
    pub(crate) async fn page(&self, node: u64, path: &str) -> (u16, String) {
        let address = self.cluster.node(node).unwrap().ports().http_address();
        http_get(&address, path).await.unwrap()
    }

    /// Waits until a server that can't go on or start has ended; its exit code, and its last line.
    pub(crate) async fn last_word(&mut self, node: u64) -> (Option<i32>, String) {
        last_word(&mut self.cluster, node).await
    }

    /// What a node wrote to its log, in all its lives.
    pub(crate) fn log(&self, node: u64) -> String {
        std::fs::read_to_string(self.cluster.node(node).unwrap().log_path()).unwrap()
    }

    /// Waits until a node says this in its log.
    pub(crate) async fn says(&self, node: u64, words: &str) {
        wait_for(&format!("node {node} says {words:?}"), LIMIT, || async {
            if self.log(node).contains(words) { Ok(()) } else { Err(String::new()) }
        })
        .await
        .unwrap();
    }

    /// The value of a metric of a node.
    pub(crate) async fn metric(&self, node: u64, name: &str) -> f64 {
        let address = self.cluster.node(node).unwrap().ports().http_address();
        let (_, page) = http_get(&address, "/metrics").await.unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}\n{page}")).parse().unwrap()
    }

    /// Waits until a metric of a node has a value.
    pub(crate) async fn metric_is(&self, node: u64, name: &str, value: f64) {
        wait_for(&format!("{name} of node {node} is {value}"), LIMIT, || async {
            let now = self.metric(node, name).await;
            if now == value { Ok(()) } else { Err(now.to_string()) }
        })
        .await
        .unwrap();
    }

    /// A node's certificate, as its server has it.
    pub(crate) fn node_identity(&self, id: u64) -> IssuedPaths {
        let dir = self.cluster.dir().join("nodes").join(id.to_string());
        IssuedPaths {
            certificate: dir.join(format!("node-{id}.pem")),
            private_key: dir.join(format!("node-{id}.key")),
        }
    }

    /// Runs the command line as somebody.
    pub(crate) async fn run(&self, who: &IssuedPaths, args: &[&str]) -> Ran {
        self.run_with_input(who, args, "").await
    }

    pub(crate) async fn run_with_input(
        &self,
        who: &IssuedPaths,
        args: &[&str],
        input: &str,
    ) -> Ran {
        self.run_as(Command::new(binary()), who, args, input).await
    }

    /// Runs it where no file can grow, as on a full disk.
    pub(crate) async fn run_on_full_disk(&self, who: &IssuedPaths, args: &[&str]) -> Ran {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]).arg(binary());
        self.run_as(command, who, args, "").await
    }

    async fn run_as(
        &self,
        mut command: Command,
        who: &IssuedPaths,
        args: &[&str],
        input: &str,
    ) -> Ran {
        command
            .args(args)
            .env("HOLDFAST_ADDR", self.cluster.endpoints())
            .env("HOLDFAST_CACERT", self.cluster.client_ca())
            .env("HOLDFAST_CERT", &who.certificate)
            .env("HOLDFAST_KEY", &who.private_key)
            .env("HOLDFAST_TIMEOUT", "10")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
        Ran { args: args.join(" "), output }
    }
}

impl Drop for Harness {
    /// What the servers said last explains a failure better than the test can.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in self.cluster.nodes() {
            let log = std::fs::read_to_string(node.log_path()).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            println!("--- node {}:\n{}", node.id(), last.join("\n"));
        }
        if let Some(kept) = std::env::var_os("HOLDFAST_TEST_KEEP") {
            let copied = std::process::Command::new("cp")
                .arg("-a")
                .arg(self.cluster.dir())
                .arg(kept)
                .status();
            println!("copied: {copied:?}");
        }
    }
}

/// Waits until a server has ended by itself; its exit code, and its last line.
pub(crate) async fn last_word(cluster: &mut LocalCluster, node: u64) -> (Option<i32>, String) {
    let node = cluster.node_mut(node).unwrap();
    let status = node.wait_ended(LIMIT).await.unwrap();
    let log = std::fs::read_to_string(node.log_path()).unwrap();
    let last = log.lines().last().unwrap_or_default().to_owned();
    assert!(!log.contains("panic"), "{log}");
    (status.code(), last)
}

/// A finished command.
pub(crate) struct Ran {
    args: String,
    output: Output,
}

impl Ran {
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    /// Its exit code.
    pub(crate) fn code(&self) -> i32 {
        self.output.status.code().unwrap()
    }

    /// Asserts how it ended.
    #[track_caller]
    pub(crate) fn ends_with(self, code: i32) -> Self {
        let (args, out, err) = (&self.args, self.stdout(), self.stderr());
        assert_eq!(self.output.status.code(), Some(code), "{args}\n{out}\n{err}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout()).unwrap_or_else(|error| {
            panic!("{}: {error}\n{}\n{}", self.args, self.stdout(), self.stderr())
        })
    }
}

/// A new volume's first key.
pub(crate) fn new_escrow(device: DeviceId) -> NewEscrow {
    NewEscrow {
        device,
        volume: VolumeId::new(Uuid::new_v4()),
        volume_kind: VolumeKind::OperatingSystem,
        protector: ProtectorId::new(Uuid::new_v4()),
        expected_version: KeyVersion::NONE,
        host_name: Text::name("host_name", "laptop-0042").unwrap(),
        users: vec![User::new("CORP", "alice").unwrap()],
    }
}

pub(crate) fn new_key() -> RecoveryKey {
    RecoveryKey::generate(ProtectorKind::BitLockerRecoveryPassword, &mut system_rng())
}

pub(crate) fn disclosure(protector: ProtectorId) -> DisclosureRequest {
    DisclosureRequest {
        protector,
        version: KeyVersion::NONE,
        reason: Reason::new("LOST_PIN", "").unwrap(),
        user: Some(User::new("CORP", "alice").unwrap()),
        ticket: Text::name("ticket", "INC-4711").unwrap(),
        with_package: false,
        approval: None,
    }
}

pub(crate) fn write_file(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
}
