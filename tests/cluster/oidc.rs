//! People by access token: a real provider on loopback, three servers of which one is killed, and the command line.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use holdfast::cli::local_cluster::wait_for;
use holdfast::domain::ProtectorId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::harness::{Harness, LIMIT, binary, new_escrow, new_key, write_file};
use crate::require;

const AUDIENCE: &str = "https://holdfast.example";
/// How long the servers go on with keys that they can't read again, in seconds.
const KEYS_MAX_AGE_S: u64 = 15;

/// oidc-provider-mock with TLS.
struct Provider {
    issuer: String,
    ca_file: PathBuf,
    python: PathBuf,
    process: Child,
    dir: tempfile::TempDir,
}

/// A Python that has oidc-provider-mock: that of `.ci/run`, or the one that HOLDFAST_OIDC_PYTHON names.
fn oidc_provider() -> Option<PathBuf> {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/oidc/bin/python3");
    let python = std::env::var_os("HOLDFAST_OIDC_PYTHON").map_or_else(own, PathBuf::from);
    let found =
        std::process::Command::new(&python).args(["-c", "import oidc_provider_mock"]).output();
    if found.is_ok_and(|found| found.status.success()) {
        return Some(python);
    }
    require::lacks(&format!(
        "it needs oidc-provider-mock: python3 -m venv target/tools/oidc && target/tools/oidc/bin/pip install -r .ci/python-packages ({} has none)",
        python.display()
    ));
    None
}

/// A CA and a certificate of localhost, as others than Holdfast make them.
fn certificates(dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Another name than that of the certificate, or programs take that for one that signed itself.
    params.distinguished_name.push(DnType::CommonName, "CA of the provider");
    let ca_key = key();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let leaf_key = key();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let paths = ["provider-ca.pem", "provider.pem", "provider.key"].map(|name| dir.join(name));
    let [ca_file, certificate, private] = paths;
    write_file(&ca_file, ca.pem().as_bytes());
    write_file(&certificate, leaf.pem().as_bytes());
    write_file(&private, leaf_key.serialize_pem().as_bytes());
    (ca_file, certificate, private)
}

impl Provider {
    async fn start(python: PathBuf, people: &[&str]) -> Self {
        let dir = crate::harness::temporary_dir();
        let (ca_file, certificate, key) = certificates(dir.path());
        let script = script("oidc_provider.py");
        let mut command = Command::new(&python);
        command.arg(script).args([&certificate, &key]).arg(AUDIENCE).args(people);
        let mut process = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        Self { issuer: format!("https://localhost:{port}"), ca_file, python, process, dir }
    }

    /// What the servers are told of it.
    fn settings(&self) -> toml::Table {
        let text = format!(
            r#"
            [oidc]
            issuer = "{}"
            audience = "{AUDIENCE}"
            ca_file = {:?}
            algorithms = ["RS256"]
            keys_refresh_s = 1
            keys_max_age_s = {KEYS_MAX_AGE_S}
            [oidc.roles]
            desk = ["help-desk"]
            audit = ["auditor"]
            admins = ["administrator"]
            "#,
            self.issuer, self.ca_file
        );
        text.parse().unwrap()
    }

    /// Where somebody's token is kept.
    fn token_file(&self, subject: &str) -> PathBuf {
        self.dir.path().join(format!("of-{subject}")).join("access-token")
    }

    fn token(&self, subject: &str) -> String {
        std::fs::read_to_string(self.token_file(subject)).unwrap()
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster").join(name)
}

/// A finished command.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap()
    }

    /// The servers' reason for a refusal.
    #[track_caller]
    fn refusal(&self) -> (Option<i32>, String) {
        let line = self.err.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{}", self.err));
        (self.code, error["error"]["reason"].as_str().unwrap().to_owned())
    }
}

/// The command line of somebody without a certificate.
fn holdfast(harness: &Harness, provider: &Provider, subject: &str, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["-o", "json"])
        .args(args)
        .env("HOLDFAST_ADDR", harness.cluster.endpoints())
        .env("HOLDFAST_CACERT", harness.cluster.client_ca())
        .env("HOLDFAST_TIMEOUT", "20")
        .env("HOLDFAST_ACCESS_TOKEN_FILE", provider.token_file(subject))
        .env("HOLDFAST_LOGIN_ISSUER", &provider.issuer)
        .env("HOLDFAST_LOGIN_CLIENT_ID", "holdfast-cli")
        .env("HOLDFAST_LOGIN_CA", &provider.ca_file)
        .env_remove("HOLDFAST_CERT")
        .env_remove("HOLDFAST_KEY")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(harness: &Harness, provider: &Provider, subject: &str, args: &[&str]) -> Ran {
    let running = holdfast(harness, provider, subject, args).output();
    let output = tokio::time::timeout(LIMIT, running).await.unwrap().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Logs in as a person does: opens the URL that is printed.
async fn log_in(harness: &Harness, provider: &Provider, subject: &str) -> Ran {
    let mut child = holdfast(harness, provider, subject, &["login"]).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut err = String::new();
    let url = loop {
        let line = tokio::time::timeout(LIMIT, said.next_line()).await.unwrap().unwrap();
        let line = line.unwrap_or_else(|| panic!("no URL: {err}"));
        err += &format!("{line}\n");
        if line.starts_with("https://") {
            break line;
        }
    };
    let mut browser = Command::new(&provider.python);
    browser.arg(script("oidc_browser.py")).arg(&provider.ca_file).args([&url, subject]);
    let browsed = tokio::time::timeout(LIMIT, browser.output()).await.unwrap().unwrap();
    let shown = String::from_utf8(browsed.stdout).unwrap();
    let trouble = String::from_utf8(browsed.stderr).unwrap();
    assert!(shown.contains("http://127.0.0.1:"), "{shown}\n{trouble}");
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    while let Some(line) = said.next_line().await.unwrap() {
        err += &format!("{line}\n");
    }
    Ran { code: output.status.code(), out: String::from_utf8(output.stdout).unwrap(), err }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_and_works_without_a_certificate_also_when_a_server_dies() {
    let Some(python) = oidc_provider() else { return };
    let people = ["alice=desk,others", "bob=others", "ada=audit", "root=admins"];
    let mut provider = Provider::start(python, &people).await;
    let mut harness = Harness::start_with(provider.settings()).await;
    let (escrow, key) = (new_escrow(harness.device), new_key());
    harness.client(&harness.agent).escrow(&escrow, &key, None).await.unwrap();

    // Nobody without a certificate and a token; then alice.
    let nobody = run(&harness, &provider, "alice", &["key", "reasons"]).await;
    assert_eq!(nobody.code, Some(2), "{}", nobody.err);
    let login = log_in(&harness, &provider, "alice").await;
    assert_eq!(login.json()["subject"], "alice");
    let token = provider.token("alice");
    let mode = std::fs::metadata(provider.token_file("alice")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!login.out.contains(&token) && !login.err.contains(&token));

    // She finds and discloses, and goes on when the leader is killed.
    disclose(&harness, &provider, escrow.protector, key.expose_secret()).await;
    let leader = harness.cluster.leader().await.unwrap();
    harness.cluster.kill_node(leader).await.unwrap();
    disclose(&harness, &provider, escrow.protector, key.expose_secret()).await;

    // The record of it names her and the provider.
    let alice = format!("oidc/{}#alice", provider.issuer);
    log_in(&harness, &provider, "ada").await.json();
    let audit = ["audit", "list", "--action", "disclose"];
    let list = run(&harness, &provider, "ada", &audit).await;
    assert!(list.out.contains(&alice), "{}\n{}", list.out, list.err);

    // Each does what the groups give, and no more.
    let audit = run(&harness, &provider, "alice", &audit).await.refusal();
    assert_eq!(audit, (Some(5), "ROLE_MISSING".to_owned()));
    log_in(&harness, &provider, "bob").await.json();
    let bob = run(&harness, &provider, "bob", &["key", "reasons"]).await.refusal();
    assert_eq!(bob, (Some(5), "OIDC_NO_ROLE".to_owned()));

    // An administrator by token shuts alice out.
    log_in(&harness, &provider, "root").await.json();
    let deny = ["cert", "deny", &alice, "--reason", "left"];
    let denied = run(&harness, &provider, "root", &deny).await;
    assert_eq!(denied.code, Some(0), "{}", denied.err);
    wait_for("alice is denied", LIMIT, || async {
        let refusal = run(&harness, &provider, "alice", &["key", "reasons"]).await;
        if refusal.code == Some(5) { Ok(()) } else { Err(refusal.err) }
    })
    .await
    .unwrap();

    the_provider_is_gone(&harness, &mut provider).await;
    logged_out(&harness, &provider).await;
    // Nothing of a token is in any log.
    for node in [1, 2, 3] {
        let log = harness.log(node);
        for subject in ["alice", "ada", "bob", "root"] {
            let signature = std::fs::read_to_string(provider.token_file(subject)).ok();
            let signature = signature.and_then(|token| Some(token.rsplit_once('.')?.1.to_owned()));
            assert!(signature.is_none_or(|part| !log.contains(&part)), "{subject}: node {node}");
        }
        assert!(!log.contains(token.rsplit_once('.').unwrap().1));
    }
}

/// Finds a key by its id and has it opened, by alice's token.
async fn disclose(harness: &Harness, provider: &Provider, id: ProtectorId, key: &str) {
    let id = id.to_string();
    let found = run(harness, provider, "alice", &["key", "find", &id]).await;
    assert!(found.json().to_string().contains(&id), "{}", found.out);
    let args = ["key", "disclose", &id, "--reason", "LOST_PIN", "--user", "CORP\\alice"];
    let opened = run(harness, provider, "alice", &args).await;
    assert!(opened.json().to_string().contains(key), "{}", opened.err);
}

/// Keys that are known go on for a while, certificates for ever.
async fn the_provider_is_gone(harness: &Harness, provider: &mut Provider) {
    let status = ["cluster", "status"];
    provider.process.kill().await.unwrap();
    let still = run(harness, provider, "root", &["grant", "list"]).await;
    assert_eq!(still.code, Some(0), "{}", still.err);
    let login = run(harness, provider, "root", &["login"]).await;
    assert_eq!(login.code, Some(3), "{}", login.err);
    wait_for("the keys are too old", LIMIT, || async {
        let refused = run(harness, provider, "root", &["--timeout", "3", "grant", "list"]).await;
        let wanted = refused.err.contains("the provider's keys could not be read");
        if wanted { Ok(()) } else { Err(refused.err) }
    })
    .await
    .unwrap();
    // One server is down, so that the answer is in parts; but there is one.
    let by_certificate = harness.run(&harness.administrator, &status).await;
    assert!([0, 7].contains(&by_certificate.code()), "{}", by_certificate.stderr());
    harness.run(&harness.auditor, &["audit", "head"]).await.ends_with(0);
}

async fn logged_out(harness: &Harness, provider: &Provider) {
    for removed in [true, false] {
        let out = run(harness, provider, "root", &["logout"]).await.json();
        assert_eq!(out["removed"], removed);
        assert!(!provider.token_file("root").exists());
    }
}
