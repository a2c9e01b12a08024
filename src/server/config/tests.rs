//! What a configuration takes, refuses and prefers.

use std::path::Path;

use clap::{Args as _, Parser};

use super::*;

const CLUSTER: &str = "07070707-0707-0707-0707-070707070707";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    sources: Sources,
}

fn write(path: &Path, text: &str) {
    use std::io::Write as _;
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// A directory with all files that a configuration names, and its text.
fn valid() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut tls = String::new();
    for name in ["node_ca", "agent_ca", "operator_ca", "cert", "key"] {
        let path = dir.path().join(name);
        write(&path, "");
        tls += &format!("{name} = {path:?}\n");
    }
    let text = format!("node_id = 1\ncluster_id = \"{CLUSTER}\"\ndata_dir = \"/d\"\n[tls]\n{tls}");
    (dir, text)
}

fn load(dir: &tempfile::TempDir, text: &str, flags: &[&str]) -> Result<Config, ConfigError> {
    let path = dir.path().join("holdfast.toml");
    write(&path, text);
    let mut args = vec!["x", "--config", path.to_str().unwrap()];
    args.extend(flags);
    Flags::try_parse_from(args).unwrap().sources.load()
}

fn key_at_fault(result: Result<Config, ConfigError>) -> &'static str {
    match result {
        Err(ConfigError::Key { key, .. }) => key,
        other => panic!("no key at fault: {other:?}"),
    }
}

#[test]
fn devices_enrol_at_a_port_of_its_own_or_not_at_all() {
    let (dir, text) = valid();
    assert_eq!(load(&dir, &text, &[]).unwrap().enrolment_listen, None);
    let flag = ["--enrolment-listen", "127.0.0.1:7404"];
    let config = load(&dir, &text, &flag).unwrap();
    assert_eq!(config.enrolment_listen, Some("127.0.0.1:7404".parse().unwrap()));
    for taken in ["127.0.0.1:7401", "127.0.0.1:7402", "127.0.0.1:7403", "224.0.0.1:7404"] {
        let found = load(&dir, &text, &["--enrolment-listen", taken]);
        assert_eq!(key_at_fault(found), "enrolment_listen", "{taken}");
    }
}

#[test]
fn a_minimal_file_gets_the_documented_defaults() {
    let (dir, text) = valid();
    let config = load(&dir, &text, &[]).unwrap();
    assert_eq!(config.client_listen, "127.0.0.1:7401".parse().unwrap());
    assert_eq!(config.client_address, "127.0.0.1:7401");
    assert_eq!(config.raft.heartbeat_ms, 50);
    assert_eq!((config.raft.election_min_ms, config.raft.election_max_ms), (200, 350));
    assert_eq!(config.raft.propose_ms, 5000);
    assert_eq!(config.limits.drain_ms, 10_000);
    assert_eq!(config.node_options().sizes.overlay_bytes, 64 * 1024 * 1024);
}

#[test]
fn an_unknown_key_is_refused_at_the_top_and_in_a_table() {
    let (dir, text) = valid();
    for bad in [format!("nodeid = 1\n{text}"), format!("{text}\n[raft]\nheartbeat = 50\n")] {
        let error = load(&dir, &bad, &[]).unwrap_err();
        assert!(matches!(error, ConfigError::Parse { .. }), "{error}");
        assert!(error.to_string().contains("unknown field"), "{error}");
    }
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let (dir, text) = valid();
    let text = format!("{text}\n[raft]\nheartbeat_ms = 60\n[log]\nformat = \"json\"\n");
    let config = load(&dir, &text, &["--raft-heartbeat-ms", "70", "--node-id", "3"]).unwrap();
    assert_eq!(config.raft.heartbeat_ms, 70);
    assert_eq!(config.node_id.get(), 3);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.raft.election_min_ms, 200);
}

#[test]
fn every_flag_has_the_environment_variable_of_its_name() {
    let command = Sources::augment_args(clap::Command::new("x"));
    let mut seen = 0;
    for arg in command.get_arguments().filter(|arg| arg.get_long() != Some("help")) {
        let long = arg.get_long().unwrap();
        let expected = format!("HOLDFAST_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().unwrap().to_str().unwrap(), expected);
        seen += 1;
    }
    assert_eq!(seen, 48);
}

#[test]
fn a_missing_key_is_named() {
    let (dir, text) = valid();
    for (line, key) in [
        ("node_id = 1\n".to_owned(), "node_id"),
        (format!("cluster_id = \"{CLUSTER}\"\n"), "cluster_id"),
        ("data_dir = \"/d\"\n".to_owned(), "data_dir"),
    ] {
        assert_eq!(key_at_fault(load(&dir, &text.replace(&line, ""), &[])), key);
    }
}

#[test]
fn a_file_that_is_not_there_is_named_with_its_key() {
    let (dir, text) = valid();
    for (flag, key) in [
        ("--tls-node-ca", "tls.node_ca"),
        ("--tls-agent-ca", "tls.agent_ca"),
        ("--tls-operator-ca", "tls.operator_ca"),
        ("--tls-cert", "tls.cert"),
        ("--tls-key", "tls.key"),
        ("--auto-unseal-key-file", "auto_unseal_key_file"),
    ] {
        let error = load(&dir, &text, &[flag, "/nowhere/file"]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/file"), "{error}");
        assert_eq!(key_at_fault(Err(error)), key);
    }
    let error = Sources { config: Some("/nowhere/holdfast.toml".into()), ..Sources::default() };
    assert!(matches!(error.load(), Err(ConfigError::Read { .. })));
}

#[test]
fn values_out_of_range_are_refused_with_their_key() {
    let (dir, text) = valid();
    for (flags, key) in [
        (["--node-id", "0"].as_slice(), "node_id"),
        (&["--cluster-id", "here"], "cluster_id"),
        (&["--client-address", "no-port"], "client_address"),
        (&["--peer-address", "host:0"], "peer_address"),
        (&["--client-listen", "0.0.0.0:1"], "client_address"),
        (&["--peer-listen", "127.0.0.1:7401"], "peer_listen"),
        (&["--http-listen", "127.0.0.1:7402"], "http_listen"),
        (&["--log-level", "a=b=c"], "log.level"),
        (&["--raft-heartbeat-ms", "0"], "raft.heartbeat_ms"),
        (&["--raft-heartbeat-ms", "150"], "raft.election_min_ms"),
        (&["--raft-election-max-ms", "200"], "raft.election_max_ms"),
        (&["--storage-overlay-bytes", "1"], "storage.overlay_bytes"),
        (&["--limits-max-connections", "0"], "limits.max_connections"),
        (&["--limits-drain-ms", "1"], "limits.drain_ms"),
    ] {
        assert_eq!(key_at_fault(load(&dir, &text, flags)), key, "{flags:?}");
    }
}

#[test]
fn what_show_prints_is_a_valid_file_with_the_same_meaning() {
    let (dir, text) = valid();
    let config = load(&dir, &text, &[]).unwrap();
    assert_eq!(load(&dir, &config.to_toml().unwrap(), &[]).unwrap(), config);
}

#[test]
fn the_file_for_checkpoints_is_absolute_and_outside_the_data_directory() {
    let (dir, text) = valid();
    for bad in ["checkpoints", "/d/checkpoints"] {
        let flags = ["--audit-checkpoint-file", bad];
        assert_eq!(key_at_fault(load(&dir, &text, &flags)), "audit.checkpoint_file", "{bad}");
    }
    let text = format!("{text}\n[audit]\ncheckpoint_file = \"/e/checkpoints\"\n");
    let config = load(&dir, &text, &[]).unwrap();
    assert_eq!(config.audit.checkpoint_file.as_deref(), Some(Path::new("/e/checkpoints")));
    assert_eq!(config.audit.checkpoint_records, 1000);
    let text = format!("{text}checkpoint_records = 0\n");
    assert_eq!(key_at_fault(load(&dir, &text, &[])), "audit.checkpoint_records");
}

/// The same with people of a provider, whose CA is a real one.
fn with_oidc(more: &str) -> (tempfile::TempDir, String) {
    let (dir, text) = valid();
    let ca = crate::crypto::testing::TestCa::new("provider").authority();
    let path = dir.path().join("provider.pem");
    write(&path, &crate::crypto::certificate_pem(&ca.certificates()[0]));
    let oidc = format!(
        "[oidc]\nissuer = \"https://idp.example/realm\"\naudience = \"holdfast\"\nca_file = {path:?}\n{more}\n[oidc.roles]\ndesk = [\"help-desk\", \"report-reader\"]\n"
    );
    (dir, format!("{text}{oidc}"))
}

#[test]
fn people_of_a_provider_are_off_unless_configured_and_then_pinned() {
    let (dir, text) = valid();
    assert_eq!(load(&dir, &text, &[]).unwrap().oidc, None);
    let (dir, text) = with_oidc("");
    let config = load(&dir, &text, &[]).unwrap();
    let oidc = config.oidc.clone().unwrap();
    assert_eq!(oidc.issuer.as_str(), "https://idp.example/realm");
    assert_eq!((oidc.max_age_s, oidc.leeway_s), (900, 30));
    assert_eq!((oidc.keys_refresh_s, oidc.keys_max_age_s), (300, 3600));
    assert_eq!(oidc.group_claim, "groups");
    let algorithms: Vec<_> = oidc.algorithms.iter().map(|one| one.as_str()).collect();
    assert_eq!(algorithms, ["ES256", "RS256"]);
    assert_eq!(oidc.roles["desk"].len(), 2);
    // What `config show` prints means the same.
    assert_eq!(load(&dir, &config.to_toml().unwrap(), &[]).unwrap(), config);
}

#[test]
fn a_fault_of_the_provider_is_named_by_its_key() {
    for (more, key) in [
        ("algorithms = [\"HS256\"]", "oidc.algorithms"),
        ("algorithms = [\"none\"]", "oidc.algorithms"),
        ("algorithms = []", "oidc.algorithms"),
        ("max_age_s = 901", "oidc.max_age_s"),
        ("max_age_s = 59", "oidc.max_age_s"),
        ("leeway_s = 121", "oidc.leeway_s"),
        ("keys_refresh_s = 0", "oidc.keys_refresh_s"),
        ("keys_max_age_s = 299", "oidc.keys_max_age_s"),
        ("group_claim = \"\"", "oidc.group_claim"),
    ] {
        let (dir, text) = with_oidc(more);
        assert_eq!(key_at_fault(load(&dir, &text, &[])), key, "{more}");
    }
    let (dir, text) = with_oidc("");
    for (from, to, key) in [
        ("issuer = \"https", "issuer = \"http", "oidc.issuer"),
        ("issuer = ", "#", "oidc.issuer"),
        ("audience = ", "#", "oidc.audience"),
        ("ca_file = ", "#", "oidc.ca_file"),
        ("provider.pem", "cert", "oidc.ca_file"),
        ("provider.pem", "nothing.pem", "oidc.ca_file"),
        ("desk = [\"help-desk\"", "desk = [\"helper\"", "oidc.roles"),
        ("desk = [\"help-desk\", \"report-reader\"]", "desk = []", "oidc.roles"),
        ("desk = [\"help-desk\"", "desk = [\"data-migration\"", "oidc.roles"),
        ("desk = ", "#", "oidc.roles"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        assert_eq!(key_at_fault(load(&dir, &changed, &[])), key, "{from} {to}");
    }
    let unknown = text.replace("audience =", "client_secret = \"x\"\naudience =");
    assert!(matches!(load(&dir, &unknown, &[]), Err(ConfigError::Parse { .. })));
}

#[test]
fn a_collector_has_an_address_a_spool_and_by_tls_a_ca() {
    let (dir, text) = valid();
    let ca = dir.path().join("collector-ca.pem");
    write(&ca, &crate::crypto::testing::TestCa::new("collector").pem());
    let (ca, empty) = (ca.to_str().unwrap(), dir.path().join("node_ca"));
    let empty = empty.to_str().unwrap();
    let (to, by, tcp, tls) = ("--audit-syslog", "--audit-syslog-ca", "tcp://h:1", "tls://h:1");
    let spool = ["--audit-syslog-spool", "/e/spool"];
    for (flags, key) in [
        ([to, tcp].as_slice(), "audit.syslog_spool"),
        (&[to, tcp, "--audit-syslog-spool", "spool"], "audit.syslog_spool"),
        (&[to, tcp, "--audit-syslog-spool", "/d/spool"], "audit.syslog_spool"),
        (&spool, "audit.syslog"),
        (&[to, "h:1", spool[0], spool[1]], "audit.syslog"),
        (&[to, "udp://h:1", spool[0], spool[1]], "audit.syslog"),
        (&[to, "tls://h", spool[0], spool[1]], "audit.syslog"),
        (&[to, "tcp://h:0", spool[0], spool[1]], "audit.syslog"),
        (&[to, tcp, by, ca, spool[0], spool[1]], "audit.syslog_ca"),
        (&[by, ca], "audit.syslog_ca"),
        (&[to, tls, spool[0], spool[1]], "audit.syslog_ca"),
        (&[to, tls, by, "/nowhere/file", spool[0], spool[1]], "audit.syslog_ca"),
        (&[to, tls, by, empty, spool[0], spool[1]], "audit.syslog_ca"),
    ] {
        assert_eq!(key_at_fault(load(&dir, &text, flags)), key, "{flags:?}");
    }
    let udp = load(&dir, &text, &[to, "udp://h:1", spool[0], spool[1]]).unwrap_err();
    assert!(udp.to_string().contains("UDP loses without a word"), "{udp}");
    for target in ["tcp://logs.example.org:514", "tls://[::1]:6514"] {
        let tls = if target.starts_with("tls") { vec![by, ca] } else { Vec::new() };
        let flags = [&[to, target][..], &spool, &tls].concat();
        let config = load(&dir, &text, &flags).unwrap();
        assert_eq!(config.audit.syslog.as_ref().unwrap().to_string(), target);
        assert_eq!(load(&dir, &config.to_toml().unwrap(), &[]).unwrap(), config);
    }
}
