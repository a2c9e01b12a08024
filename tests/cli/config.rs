//! `holdfast config` and the server's configuration: what wins, and what is refused.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::{ends_with, holdfast_with};

const CLUSTER: &str = "07070707-0707-0707-0707-070707070707";

/// The files that a host has in /etc/holdfast, and a data directory.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        let (pki, out) = (host.path("pki"), host.path("out"));
        ends_with(&["pki", "init", "--dir", &pki, "--cluster", CLUSTER], 0);
        let issue = ["pki", "issue", "--dir", &pki, "--out", &out, "node", "--id", "1"];
        ends_with(&[&issue[..], &["--host", "localhost"]].concat(), 0);
        for name in ["node-ca.pem", "agent-ca.pem", "operator-ca.pem"] {
            std::fs::copy(format!("{pki}/{name}"), host.path(name)).unwrap();
        }
        std::fs::copy(format!("{out}/node-1.pem"), host.path("node.pem")).unwrap();
        std::fs::copy(format!("{out}/node-1.key"), host.path("node.key")).unwrap();
        ends_with(&["pki", "root-key", "--out", &host.path("root.key")], 0);
        std::fs::create_dir(host.path("data")).unwrap();
        host
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Writes the first example of deploy/, with this host's paths, and more lines.
    fn config(&self, more: &str) -> String {
        self.example(1, more)
    }

    /// Makes this the host of another node.
    fn becomes(&self, number: u64) {
        let (pki, out, id) = (self.path("pki"), self.path("out"), number.to_string());
        let issue = ["pki", "issue", "--dir", &pki, "--out", &out, "node", "--id", &id];
        ends_with(&[&issue[..], &["--host", "localhost"]].concat(), 0);
        for ending in ["pem", "key"] {
            let name = format!("{out}/node-{number}.{ending}");
            std::fs::copy(name, self.path(&format!("node.{ending}"))).unwrap();
        }
    }

    fn example(&self, number: u64, more: &str) -> String {
        let example = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("deploy/examples/node{number}.toml"));
        let text = std::fs::read_to_string(example).unwrap();
        let text = text
            .replace("/etc/holdfast", &self.0.path().display().to_string())
            .replace("/var/lib/holdfast/data", &self.path("data"))
            .replace("00000000-0000-0000-0000-000000000000", CLUSTER);
        let path = self.path("server.toml");
        write(&path, &format!("{text}\n{more}"));
        path
    }
}

fn write(path: &str, text: &str) {
    use std::io::Write as _;
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn shown(config: &str, flags: &[&str], variables: &[(&str, &str)]) -> Value {
    let args = [&["config", "show", "--config", config, "-o", "json"], flags].concat();
    let output = holdfast_with(&args, variables);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_example_of_deploy_is_valid() {
    let host = Host::new();
    for number in 1..=3 {
        if number > 1 {
            host.becomes(number);
        }
        let config = host.example(number, "");
        let (out, _) = ends_with(&["config", "check", "--config", &config], 0);
        assert!(out.contains(&format!("node {number} is valid")), "{out}");
        let show = shown(&config, &[], &[]);
        assert_eq!(show["node_id"], number);
        assert_eq!(show["client_address"], format!("keys{number}.example.org:7401"));
    }
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let host = Host::new();
    let config = host.config("[raft]\nheartbeat_ms = 60\n[limits]\nmax_requests = 10\n");
    let variables = [
        ("HOLDFAST_RAFT_HEARTBEAT_MS", "70"),
        ("HOLDFAST_LOG_FORMAT", "text"),
        ("HOLDFAST_CLIENT_ADDRESS", "variable.example:1"),
    ];
    let flags = ["--raft-heartbeat-ms", "80", "--client-address", "flag.example:2"];
    let file = shown(&config, &[], &[]);
    assert_eq!(
        (&file["raft"]["heartbeat_ms"], &file["log"]["format"]),
        (&60.into(), &"json".into())
    );
    let variable = shown(&config, &[], &variables);
    assert_eq!(variable["raft"]["heartbeat_ms"], 70);
    assert_eq!(variable["log"]["format"], "text");
    assert_eq!(variable["client_address"], "variable.example:1");
    assert_eq!(variable["limits"]["max_requests"], 10, "nothing else says otherwise");
    let flag = shown(&config, &flags, &variables);
    assert_eq!(flag["raft"]["heartbeat_ms"], 80);
    assert_eq!(flag["log"]["format"], "text");
    assert_eq!(flag["client_address"], "flag.example:2");
    // The file itself can come from a variable.
    let args = ["config", "check"];
    assert!(holdfast_with(&args, &[("HOLDFAST_CONFIG", &config)]).status.success());
    assert_eq!(holdfast_with(&args, &[]).status.code(), Some(2));
    let bad = [("HOLDFAST_CONFIG", config.as_str()), ("HOLDFAST_RAFT_HEARTBEAT_MS", "soon")];
    assert_eq!(holdfast_with(&args, &bad).status.code(), Some(2));
}

#[test]
fn an_unknown_key_is_named_by_check_and_by_the_server() {
    let host = Host::new();
    let config = host.config("[raft]\nheartbeat = 60\n");
    for command in [&["config", "check"][..], &["server"]] {
        let (_, err) = ends_with(&[command, &["--config", &config]].concat(), 2);
        assert!(err.contains("heartbeat") && err.contains("server.toml"), "{err}");
    }
}

#[test]
fn show_names_secrets_by_their_files_only() {
    let host = Host::new();
    let config = host.config("");
    for format in ["table", "json"] {
        let (out, _) = ends_with(&["config", "show", "--config", &config, "-o", format], 0);
        assert!(out.contains("root.key") && out.contains("node.key"), "{out}");
        for secret in ["root.key", "node.key"] {
            let secret = std::fs::read_to_string(host.path(secret)).unwrap();
            assert!(secret.lines().all(|line| !out.contains(line)), "{out}");
        }
    }
}

#[test]
fn a_root_key_that_others_may_read_or_that_lies_with_the_data_is_refused() {
    let host = Host::new();
    let config = host.config("");
    let inside = host.path("data/root.key");
    ends_with(&["pki", "root-key", "--out", &inside], 0);
    let open = host.path("open.key");
    ends_with(&["pki", "root-key", "--out", &open], 0);
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o440)).unwrap();
    let none = host.path("none.key");
    write(&none, "no key\n");
    std::fs::set_permissions(&none, std::fs::Permissions::from_mode(0o400)).unwrap();
    for (file, why) in [(&inside, "inside the data directory"), (&open, "mode 0440"), (&none, "")] {
        for command in [&["config", "check"][..], &["server"]] {
            let args = [command, &["--config", &config, "--auto-unseal-key-file", file]].concat();
            let (_, err) = ends_with(&args, 2);
            assert!(err.contains("auto_unseal_key_file") && err.contains(why), "{err}");
            assert!(err.contains(file.as_str()), "{err}");
        }
    }
}

/// What the server refuses at start is found by the check before it, in the same words.
#[track_caller]
fn refused_by_check_and_server(host: &Host, config: &str, names: &[&str]) {
    for command in [&["config", "check"][..], &["server"]] {
        let (_, err) = ends_with(&[command, &["--config", config]].concat(), 2);
        for name in names {
            assert!(err.contains(name), "{command:?} does not name {name}: {err}");
        }
    }
    let data = std::fs::read_dir(host.path("data")).unwrap();
    assert_eq!(data.count(), 0, "nothing is made");
}

#[test]
fn certificates_and_keys_that_are_not_this_nodes_are_refused_by_check_and_server() {
    let host = Host::new();
    let config = host.config("");
    ends_with(&["config", "check", "--config", &config], 0);
    let text = std::fs::read_to_string(&config).unwrap();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        write(&config, &text.replace(from, to));
    };

    with(CLUSTER, "00000000-0000-0000-0000-000000000000");
    let names = ["tls.cert", "spiffe://00000000-0000-0000-0000-000000000000/node/1", CLUSTER];
    refused_by_check_and_server(&host, &config, &names);
    with("node_id = 1", "node_id = 2");
    refused_by_check_and_server(&host, &config, &["tls.cert", "/node/1", "/node/2"]);
    with("node-ca.pem", "agent-ca.pem");
    refused_by_check_and_server(&host, &config, &["tls"]);

    write(&config, &text);
    let key = host.path("node.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    refused_by_check_and_server(&host, &config, &["tls.key", "node.key", "mode 0640"]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let certificate = std::fs::read_to_string(host.path("node.pem")).unwrap();
    host.becomes(2);
    write(&host.path("node.pem"), &certificate);
    refused_by_check_and_server(&host, &config, &["tls.cert", "tls.key", "key"]);
}

#[test]
fn a_collector_that_can_not_be_used_is_named_by_check_and_by_the_server() {
    let host = Host::new();
    let spool = host.path("spool");
    let ca = host.path("node.key");
    for (lines, key) in [
        (format!("syslog = \"udp://h:514\"\nsyslog_spool = {spool:?}"), "audit.syslog: "),
        ("syslog = \"tcp://h:514\"".to_owned(), "audit.syslog_spool: "),
        (
            format!("syslog = \"tls://h:6514\"\nsyslog_spool = {spool:?}\nsyslog_ca = {ca:?}"),
            "audit.syslog_ca: ",
        ),
    ] {
        let config = host.config(&format!("[audit]\n{lines}\n"));
        refused_by_check_and_server(&host, &config, &[key]);
    }
    let lines = format!("syslog = \"tcp://h:514\"\nsyslog_spool = {spool:?}");
    let config = host.config(&format!("[audit]\n{lines}\n"));
    ends_with(&["config", "check", "--config", &config], 0);
    assert_eq!(shown(&config, &[], &[])["audit"]["syslog"], "tcp://h:514");
}
