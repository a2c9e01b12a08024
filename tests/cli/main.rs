//! The command line without a cluster: usage, exit codes, and what it refuses to do.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that can't go on has failed"
)]

mod config;
mod deploy;

use std::process::{Command, Output};

fn holdfast(args: &[&str]) -> Output {
    holdfast_with(args, &[])
}

/// Runs it with these variables and no others of ours.
fn holdfast_with(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOLDFAST_") {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().copied()).args(args).output().unwrap()
}

#[track_caller]
fn ends_with(args: &[&str], code: i32) -> (String, String) {
    let output = holdfast(args);
    let out = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    (out, err)
}

/// A PKI with an operator's certificate, for commands that need files but reach no server.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki").display().to_string();
        ends_with(&["pki", "init", "--dir", &pki], 0);
        let out = dir.path().display().to_string();
        ends_with(
            &["pki", "issue", "operator", "--name", "helen", "--dir", &pki, "--out", &out],
            0,
        );
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// A command that is called as helen, with nobody listening.
    fn unreachable(&self, args: &[&str]) -> Vec<String> {
        let ca = self.path("pki/node-ca.pem");
        let (cert, key) = (self.path("operator-helen.pem"), self.path("operator-helen.key"));
        let flags = ["--addr", "127.0.0.1:1", "--cacert", &ca, "--cert", &cert, "--key", &key];
        let all = args.iter().chain(flags.iter()).chain(["--timeout", "1"].iter());
        all.map(|arg| (*arg).to_owned()).collect()
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_missing() {
    ends_with(&["key", "find"], 2);
    ends_with(&["no-such-command"], 2);
    ends_with(&["key", "find", "1854c11f", "-o", "yaml"], 2);
    let (_, err) = ends_with(&["key", "find", "1854c11f"], 2);
    assert!(err.contains("HOLDFAST_ADDR"), "{err}");
    assert_eq!(err.lines().count(), 1, "one line: {err}");
    ends_with(&["config", "check", "--config", "/nonexistent/holdfast.toml"], 2);
    ends_with(&["server", "--config", "/nonexistent/holdfast.toml"], 2);
}

#[test]
fn help_and_version_end_with_0_on_standard_output() {
    let (out, _) = ends_with(&["--version"], 0);
    assert!(out.starts_with("holdfast "), "{out}");
    for command in [
        "key", "audit", "receipt", "cluster", "device", "grant", "pki", "config", "dev", "demo",
        "bench",
    ] {
        let (out, _) = ends_with(&[command, "--help"], 0);
        assert!(!out.is_empty(), "{command}");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (out, _) = ends_with(&["completions", shell], 0);
        for command in ["disclose", "receipt", "checkpoint", "export"] {
            assert!(out.contains(command), "{shell}: {command}");
        }
    }
    let (out, _) = ends_with(&["completions", "bash"], 0);
    for value in ["advanced-help-desk", "audit-read"] {
        assert!(out.contains(value), "{value} completes");
    }
}

#[test]
fn a_cluster_that_nobody_runs_is_unavailable_and_ends_with_3() {
    let files = Files::new();
    for args in [&["key", "find", "1854c11f"][..], &["cluster", "status"], &["audit", "verify"]] {
        let args = files.unreachable(args);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let (out, err) = ends_with(&args, 3);
        assert!(out.is_empty(), "{out}");
        assert!(err.contains("127.0.0.1:1") && err.contains("HOLDFAST_ADDR"), "{err}");
    }
}

#[test]
fn evidence_is_verified_without_a_server_and_what_is_wrong_with_a_file_is_told() {
    let files = Files::new();
    let ca = files.path("pki/node-ca.pem");
    let file = files.path("file");
    let (_, err) = ends_with(&["receipt", "verify", &file], 2);
    assert!(err.contains("--ca") && err.contains("HOLDFAST_CACERT"), "{err}");
    for command in [&["receipt", "verify", &file, "--ca", &ca][..], &["audit", "verify", &file]] {
        let (_, err) = ends_with(command, 2);
        assert!(err.contains("file: No such file"), "{err}");
    }
    let dir = files.path("pki");
    for command in [&["receipt", "verify", &dir, "--ca", &ca][..], &["audit", "verify", &dir]] {
        let (_, err) = ends_with(command, 2);
        assert!(err.contains("is a directory"), "{err}");
    }
    let mut made = std::fs::File::create(&file).unwrap();
    std::io::Write::write_all(&mut made, b"{\"format\": \"nonsense\"").unwrap();
    for command in [&["receipt", "verify", &file, "--ca", &ca][..], &["audit", "verify", &file]] {
        let (out, err) = ends_with(command, 1);
        assert!(out.is_empty() && err.contains("doesn't verify: "), "{out}{err}");
        assert_eq!(err.lines().count(), 1, "one line: {err}");
    }
    let (_, err) = ends_with(&["audit", "verify", &file, "--checkpoint", &file, "--ca", &ca], 1);
    assert!(err.contains("the checkpoint doesn't verify"), "{err}");
    // A checkpoint is good for a file only, and a CA has to be one.
    ends_with(&["audit", "verify", "--checkpoint", &file], 2);
    let (_, err) = ends_with(&["receipt", "verify", &file, "--ca", &file], 2);
    assert!(err.contains("holds no certificate"), "{err}");
    let digest = ["receipt", "verify", &file, "--ca", &ca, "--sealed-digest", "12"];
    assert!(ends_with(&digest, 2).1.contains("64 hexadecimal digits"));
}

#[test]
fn what_each_server_said_last_is_told_once() {
    let files = Files::new();
    let args = files.unreachable(&["key", "find", "1854c11f"]).join(" ");
    let args = args.replace("127.0.0.1:1 ", "127.0.0.1:1,localhost:2 ");
    let args: Vec<_> = args.split(' ').collect();
    let (_, err) = ends_with(&args, 3);
    assert!(err.contains("no server could do it within"), "{err}");
    for server in ["127.0.0.1:1", "localhost:2"] {
        assert_eq!(err.matches(server).count(), 1, "{err}");
    }
}

#[test]
fn files_that_are_missing_or_readable_for_others_are_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::new();
    let args = files.unreachable(&["grant", "list"]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let key = files.path("operator-helen.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (_, err) = ends_with(&args, 2);
    assert!(err.contains("operator-helen.key") && err.contains("chmod"), "{err}");
    std::fs::remove_file(&key).unwrap();
    let (_, err) = ends_with(&args, 2);
    assert!(err.contains("No such file"), "{err}");
    assert_eq!(err.matches("operator-helen.key").count(), 1, "{err}");
    assert!(!err.contains("operator-helen.pem"), "the certificate is not at fault: {err}");
    std::fs::remove_file(files.path("pki/node-ca.pem")).unwrap();
    let (_, err) = ends_with(&args, 2);
    assert_eq!(err.matches("node-ca.pem").count(), 1, "{err}");
}

#[test]
fn with_json_output_the_last_line_of_standard_error_is_the_error_as_json() {
    let files = Files::new();
    let args = files.unreachable(&["key", "find", "1854c11f", "-o", "json"]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let (out, err) = ends_with(&args, 3);
    assert!(out.is_empty(), "{out}");
    let error: serde_json::Value = serde_json::from_str(err.lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["exit_code"], 3, "{err}");
    assert_eq!(error["error"]["kind"], "unavailable", "{err}");
    assert!(error["error"]["message"].as_str().unwrap().contains("127.0.0.1:1"), "{err}");
}

#[test]
fn pki_commands_answer_in_json_too() {
    let files = Files::new();
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&ends_with(args, 0).0).unwrap()
    };
    let (pki, out, root) = (files.path("more"), files.path("out"), files.path("root.key"));
    let made = json(&["pki", "init", "--dir", &pki, "-o", "json"]);
    let cluster = made["cluster_id"].as_str().unwrap().to_owned();
    let node = ["pki", "issue", "--dir", &pki, "--out", &out, "node", "--id", "1", "--host", "a"];
    let issued = json(&[&node[..], &["-o", "json"]].concat());
    let certificate = issued["certificate"].as_str().unwrap();
    let shown = json(&["pki", "show", certificate, "-o", "json"]);
    assert_eq!(shown["certificates"][0]["uris"][0], format!("spiffe://{cluster}/node/1"));
    assert_eq!(shown["certificates"][0]["expired"], false);
    let made = json(&["pki", "root-key", "--out", &root, "-o", "json"]);
    assert_eq!(made["root_key"], root.as_str());
}

#[test]
fn an_escrow_without_a_key_says_so_and_never_asks() {
    let files = Files::new();
    let id = "0b9f9d8e-5d0b-4a0e-9d57-6c1f0c6f3a10";
    let escrow = ["key", "escrow", "--device", id, "--volume", id, "--protector", id];
    let args = files.unreachable(&escrow);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    // Standard input is empty here, as it is for a job without a terminal.
    let (_, err) = ends_with(&args, 2);
    assert!(err.contains("standard input holds no recovery key"), "{err}");
}

#[test]
fn a_development_cluster_is_not_made_among_other_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::File::create(dir.path().join("thesis.txt")).unwrap();
    let path = dir.path().display().to_string();
    let (_, err) = ends_with(&["dev", "--dir", &path], 6);
    assert!(err.contains(&path) && err.contains("not empty"), "{err}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is made");
}
