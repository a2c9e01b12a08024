//! A cluster for one test, and the people who use it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use holdfast::cli::local_cluster::{LocalCluster, LocalOptions};
use holdfast::cli::pki::IssuedPaths;
use holdfast::client::{Client, ClientOptions, DisclosureRequest, NewEscrow};
use holdfast::crypto::system_rng;
use holdfast::domain::{
    DeviceId, KeyVersion, OperatorName, ProtectorId, ProtectorKind, Reason, RecoveryKey, Role,
    Text, User, VolumeId, VolumeKind,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use uuid::Uuid;

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
    _dir: TempDir,
}

/// Raft times that hold while a debug build shares two processors with other tests, and small files.
fn settings() -> toml::Table {
    toml::toml! {
        [log]
        level = "info,openraft=warn"
        [raft]
        heartbeat_ms = 60
        election_min_ms = 400
        election_max_ms = 800
        [storage]
        wal_segment_bytes = 4194304
        view_cache_bytes = 16777216
    }
}

pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_holdfast"))
}

pub(crate) fn operator(name: &str) -> OperatorName {
    name.parse().unwrap()
}

impl Harness {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("holdfast-test-").tempdir().unwrap();
        let options =
            LocalOptions { binary: binary(), dir: dir.path().to_owned(), extra: settings() };
        let mut cluster = LocalCluster::prepare(options).unwrap();
        cluster.start().await.unwrap();
        let device = cluster.device();
        cluster.grant(&operator("helen"), &[Role::HelpDesk]).await.unwrap();
        cluster.grant(&operator("arthur"), &[Role::Auditor]).await.unwrap();
        cluster.grant(&operator("rita"), &[Role::ReportReader]).await.unwrap();
        Self {
            administrator: cluster.operator(&operator("admin")).unwrap(),
            help_desk: cluster.operator(&operator("helen")).unwrap(),
            auditor: cluster.operator(&operator("arthur")).unwrap(),
            reader: cluster.operator(&operator("rita")).unwrap(),
            agent: cluster.agent(device).unwrap(),
            cluster,
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
        let mut command = Command::new(binary());
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

/// A node's certificate, as its server has it.
pub(crate) fn node_identity(harness: &Harness, id: u64) -> IssuedPaths {
    let dir = harness.cluster.dir().join("nodes").join(id.to_string());
    IssuedPaths {
        certificate: dir.join(format!("node-{id}.pem")),
        private_key: dir.join(format!("node-{id}.key")),
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
    }
}

pub(crate) fn write_file(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
}
