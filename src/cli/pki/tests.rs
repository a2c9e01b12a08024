use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::*;
use crate::auth::identify;
use crate::cli::output::Show as _;
use crate::crypto::testing::{CLUSTER, DEVICE, days_from_now, now, operator, rng};
use crate::crypto::{KeyringParts, RootKey, StatementVerifier};
use crate::domain::{Actor, ClusterId, NodeId, OperatorName, Timestamp};
use crate::tls::{Identity, PeerCertificates, peer_port_config};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn node(id: u64) -> Subject {
    Subject::Node { id: NodeId::new(id), hosts: vec!["localhost".into(), "127.0.0.1".into()] }
}

fn alice() -> OperatorName {
    "alice".parse().unwrap()
}

struct Made {
    pki: Pki,
    directory: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::init(&directory.path().join("pki"), CLUSTER, now()).unwrap();
        Self { pki, directory }
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    fn issue(&self, subject: &Subject) -> IssuedPaths {
        self.pki.issue(subject, subject.default_days(), &self.out(), now()).unwrap()
    }
}

#[test]
fn what_is_issued_is_accepted_where_it_belongs() {
    let made = Made::new();
    let authorities = made.pki.authorities().unwrap();
    for (subject, actor, days) in [
        (node(1), Actor::Node(NodeId::new(1)), 365),
        (Subject::Agent(DEVICE), Actor::Agent(DEVICE), 90),
        (Subject::Operator(alice()), operator("alice"), 365),
    ] {
        let paths = made.issue(&subject);
        let identity = Identity::load(&paths.certificate, &paths.private_key).unwrap();
        let chain = identity.chain().iter().map(|der| der.to_vec()).collect();
        let peer = PeerCertificates::new(chain, ([127, 0, 0, 1], 1).into());
        let caller = identify(&peer, &authorities, CLUSTER, now()).unwrap();
        assert_eq!(caller.actor(), &actor);
        assert!(caller.not_after() > days_from_now(days - 1));
        assert!(caller.not_after() <= days_from_now(days));
    }
    let server = made.issue(&node(2));
    let server = Identity::load(&server.certificate, &server.private_key).unwrap();
    assert!(peer_port_config(&authorities.node(), &server).is_ok());
}

#[test]
fn private_keys_are_for_their_owner_alone_from_the_start() {
    let made = Made::new();
    let paths = made.issue(&node(1));
    assert_eq!(mode(made.pki.directory()), 0o700);
    assert_eq!(mode(&paths.private_key), 0o600);
    for ca in ["node", "agent", "operator"] {
        assert_eq!(mode(&made.pki.directory().join(format!("{ca}-ca.key"))), 0o600);
    }
    let root = made.directory.path().join("root.key");
    write_root_key(&root).unwrap();
    assert_eq!(mode(&root), 0o400);
    assert!(RootKey::load(&root, &made.out()).is_ok());
}

#[test]
fn nothing_is_ever_overwritten() {
    let made = Made::new();
    let error = Pki::init(made.pki.directory(), CLUSTER, now()).unwrap_err();
    assert!(matches!(error, PkiError::NotEmpty(_)), "{error}");
    let paths = made.issue(&node(1));
    for (gone, kept) in
        [(&paths.private_key, &paths.certificate), (&paths.certificate, &paths.private_key)]
    {
        let (gone_bytes, before) = (std::fs::read(gone).unwrap(), std::fs::read(kept).unwrap());
        std::fs::remove_file(gone).unwrap();
        let error = made.pki.issue(&node(1), 1, &made.out(), now()).unwrap_err();
        assert!(matches!(&error, PkiError::Exists(path) if path == kept), "{error}");
        assert!(!gone.exists() && std::fs::read(kept).unwrap() == before);
        files::write_new(gone, &gone_bytes, 0o600).unwrap();
    }
    let root = made.directory.path().join("root.key");
    write_root_key(&root).unwrap();
    let before = std::fs::read(&root).unwrap();
    assert!(matches!(write_root_key(&root), Err(PkiError::Exists(_))));
    assert_eq!(std::fs::read(&root).unwrap(), before);
}

#[test]
fn a_pki_is_opened_again_and_knows_its_cluster() {
    let made = Made::new();
    let opened = Pki::open(made.pki.directory()).unwrap();
    assert_eq!(opened.cluster(), CLUSTER);
    let error = Pki::open(&made.out()).unwrap_err();
    assert!(matches!(error, PkiError::NoPki(_)), "{error}");
    let file = made.pki.directory().join("cluster.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let open_with = |text: String| {
        std::fs::remove_file(&file).unwrap();
        files::write_new(&file, text.as_bytes(), 0o644).unwrap();
        Pki::open(made.pki.directory())
    };
    let error = open_with(text.replace("\"format\": 1", "\"format\": 2")).unwrap_err();
    assert!(matches!(error, PkiError::NewerFormat { format: 2, .. }), "{error}");
    let error = open_with(text.replace("c1c1", "zz")).unwrap_err();
    assert!(matches!(error, PkiError::ClusterFile { .. }), "{error}");
    assert!(open_with(text).is_ok());
}

#[test]
fn the_signer_makes_a_keyring_that_clients_accept_and_is_never_written() {
    let made = Made::new();
    let files = || std::fs::read_dir(made.pki.directory()).unwrap().count();
    let before = files();
    let signer = made.pki.signer(now()).unwrap();
    assert_eq!(files(), before);
    let node_ca = made.pki.authority(CaKind::Node).unwrap();
    let root = RootKey::from_bytes([1; 32]);
    let parts = KeyringParts::create(&root, CLUSTER, &signer, &node_ca, now(), &mut rng()).unwrap();
    let verifier = StatementVerifier::new(CLUSTER, node_ca);
    let key = parts.current(CLUSTER).unwrap();
    let signature = &parts.epochs[0].signature;
    // The signer has to last: agents check it whenever they fetch the escrow key.
    for time in [now(), days_from_now(3600)] {
        verifier.escrow_key(&key, &parts.signer.chain, signature, time).unwrap();
    }
}

#[test]
fn no_certificate_outlives_its_ca_and_an_expired_ca_issues_none() {
    let made = Made::new();
    let late = days_from_now(3600);
    let issued = made.pki.make(&node(1), 365, late).unwrap();
    let ca = &summaries(&made.pki.ca_path(CaKind::Node)).unwrap()[0];
    assert_eq!(show::not_after(&issued.certificate).unwrap(), ca.not_after);
    let error = made.pki.make(&node(1), 365, days_from_now(3700)).err().unwrap();
    assert!(matches!(error, PkiError::CaExpired("node")), "{error}");
}

#[test]
fn names_and_days_that_make_no_certificate_are_refused_by_field() {
    let made = Made::new();
    let try_node = |hosts: &[&str], days| {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let subject = Subject::Node { id: NodeId::new(1), hosts };
        made.pki.make(&subject, days, now()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert!(try_node(&["node-1.example.org", "192.0.2.1", "2001:db8::1"], 3653).is_ok());
    for (hosts, days, field) in [
        (&[][..], 1, "host"),
        (&["not a host"], 1, "host"),
        (&["ü.example.org"], 1, "host"),
        (&["localhost"], 0, "days"),
        (&["localhost"], 3654, "days"),
    ] {
        let error = try_node(hosts, days).unwrap_err();
        assert!(error.starts_with(field), "{error}");
    }
    let long = Subject::Operator("x".repeat(256).parse().unwrap());
    assert!(made.pki.make(&long, 1, now()).is_ok(), "the longest name there is");
}

#[test]
fn a_ca_key_that_others_may_read_is_not_used() {
    let made = Made::new();
    let key = made.pki.directory().join("agent-ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = made.pki.make(&Subject::Agent(DEVICE), 1, now()).err().unwrap();
    assert!(error.to_string().contains("agent-ca.key"), "{error}");
    assert!(matches!(error, PkiError::KeyMode { mode: 0o644, .. }));
}

#[derive(Parser)]
struct CommandLine {
    #[command(subcommand)]
    pki: PkiCommand,
}

fn holdfast_pki(arguments: &[&str], time: Timestamp) -> Result<String, String> {
    let arguments = std::iter::once(&"pki").chain(arguments);
    let parsed = CommandLine::try_parse_from(arguments).map_err(|error| error.to_string())?;
    let made = run(parsed.pki, time).map_err(|error| error.to_string())?;
    Ok(made.sheet().as_str().to_owned())
}

#[test]
fn the_command_line_makes_a_pki_issues_and_shows() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (pki, out, root) = (place("pki"), place("out"), place("root.key"));
    let made = holdfast_pki(&["init", "--dir", &pki], now()).unwrap();
    let cluster = made.lines().next().unwrap().strip_prefix("cluster ").unwrap();
    assert!(cluster.parse::<ClusterId>().is_ok(), "{made}");
    let device = DEVICE.to_string();
    for (kind, name) in [
        (&["node", "--id", "1", "--host", "localhost", "127.0.0.1"][..], "node-1"),
        (&["agent", "--device", &device, "--days", "7"], &format!("agent-{device}")),
        (&["operator", "--name", "alice"], "operator-alice"),
    ] {
        let arguments = [&["issue"], kind, &["--dir", &pki, "--out", &out]].concat();
        let issued = holdfast_pki(&arguments, now()).unwrap();
        assert!(issued.contains(&format!("{out}/{name}.key")), "{issued}");
        let shown = holdfast_pki(&["show", &format!("{out}/{name}.pem")], now()).unwrap();
        assert!(shown.contains(&format!("URI:        spiffe://{cluster}/")), "{shown}");
        assert!(!shown.contains("expired"), "{shown}");
    }
    // What all kinds share may stand before the kind as well.
    let (before, second) = (place("before"), ["node", "--id", "2", "--host", "localhost"]);
    let arguments = [&["issue", "--dir", &pki, "--out", &before][..], &second].concat();
    assert!(holdfast_pki(&arguments, now()).unwrap().contains("before/node-2.pem"));
    let node = format!("{out}/node-1.pem");
    let shown = holdfast_pki(&["show", &node], days_from_now(366)).unwrap();
    assert!(shown.contains("host:       127.0.0.1") && shown.contains("(expired)"), "{shown}");
    holdfast_pki(&["root-key", "--out", &root], now()).unwrap();
    assert!(holdfast_pki(&["root-key", "--out", &root], now()).is_err());
    assert!(holdfast_pki(&["show", &root], now()).is_err());
}

#[test]
fn the_command_line_refuses_what_is_malformed_and_explains_each_command() {
    for bad in [
        &["issue", "node", "--id", "0", "--host", "h"][..],
        &["issue", "node", "--id", "1"],
        &["issue", "agent", "--device", "x"],
        &["issue", "operator", "--name", "a/b"],
        &["init", "--cluster", "x"],
    ] {
        assert!(holdfast_pki(bad, now()).is_err(), "{bad:?}");
    }
    let help = holdfast_pki(&["issue", "agent", "--help"], now()).unwrap_err();
    assert!(help.contains("For a client machine"), "{help}");
}
