//! Exports and checkpoints: each way to tamper with them is noticed, and the first bad record is named.

use std::io::BufReader;

use bytes::Bytes;
use holdfast_proto::v1;
use serde_json::{Value, json};

use super::super::*;
use super::checkpoint::checkpoint;
use super::receipt::{facts, signed};
use crate::client::with_causes;
use crate::crypto::testing::{CLUSTER, DEVICE, Order, TestCa, now};
use crate::domain::{
    AuditAction, AuditOutcome, AuditRecord, ClusterId, KeyVersion, ProtectorId, Reason, RequestId,
    Text, User, VolumeId,
};

/// A chain of disclosures; `ticket` makes it another one.
pub(super) fn chain(records: u64, ticket: &str) -> Vec<AuditRecord> {
    let mut chain: Vec<AuditRecord> = Vec::new();
    for sequence in 1..=records {
        let record = AuditRecord {
            sequence,
            time: Timestamp::from_millis(1000 * sequence),
            log_term: 1,
            log_index: 10 + sequence,
            count: 1,
            actor: Some("operator/alice".parse().unwrap()),
            action: AuditAction::Disclose,
            outcome: AuditOutcome::Ok,
            request_id: Some(RequestId::from_bytes([7; 16])),
            device: Some(DEVICE),
            volume: Some(VolumeId::from_bytes([2; 16])),
            protector: Some(ProtectorId::from_bytes([3; 16])),
            version: KeyVersion::new(4),
            reason: Some(Reason::new("OTHER", "said so").unwrap()),
            user: Some(User::new("CORP", "eve").unwrap()),
            ticket: Text::name("ticket", ticket).unwrap(),
            detail: Text::free("detail", "words \"quoted\" and ü").unwrap(),
            previous_hash: chain.last().map_or([0; 32], AuditRecord::hash),
        };
        chain.push(record);
    }
    chain
}

pub(super) fn message(record: &AuditRecord) -> v1::AuditRecord {
    let (reason, user) = (record.reason.as_ref().unwrap(), record.user.as_ref().unwrap());
    v1::AuditRecord {
        sequence: record.sequence,
        time_ms: record.time.as_millis(),
        actor: record.actor.as_ref().unwrap().to_string(),
        action: record.action.to_string(),
        outcome: record.outcome.as_str().to_owned(),
        request_id: record.request_id.unwrap().to_string(),
        device_id: record.device.unwrap().to_string(),
        volume_id: record.volume.unwrap().to_string(),
        protector_id: record.protector.unwrap().to_string(),
        version: record.version.get(),
        reason: Some(v1::Reason { code: reason.code().into(), text: reason.text().into() }),
        user: Some(v1::User { domain: user.domain().into(), name: user.name().into() }),
        ticket: record.ticket.to_string(),
        detail: record.detail.to_string(),
        count: record.count,
        position: Some(v1::LogPosition { term: record.log_term, index: record.log_index }),
        previous_hash: Bytes::copy_from_slice(&record.previous_hash),
        hash: Bytes::copy_from_slice(&record.hash()),
        canonical: record.canonical().into(),
    }
}

fn head(chain: &[AuditRecord], first: u64, last: u64) -> ExportHead {
    let mut head = ExportHead::new(CLUSTER, chain.last().unwrap().head(), 5000);
    (head.first, head.last) = (first, last);
    head.previous_hash = chain[usize::try_from(first).unwrap() - 1].previous_hash;
    head
}

fn export_range(chain: &[AuditRecord], first: u64, last: u64) -> String {
    let mut writer = ExportWriter::begin(Vec::new(), head(chain, first, last)).unwrap();
    for record in chain.iter().filter(|record| (first..=last).contains(&record.sequence)) {
        writer.take(&message(record)).unwrap();
    }
    assert_eq!(writer.next(), None);
    let (text, ..) = writer.finish().unwrap();
    String::from_utf8(text).unwrap()
}

pub(super) fn export(chain: &[AuditRecord]) -> String {
    export_range(chain, 1, u64::try_from(chain.len()).unwrap())
}

fn verify(text: &str, anchors: &[Anchor]) -> Result<VerifiedExport, String> {
    verify_export(text.as_bytes(), anchors).map_err(|error| with_causes(&error))
}

/// The export with its lines changed.
fn tampered(text: &str, tamper: impl FnOnce(&mut Vec<String>)) -> String {
    let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    tamper(&mut lines);
    lines.into_iter().map(|line| line + "\n").collect()
}

/// A line with one of its fields changed; the order of the fields stays.
pub(super) fn with_field(line: &str, name: &str, value: &Value) -> String {
    let at = line.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
    let mut rest = serde_json::Deserializer::from_str(&line[at..]).into_iter::<Value>();
    rest.next().unwrap().unwrap();
    let end = at + rest.byte_offset();
    format!("{}{value}{}", &line[..at], &line[end..])
}

/// Checkpoints of these records of a chain, through a file.
fn anchors(ca: &TestCa, chain: &[AuditRecord], records: &[usize]) -> Vec<Anchor> {
    let lines = records.iter().map(|n| checkpoint(ca, chain[n - 1].head()).to_line().unwrap());
    let file: String = lines.collect();
    let read = Checkpoint::read_all(BufReader::new(file.as_bytes()), &ca.authority(), now());
    read.unwrap().iter().map(Anchor::from).collect()
}

#[test]
fn an_export_holds_by_itself_and_up_to_what_a_checkpoint_shows() {
    let (ca, chain) = (TestCa::new("node"), chain(9, "INC-7"));
    let text = export(&chain);
    let held = verify(&text, &[]).unwrap();
    assert_eq!((held.records, held.end, held.anchors), (9, chain[8].head(), 0));
    let held = verify(&text, &anchors(&ca, &chain, &[3, 6])).unwrap();
    assert_eq!((held.anchors, held.known_to), (2, 6));
    assert_eq!(verify(&text, &anchors(&ca, &chain, &[9])).unwrap().known_to, 9);
}

#[test]
fn an_edited_record_is_named_whichever_field_was_edited() {
    let text = export(&chain(9, "INC-7"));
    let line: Value = serde_json::from_str(text.lines().nth(5).unwrap()).unwrap();
    let fields = line.as_object().unwrap();
    assert_eq!(fields.len(), 22);
    for (name, value) in fields {
        let other = match value {
            Value::Number(number) => json!(number.as_u64().unwrap() + 1),
            Value::String(text) if name.contains("hash") => json!(text.replace('0', "1")),
            Value::String(text) if name == "line" => json!(format!("x{text}")),
            Value::String(_) if name == "actor" => json!("operator/mallory"),
            Value::String(_) if name == "action" => json!("find"),
            Value::String(_) if name == "reason_code" => json!("LOST_PIN"),
            Value::String(_) if name.ends_with("_id") => {
                json!(DEVICE.to_string().replace('d', "e"))
            }
            Value::String(text) => json!(format!("{text}x")),
            other => panic!("{other}"),
        };
        let edited = tampered(&text, |lines| lines[5] = with_field(&lines[5], name, &other));
        assert_ne!(edited, text, "{name}");
        let error = verify(&edited, &[]).unwrap_err();
        let what = if name == "line" { "unknown variant" } else { "record 5 does not continue" };
        assert!(error.starts_with("line 6: ") && error.contains(what), "{name}: {error}");
    }
}

#[test]
fn a_record_edited_together_with_its_hash_shows_at_the_one_after_it() {
    let mut chain = chain(9, "INC-7");
    let text = export(&chain);
    chain[4].ticket = Text::name("ticket", "INC-8").unwrap();
    let hash = json!(hex::encode(chain[4].hash()));
    let edited = tampered(&text, |lines| {
        let line = with_field(&lines[5], "ticket", &json!("INC-8"));
        lines[5] = with_field(&line, "hash", &hash);
    });
    let error = verify(&edited, &[]).unwrap_err();
    assert!(error.contains("audit record 6") && error.contains("previous hash"), "{error}");
}

#[test]
fn a_deleted_a_reordered_and_an_inserted_record_are_named() {
    let text = export(&chain(9, "INC-7"));
    let deleted = tampered(&text, |lines| drop(lines.remove(5)));
    let error = verify(&deleted, &[]).unwrap_err();
    assert!(error.contains("audit record 5 ") && error.contains("its number is 6"), "{error}");
    let reordered = tampered(&text, |lines| lines.swap(5, 6));
    let error = verify(&reordered, &[]).unwrap_err();
    assert!(error.contains("audit record 5 ") && error.contains("its number is 6"), "{error}");
    let inserted = tampered(&text, |lines| lines.insert(6, lines[5].clone()));
    let error = verify(&inserted, &[]).unwrap_err();
    assert!(error.contains("audit record 6 ") && error.contains("its number is 5"), "{error}");
    let foreign = export(&chain(9, "INC-8"));
    let replaced = tampered(&text, |lines| {
        lines[6] = foreign.lines().nth(6).unwrap().to_owned();
    });
    let error = verify(&replaced, &[]).unwrap_err();
    assert!(error.contains("audit record 6 ") && error.contains("previous hash"), "{error}");
}

#[test]
fn an_export_cut_off_at_any_byte_is_refused() {
    let text = export(&chain(3, "INC-7"));
    for length in 0..text.len() {
        let cut = verify_export(&text.as_bytes()[..length], &[]);
        assert!(cut.is_err(), "{length} of {} bytes", text.len());
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let error = verify(&lines[..3].concat(), &[]).unwrap_err();
    assert_eq!(error, "it was cut off after record 2: the line that ends an export is missing");
    let error = verify(text.trim_end(), &[]).unwrap_err();
    assert_eq!(error, "line 5: it was cut off in the middle of a line");
}

#[test]
fn no_byte_of_a_record_can_be_changed() {
    let text = export(&chain(2, "INC-7"));
    let first = text.find('\n').unwrap() + 1;
    let end = text[first..].rfind("{\"line\":\"end\"").unwrap() + first;
    for at in first..end {
        for with in [1, 2, 0x20, 0x80] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= with;
            assert!(verify_export(bytes.as_slice(), &[]).is_err(), "byte {at} ^ {with}");
        }
    }
}

#[test]
fn a_tail_that_was_cut_off_with_header_and_end_made_to_fit_shows_against_a_checkpoint() {
    let (ca, whole) = (TestCa::new("node"), chain(9, "INC-7"));
    let cut = export(&whole[..7]);
    verify(&cut, &[]).unwrap();
    verify(&cut, &anchors(&ca, &whole, &[7])).unwrap();
    let error = verify(&cut, &anchors(&ca, &whole, &[4, 9])).unwrap_err();
    assert!(error.starts_with("it ends at record 7, but the checkpoint that node 2"), "{error}");
    assert!(error.contains("shows that record 9 exists"), "{error}");
}

#[test]
fn a_chain_forged_as_a_whole_shows_against_a_checkpoint() {
    let (ca, whole) = (TestCa::new("node"), chain(9, "INC-7"));
    let forged = export(&chain(9, "INC-8"));
    verify(&forged, &[]).unwrap();
    let error = verify(&forged, &anchors(&ca, &whole, &[8])).unwrap_err();
    assert!(error.contains("record 8 has another hash than the checkpoint that node 2"), "{error}");
    // With more checkpoints it shows between which records it was forged.
    let mut rest = whole.clone();
    rest[4].ticket = Text::name("ticket", "INC-8").unwrap();
    for n in 5..9 {
        rest[n].previous_hash = rest[n - 1].hash();
    }
    let rest = export(&rest);
    verify(&rest, &[]).unwrap();
    let error = verify(&rest, &anchors(&ca, &whole, &[2, 4, 7, 9])).unwrap_err();
    assert!(error.contains("record 7 has another hash"), "{error}");
    assert!(error.ends_with("and after record 4, which is as known"), "{error}");
    // A receipt shows it as well.
    let mut facts = facts(now());
    (facts.audit_sequence, facts.audit_hash) = (6, whole[5].hash());
    let receipt = Anchor::from(&signed(&ca.make(&Order::node(1)), facts));
    assert_eq!(verify(&export(&whole), std::slice::from_ref(&receipt)).unwrap().known_to, 6);
    let error = verify(&rest, &[receipt]).unwrap_err();
    assert!(error.contains("than the receipt of key"), "{error}");
}

#[test]
fn a_range_is_verified_from_the_record_before_it_on() {
    let (ca, chain) = (TestCa::new("node"), chain(9, "INC-7"));
    let text = export_range(&chain, 4, 7);
    assert_eq!(verify(&text, &[]).unwrap().records, 4);
    for n in [3, 4, 7] {
        assert_eq!(verify(&text, &anchors(&ca, &chain, &[n])).unwrap().anchors, 1, "{n}");
    }
    let error = verify(&text, &anchors(&ca, &chain, &[2])).unwrap_err();
    assert!(error.contains("is about record 2, which comes before record 4"), "{error}");
    let error = verify(&text, &anchors(&ca, &chain, &[5, 8])).unwrap_err();
    assert!(error.contains("shows that record 8 exists"), "{error}");
    let other = tampered(&text, |lines| {
        lines[0] = with_field(&lines[0], "previous_hash", &json!("11".repeat(32)));
    });
    let error = verify(&other, &[]).unwrap_err();
    assert!(error.contains("audit record 4") && error.contains("previous hash"), "{error}");
}

#[test]
fn an_export_of_another_cluster_than_the_checkpoint_is_named_as_such() {
    let (ca, chain) = (TestCa::new("node"), chain(3, "INC-7"));
    let other = json!(ClusterId::from_bytes([1; 16]).to_string());
    let text = tampered(&export(&chain), |lines| {
        lines[0] = with_field(&lines[0], "cluster_id", &other);
    });
    let error = verify(&text, &anchors(&ca, &chain, &[3])).unwrap_err();
    assert!(error.starts_with("it is of cluster 01010101"), "{error}");
}

#[test]
fn what_does_not_belong_into_an_export_is_refused() {
    let text = export(&chain(3, "INC-7"));
    let line = |n: usize| text.lines().nth(n).unwrap().to_owned();
    let cases: [(&str, String); 9] = [
        ("line 1: an export must begin with its header", tampered(&text, |l| drop(l.remove(0)))),
        ("line 3: a second header", tampered(&text, |l| l.insert(2, line(0)))),
        ("line 6: something follows", tampered(&text, |l| l.push(line(1)))),
        ("line 4: its last record is 2, not 3", tampered(&text, |l| drop(l.remove(3)))),
        ("line 1: it is no well-formed", tampered(&text, |l| l[0] = "{".to_owned())),
        ("line 2: it is no well-formed", tampered(&text, |l| l[1].insert(1, ' '))),
        ("line 1: its format is", text.replace("export v1", "export v2")),
        ("line 5: its number of records is 3, not 4", text.replace("\"count\":3", "\"count\":4")),
        ("it is empty", String::new()),
    ];
    for (expected, text) in cases {
        let error = verify(&text, &[]).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let first = tampered(&text, |lines| lines[0] = with_field(&lines[0], "first", &json!(0)));
    assert!(verify(&first, &[]).unwrap_err().contains("first, last"));
    let head = json!("11".repeat(32));
    let head = tampered(&text, |lines| lines[0] = with_field(&lines[0], "head_hash", &head));
    assert!(verify(&head, &[]).unwrap_err().contains("its head is"));
}

#[test]
fn a_line_without_an_end_is_not_read_to_its_end() {
    let text = export(&chain(2, "INC-7"));
    let header = text.lines().next().unwrap().to_owned() + "\n";
    let endless = std::io::Read::chain(header.as_bytes(), std::io::repeat(b'x'));
    let error = verify_export(BufReader::new(endless), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 2: it is no line of such a file: it has more than 65536 bytes"
    );
}

#[test]
fn an_export_interrupted_at_any_byte_goes_on_to_the_same_file() {
    let chain = chain(3, "INC-7");
    let text = export(&chain);
    let header = text.find('\n').unwrap() + 1;
    for length in header..=text.len() {
        let left = resumable(&text.as_bytes()[..length]).unwrap();
        let mut kept = text.as_bytes()[..usize::try_from(left.length).unwrap()].to_vec();
        if left.complete {
            assert_eq!(length, text.len());
        } else {
            let mut writer = ExportWriter::resume(&mut kept, left);
            while let Some(next) = writer.next() {
                writer.take(&message(&chain[usize::try_from(next).unwrap() - 1])).unwrap();
            }
            writer.finish().unwrap();
        }
        assert_eq!(String::from_utf8(kept).unwrap(), text, "{length}");
    }
    // What was changed meanwhile is not gone on with.
    let edited = text.replacen("INC-7", "INC-8", 1);
    assert!(resumable(edited.as_bytes()).unwrap_err().to_string().contains("record 1"));
}

#[test]
fn no_export_is_made_of_a_chain_that_does_not_hold_or_is_not_whole() {
    let chain = chain(3, "INC-7");
    let mut writer = ExportWriter::begin(Vec::new(), head(&chain, 1, 3)).unwrap();
    writer.take(&message(&chain[0])).unwrap();
    let error = writer.take(&message(&chain[2])).unwrap_err();
    assert!(error.to_string().contains("audit record 2 "), "{error}");
    let error = writer.finish().unwrap_err();
    assert_eq!(error.to_string(), "its last record is 1, not 3");
    let mut head = head(&chain, 1, 3);
    head.head_hash = [1; 32];
    let mut writer = ExportWriter::begin(Vec::new(), head).unwrap();
    for record in &chain {
        writer.take(&message(record)).unwrap();
    }
    assert!(writer.finish().unwrap_err().to_string().contains("its head is"));
}
