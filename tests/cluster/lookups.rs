//! Finding: who has which keys, what is unknown or somebody else's, and what a refusal leaves behind.

use holdfast::client::{
    AuditFilter, Client, ClientError, ErrorKind, KeyQuery, Method, NewEscrow, SealedEscrow,
    new_request_id,
};
use holdfast::domain::{DeviceId, KeyVersion, ProtectorId, VolumeId};
use holdfast_proto::v1;
use prost::Message as _;
use uuid::Uuid;

use crate::harness::{Harness, LIMIT, disclosure, new_escrow, new_key};

#[track_caller]
fn refused<T>(result: Result<T, ClientError>, kind: ErrorKind, reason: &str) {
    let Err(error) = result else { panic!("it was taken, expected {reason}") };
    assert_eq!((error.kind(), error.reason()), (kind, reason), "{error}");
}

/// A key id with these first eight digits.
fn protector(prefix: [u8; 4]) -> ProtectorId {
    let mut bytes = *Uuid::new_v4().as_bytes();
    bytes[..4].copy_from_slice(&prefix);
    ProtectorId::from_bytes(bytes)
}

fn ids(found: &v1::FindKeysResponse) -> Vec<&str> {
    found.keys.iter().map(|key| key.protector_id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_digits_that_match_several_keys_answer_every_candidate() {
    let harness = Harness::start().await;
    let prefix = [0x18, 0x54, 0xc1, 0x1f];
    let neighbour = [0x18, 0x54, 0xc1, 0x20];
    let second = DeviceId::new(Uuid::new_v4());
    let other_agent = harness.client(&harness.cluster.agent(second).unwrap());
    let agent = harness.client(&harness.agent);
    let mut same = Vec::new();
    for (client, device, begins) in [
        (&agent, harness.device, prefix),
        (&agent, harness.device, prefix),
        (&other_agent, second, prefix),
        (&other_agent, second, neighbour),
    ] {
        let mut escrow = new_escrow(device);
        escrow.protector = protector(begins);
        client.escrow(&escrow, &new_key(), None).await.unwrap();
        if begins == prefix {
            same.push((escrow.protector.to_string(), device.to_string()));
        }
    }
    same.sort();
    for node in [1, 2, 3] {
        let helen = harness.client_of_node(node, &harness.help_desk);
        let digits = same[0].0[..8].parse().unwrap();
        let found = helen.find_keys(KeyQuery::Prefix(digits)).await.unwrap();
        let candidates: Vec<_> =
            found.keys.iter().map(|k| (k.protector_id.clone(), k.device_id.clone())).collect();
        assert_eq!(candidates, same, "in the order of their ids, and none of another prefix");
        assert!(!found.truncated);
        let exact = KeyQuery::Protector(same[1].0.parse().unwrap());
        assert_eq!(ids(&helen.find_keys(exact).await.unwrap()), [same[1].0.as_str()]);
    }
    let listed = ["key", "find", "1854C11F", "-o", "json"];
    let listed = harness.run(&harness.help_desk, &listed).await.ends_with(0).json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 3);
    // A candidate is no answer yet: to disclose takes all 32 digits.
    let short = ["key", "disclose", "1854c11f", "--reason", "LOST_PIN", "--user", "CORP\\alice"];
    harness.run(&harness.help_desk, &short).await.ends_with(2);
}

/// What an outsider sees of a device: everything but when it last called.
async fn seen(harness: &Harness) -> (v1::Device, Vec<v1::KeySummary>) {
    let device = harness.client(&harness.reader).device(harness.device, false).await.unwrap();
    let found = harness.client(&harness.help_desk);
    let found = found.find_keys(KeyQuery::Device(harness.device)).await.unwrap();
    (device.device.unwrap(), found.keys)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_or_somebody_elses_is_refused_by_name_and_nothing_changes() {
    let mut harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let helen = harness.client(&harness.help_desk);
    let first = new_escrow(harness.device);
    let original = agent.seal(&first, &new_key(), None).await.unwrap();
    agent.send(&original).await.unwrap();
    let before = seen(&harness).await;

    let (nobody, nowhere) = (DeviceId::new(Uuid::new_v4()), VolumeId::new(Uuid::new_v4()));
    refused(helen.find_keys(KeyQuery::Device(nobody)).await, ErrorKind::NotFound, "UNKNOWN_DEVICE");
    let elsewhere = KeyQuery::Volume(nobody, first.volume);
    refused(helen.find_keys(elsewhere).await, ErrorKind::NotFound, "UNKNOWN_DEVICE");
    let unknown = KeyQuery::Volume(harness.device, nowhere);
    refused(helen.find_keys(unknown).await, ErrorKind::NotFound, "UNKNOWN_VOLUME");
    let unknown = disclosure(ProtectorId::new(Uuid::new_v4()));
    refused(helen.disclose(&unknown).await, ErrorKind::NotFound, "UNKNOWN_KEY");
    let mut never = disclosure(first.protector);
    never.version = KeyVersion::new(2);
    refused(helen.disclose(&never).await, ErrorKind::NotFound, "UNKNOWN_KEY");

    // Another device, with a certificate of its own: neither its name nor its keys are of use to it.
    let stranger = DeviceId::new(Uuid::new_v4());
    let mallory = harness.client(&harness.cluster.agent(stranger).unwrap());
    let stolen = mallory.send(&original).await;
    refused(stolen, ErrorKind::Denied, "FOREIGN_DEVICE");
    let report = v1::ReportComplianceRequest {
        request_id: new_request_id(),
        device_id: harness.device.to_string(),
        host_name: "taken over".to_owned(),
        ..Default::default()
    };
    refused(mallory.report_compliance(report).await, ErrorKind::Denied, "FOREIGN_DEVICE");
    let mut taken = new_escrow(stranger);
    (taken.volume, taken.protector) = (first.volume, first.protector);
    let taken = mallory.seal(&taken, &new_key(), None).await.unwrap();
    refused(mallory.send(&taken).await, ErrorKind::Conflict, "FOREIGN_VOLUME");
    let stale = agent.seal(&first, &new_key(), None).await.unwrap();
    refused(agent.send(&stale).await, ErrorKind::Conflict, "STALE_VERSION");
    for _ in 0..5 {
        refused(helen.audit_head(false).await, ErrorKind::Denied, "ROLE_MISSING");
    }

    let after = seen(&harness).await;
    assert_eq!(after, before, "a refusal changes nothing");
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    check_records(&mut harness).await;
}

/// Each refusal by the state machine has its record, those at the gate have one for all of a kind, with their number.
async fn check_records(harness: &mut Harness) {
    // A server that stops records what it has counted.
    for node in [1, 2, 3] {
        harness.cluster.stop_node(node).await.unwrap();
        harness.cluster.start_node(node).await.unwrap();
        harness.cluster.wait_healthy(LIMIT).await.unwrap();
    }
    let arthur = harness.client(&harness.auditor);
    let mut counts = std::collections::BTreeMap::new();
    for record in records(&arthur, &AuditFilter::default()).await {
        if record.outcome != "ok" {
            let (calls, lines) = counts.entry(record.outcome).or_insert((0, 0));
            *calls += record.count;
            *lines += 1;
        }
    }
    let found: Vec<_> = counts.iter().map(|(outcome, n)| (outcome.as_str(), n.0)).collect();
    let expected = [
        ("FOREIGN_DEVICE", 2),
        ("FOREIGN_VOLUME", 1),
        ("ROLE_MISSING", 5),
        ("STALE_VERSION", 1),
        ("UNKNOWN_DEVICE", 2),
        ("UNKNOWN_KEY", 2),
        ("UNKNOWN_VOLUME", 1),
    ];
    assert_eq!(found, expected);
    // The client keeps to one server, so all five lie on one node, and at most one minute's end parts them.
    assert!(counts["ROLE_MISSING"].1 <= 2, "{counts:?}");

    // Every filter of a listing, over the wire.
    let all = records(&arthur, &AuditFilter::default()).await;
    let stale = all.iter().find(|record| record.outcome == "STALE_VERSION");
    let refusal = stale.unwrap().clone();
    let filter = AuditFilter { action: "escrow".to_owned(), ..AuditFilter::default() };
    assert_eq!(records(&arthur, &filter).await.len(), 3);
    let filter = AuditFilter { actor: refusal.actor.clone(), ..filter };
    assert_eq!(records(&arthur, &filter).await.len(), 2);
    let filter = AuditFilter { protector: refusal.protector_id.clone(), ..filter };
    let filter = AuditFilter { device: harness.device.to_string(), ..filter };
    assert_eq!(records(&arthur, &filter).await.len(), 2);
    let filter = AuditFilter { since_ms: refusal.time_ms, ..filter };
    assert_eq!(records(&arthur, &filter).await, std::slice::from_ref(&refusal));
    let filter = AuditFilter { until_ms: refusal.time_ms + 1, ..filter };
    assert_eq!(records(&arthur, &filter).await, std::slice::from_ref(&refusal));
    let one = AuditFilter { first: refusal.sequence, last: refusal.sequence, ..filter };
    assert_eq!(records(&arthur, &one).await, std::slice::from_ref(&refusal));
    let none = AuditFilter { first: refusal.sequence + 1, last: 0, ..one };
    assert!(records(&arthur, &none).await.is_empty());
}

async fn records(client: &Client, filter: &AuditFilter) -> Vec<v1::AuditRecord> {
    let mut listing = client.audit_records(filter);
    let mut all = Vec::new();
    while let Some(page) = listing.next().await.unwrap() {
        all.extend(page);
    }
    all
}

/// The sealed escrow as a message, changed, under a request id of its own.
fn changed(
    sealed: &SealedEscrow,
    change: impl FnOnce(&mut v1::EscrowRecoveryKeyRequest),
) -> v1::EscrowRecoveryKeyRequest {
    let mut message = sealed.message().clone();
    message.request_id = new_request_id();
    change(&mut message);
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_key_that_is_sent_with_any_associated_field_changed_never_opens() {
    let harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let helen = harness.client(&harness.help_desk);
    let stranger = DeviceId::new(Uuid::new_v4());
    let mallory = harness.client(&harness.cluster.agent(stranger).unwrap());
    let older = new_escrow(harness.device);
    agent.escrow(&older, &new_key(), None).await.unwrap();
    let mut next = new_escrow(harness.device);
    next.volume = older.volume;
    let id = || Uuid::new_v4().to_string();
    type Change<'a> = Box<dyn FnOnce(&mut v1::EscrowRecoveryKeyRequest) + 'a>;
    let new = || new_escrow(harness.device);
    let cases: [(&str, &Client, NewEscrow, Change<'_>); 5] = [
        ("device", &mallory, new(), Box::new(|m| m.device_id = stranger.to_string())),
        ("volume", &agent, new(), Box::new(|m| m.volume_id = id())),
        ("key id", &agent, new(), Box::new(|m| m.protector_id = id())),
        (
            "kind",
            &agent,
            new(),
            Box::new(|m| m.protector_kind = v1::ProtectorKind::Luks2RecoveryKey.into()),
        ),
        // Sealed as the first version of a volume that has one.
        ("version", &agent, next, Box::new(|m| m.expected_version = 1)),
    ];
    for (field, who, escrow, change) in cases {
        let sealed = agent.seal(&escrow, &new_key(), None).await.unwrap();
        never_opens(field, who, &helen, &changed(&sealed, change)).await;
    }
    // An epoch that the cluster never had is refused at once.
    let fresh = agent.seal(&new(), &new_key(), None).await.unwrap();
    let message = changed(&fresh, |m| m.sealed_key.as_mut().unwrap().epoch = 2);
    let sent = agent.exchange(Method::EscrowRecoveryKey, message.encode_to_vec().into()).await;
    refused(sent, ErrorKind::Conflict, "UNKNOWN_EPOCH");
    // A control: what is sent as it was sealed opens.
    let message = changed(&fresh, |_| ());
    let sent = agent.exchange(Method::EscrowRecoveryKey, message.encode_to_vec().into()).await;
    sent.unwrap();
    helen.disclose(&disclosure(message.protector_id.parse().unwrap())).await.unwrap();
}

/// A server can't see into what is sealed, so it takes the message; whoever asks for the key is told that it's damaged.
async fn never_opens(
    field: &str,
    who: &Client,
    helen: &Client,
    message: &v1::EscrowRecoveryKeyRequest,
) {
    let sent = who.exchange(Method::EscrowRecoveryKey, message.encode_to_vec().into()).await;
    sent.unwrap_or_else(|error| panic!("{field}: {error}"));
    let wanted = disclosure(message.protector_id.parse().unwrap());
    let error = helen.disclose(&wanted).await.map(drop).unwrap_err();
    assert_eq!(error.reason(), "INTEGRITY_CHECK_FAILED", "{field}: {error}");
    assert_eq!(error.kind(), ErrorKind::Integrity, "{field}");
}
