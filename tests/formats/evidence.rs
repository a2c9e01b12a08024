//! Evidence in files, made here and verified by a program that was written from the pages alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bytes::Bytes;
use holdfast::client::Receipt;
use holdfast::client::evidence::{Checkpoint, ExportHead, ExportWriter};
use holdfast::crypto::{CheckpointFacts, NodeSigner, ReceiptFacts};
use holdfast::domain::{
    Actor, AuditAction, AuditOutcome, AuditRecord, ClusterId, DeviceId, KeyVersion, NodeId,
    ProtectorId, Reason, RequestId, Text, Timestamp, User, VolumeId,
};
use holdfast::tls::Identity;
use holdfast_proto::v1;

use crate::{python, write};

struct Files {
    dir: tempfile::TempDir,
    cluster: ClusterId,
    signer: NodeSigner,
}

impl Files {
    /// A node CA with a certificate of node 2, valid from five minutes ago.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let run = |args: &[&str]| {
            let made = Command::new(env!("CARGO_BIN_EXE_holdfast")).args(args).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        };
        let (pki, out) = (path("pki").display().to_string(), dir.path().display().to_string());
        run(&["pki", "init", "--dir", &pki]);
        let node = ["pki", "issue", "node", "--dir", &pki, "--id", "2", "--host", "localhost"];
        run(&[&node[..], &["--out", &out]].concat());
        let identity = Identity::load(&path("node-2.pem"), &path("node-2.key")).unwrap();
        let uri = identity.leaf().uri.clone();
        let cluster: ClusterId = uri["spiffe://".len()..][..36].parse().unwrap();
        let signer = identity.node_signer(cluster, NodeId::new(2)).unwrap();
        Self { dir, cluster, signer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn receipt(&self, chain: &[AuditRecord], at: Timestamp) -> String {
        let head = chain[1].head();
        let facts = ReceiptFacts {
            device: DeviceId::from_bytes([1; 16]),
            volume: VolumeId::from_bytes([2; 16]),
            protector: ProtectorId::from_bytes([3; 16]),
            version: KeyVersion::new(7),
            sealed_digest: [0xd1; 32],
            term: 3,
            index: 258,
            audit_sequence: head.sequence,
            audit_hash: head.hash,
            escrowed_at: at,
        };
        let message = v1::Receipt {
            signature: self.signer.sign_receipt(&facts),
            signer_chain: self.signer.chain().to_vec(),
            ..v1::Receipt::default()
        };
        let receipt = Receipt { cluster: self.cluster, facts, node: NodeId::new(2), message };
        receipt.to_file().unwrap()
    }

    fn checkpoint(&self, chain: &[AuditRecord], time: Timestamp) -> String {
        let facts =
            CheckpointFacts { head: chain.last().unwrap().head(), term: 3, index: 300, time };
        let checkpoint = Checkpoint {
            cluster: self.cluster,
            facts,
            node: NodeId::new(2),
            signature: self.signer.sign_checkpoint(&facts),
            signer_chain: self.signer.chain().to_vec(),
        };
        checkpoint.to_line().unwrap()
    }

    fn export(&self, chain: &[AuditRecord]) -> String {
        let head = ExportHead::new(self.cluster, chain.last().unwrap().head(), 9);
        let mut writer = ExportWriter::begin(Vec::new(), head).unwrap();
        for record in chain {
            writer.take(&message(record)).unwrap();
        }
        String::from_utf8(writer.finish().unwrap().0).unwrap()
    }

    fn verify(&self) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/evidence.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(self.path("pki/node-ca.pem"));
        for name in ["receipt", "checkpoint", "export"] {
            command.arg(self.path(name));
        }
        command.output().unwrap()
    }
}

/// A record with nothing but what every record has, one with everything, and another.
fn chain() -> Vec<AuditRecord> {
    let bare = AuditRecord {
        sequence: 1,
        time: Timestamp::from_millis(1_795_392_000_123),
        log_term: 1,
        log_index: 3,
        count: 1,
        actor: Some(Actor::Node(NodeId::new(2))),
        action: AuditAction::Refuse,
        outcome: AuditOutcome::from("ROLE_MISSING"),
        request_id: Some(RequestId::from_bytes([9; 16])),
        device: None,
        volume: None,
        protector: None,
        version: KeyVersion::NONE,
        reason: None,
        user: None,
        ticket: Text::default(),
        detail: Text::default(),
        previous_hash: [0; 32],
    };
    let full = AuditRecord {
        sequence: 2,
        log_index: 5,
        device: Some(DeviceId::from_bytes([1; 16])),
        volume: Some(VolumeId::from_bytes([2; 16])),
        protector: Some(ProtectorId::from_bytes([3; 16])),
        version: KeyVersion::new(7),
        reason: Some(Reason::new("OTHER", "sagte \"müde\" \\ und ging").unwrap()),
        user: Some(User::new("CORP", "eve").unwrap()),
        ticket: Text::name("ticket", "INC-7").unwrap(),
        detail: Text::free("detail", "\u{1f511} \u{2028}").unwrap(),
        previous_hash: bare.hash(),
        ..bare.clone()
    };
    let last = AuditRecord { sequence: 3, previous_hash: full.hash(), ..bare.clone() };
    vec![bare, full, last]
}

fn message(record: &AuditRecord) -> v1::AuditRecord {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    v1::AuditRecord {
        sequence: record.sequence,
        time_ms: record.time.as_millis(),
        actor: text(record.actor.as_ref()),
        action: record.action.to_string(),
        outcome: record.outcome.as_str().to_owned(),
        request_id: text(record.request_id),
        device_id: text(record.device),
        volume_id: text(record.volume),
        protector_id: text(record.protector),
        version: record.version.get(),
        reason: record.reason.as_ref().map(|reason| v1::Reason {
            code: reason.code().to_owned(),
            text: reason.text().to_owned(),
        }),
        user: record.user.as_ref().map(|user| v1::User {
            domain: user.domain().to_owned(),
            name: user.name().to_owned(),
        }),
        ticket: record.ticket.to_string(),
        detail: record.detail.to_string(),
        count: record.count,
        position: Some(v1::LogPosition { term: record.log_term, index: record.log_index }),
        previous_hash: Bytes::copy_from_slice(&record.previous_hash),
        hash: Bytes::copy_from_slice(&record.hash()),
        canonical: record.canonical().into(),
    }
}

#[test]
fn a_verifier_written_from_the_pages_alone_agrees_about_receipts_checkpoints_and_exports() {
    if !python() {
        return;
    }
    let (files, chain) = (Files::new(), chain());
    let now = holdfast::clock::Clock::now(&holdfast::clock::SystemClock);
    let long_ago = Timestamp::from_millis(now.as_millis() - 86_400_000);
    let good = [
        ("receipt", files.receipt(&chain, long_ago)),
        ("checkpoint", files.checkpoint(&chain, now)),
        ("export", files.export(&chain)),
    ];
    for (name, text) in &good {
        write(&files.path(name), text);
    }
    let ran = files.verify();
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "");
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "all of it holds");
    // And it does look.
    let bad = [
        ("receipt", "\"version\": 7", "\"version\": 8", "the signature is wrong"),
        ("receipt", "\"node_id\": 2", "\"node_id\": 3", "signed by"),
        ("checkpoint", "\"term\":3", "\"term\":4", "the signature is wrong"),
        ("export", "INC-7", "INC-8", "record 2 has not its hash"),
        ("export", "\"count\":3", "\"count\":4", "another end"),
    ];
    for (name, from, to, expected) in bad {
        let (_, text) = good.iter().find(|(good, _)| *good == name).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, *text);
        write(&files.path(name), &changed);
        let said = files.verify().stderr;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.starts_with(expected), "{expected}: {said}");
        write(&files.path(name), text);
    }
}
