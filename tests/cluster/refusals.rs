//! Bad input: refused as a whole, with the field or the reason named, and nothing half-done.

use bytes::Bytes;
use holdfast::client::{
    Client, ClientError, DisclosureRequest, ErrorKind, Method, NewEscrow, SealedEscrow,
    new_request_id,
};
use holdfast::domain::{KeyVersion, ProtectorId, Reason, Text, VolumeId};
use holdfast_proto::v1;
use prost::Message as _;
use uuid::Uuid;

use crate::harness::{Harness, disclosure, new_escrow, new_key};

async fn send(
    client: &Client,
    message: &v1::EscrowRecoveryKeyRequest,
) -> Result<Bytes, ClientError> {
    client.exchange(Method::EscrowRecoveryKey, message.encode_to_vec().into()).await
}

async fn sealed(client: &Client, escrow: &NewEscrow) -> SealedEscrow {
    client.seal(escrow, &new_key(), None).await.unwrap()
}

/// Asserts how a call was refused.
#[track_caller]
fn refused<T>(result: Result<T, ClientError>, kind: ErrorKind, names: &str) {
    let Err(error) = result else { panic!("it was taken, expected {names}") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(names), "{error} does not name {names}");
}

#[tokio::test(flavor = "multi_thread")]
async fn escrows_that_contradict_the_state_are_refused_and_change_nothing() {
    let harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let first = new_escrow(harness.device);
    let original = sealed(&agent, &first).await;
    let receipt = agent.send(&original).await.unwrap();

    let mut other = sealed(&agent, &first).await.message().clone();
    other.request_id.clone_from(&original.message().request_id);
    refused(send(&agent, &other).await, ErrorKind::Conflict, "REQUEST_ID_REUSED");
    refused(agent.send(&sealed(&agent, &first).await).await, ErrorKind::Conflict, "STALE_VERSION");
    let mut ahead = first.clone();
    ahead.expected_version = KeyVersion::new(7);
    ahead.protector = ProtectorId::new(Uuid::new_v4());
    refused(agent.send(&sealed(&agent, &ahead).await).await, ErrorKind::Conflict, "STALE_VERSION");
    let mut taken = new_escrow(harness.device);
    taken.protector = first.protector;
    refused(agent.send(&sealed(&agent, &taken).await).await, ErrorKind::Conflict, "FOREIGN_VOLUME");
    let mut unknown = sealed(&agent, &new_escrow(harness.device)).await.message().clone();
    unknown.sealed_key.as_mut().unwrap().epoch = 9;
    refused(send(&agent, &unknown).await, ErrorKind::Conflict, "UNKNOWN_EPOCH");
    // After all that, the first one still stands as it was, and its retry gets the same receipt.
    assert_eq!(agent.send(&original).await.unwrap().facts, receipt.facts);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_holds_at_the_api_and_one_more_is_refused_by_name() {
    let harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let base = sealed(&agent, &new_escrow(harness.device)).await.message().clone();
    let with = |change: &dyn Fn(&mut v1::EscrowRecoveryKeyRequest)| {
        let mut message = base.clone();
        message.request_id = new_request_id();
        change(&mut message);
        message
    };
    let user = |name: String| v1::User { domain: String::new(), name };
    let blob = |bytes: usize| v1::SealedKey {
        epoch: 1,
        encapsulated_key: vec![7; 32].into(),
        ciphertext: vec![7; bytes].into(),
    };
    type Change<'a> = Box<dyn Fn(&mut v1::EscrowRecoveryKeyRequest) + 'a>;
    let bad: Vec<(&str, Change<'_>)> = vec![
        ("host_name", Box::new(|m| m.host_name = "x".repeat(257))),
        ("users", Box::new(|m| m.users = vec![user("a".to_owned()); 33])),
        ("users[0].name", Box::new(|m| m.users = vec![user("x".repeat(257))])),
        ("sealed_key.ciphertext", Box::new(|m| m.sealed_key = Some(blob(1025)))),
        (
            "sealed_key_package.ciphertext",
            Box::new(|m| m.sealed_key_package = Some(blob(64 * 1024 + 1))),
        ),
        ("sealed_key", Box::new(|m| m.sealed_key = None)),
        ("device_id", Box::new(|m| m.device_id = "laptop".to_owned())),
        ("volume_id", Box::new(|m| m.volume_id = String::new())),
        ("protector_id", Box::new(|m| m.protector_id = "1854c11f".to_owned())),
        ("protector_kind", Box::new(|m| m.protector_kind = 0)),
        ("request_id", Box::new(|m| m.request_id = String::new())),
    ];
    for (field, change) in &bad {
        refused(send(&agent, &with(change)).await, ErrorKind::Invalid, field);
    }
    let large = with(&|m| m.sealed_key_package = Some(blob(1024 * 1024)));
    refused(send(&agent, &large).await, ErrorKind::Invalid, "");
    // All of them at their limits are taken.
    let most = with(&|m| {
        m.host_name = "x".repeat(256);
        m.users = (0..32).map(|n| user(format!("user{n}"))).collect();
        m.sealed_key = Some(blob(1024));
        m.sealed_key_package = Some(blob(64 * 1024));
    });
    send(&agent, &most).await.unwrap();

    let helen = harness.client(&harness.help_desk);
    let mut long: DisclosureRequest = disclosure(ProtectorId::new(Uuid::new_v4()));
    long.ticket = Text::name("ticket", "x".repeat(256)).unwrap();
    long.reason = Reason::new("OTHER", "x".repeat(1024)).unwrap();
    refused(helen.disclose(&long).await, ErrorKind::NotFound, "UNKNOWN_KEY");
    let reason = v1::Reason { code: "OTHER".to_owned(), text: "x".repeat(1025) };
    let message = v1::DiscloseKeyRequest {
        request_id: new_request_id(),
        protector_id: long.protector.to_string(),
        reason: Some(reason),
        ..Default::default()
    };
    let sent = helen.exchange(Method::DiscloseKey, message.encode_to_vec().into()).await;
    refused(sent, ErrorKind::Invalid, "reason.text");
    let rita = harness.client(&harness.reader);
    refused(rita.devices(1001, "", false).await, ErrorKind::Invalid, "page_size");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_at_most_64_volumes_and_a_report_names_no_more() {
    let harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let report = |volumes: usize| v1::ReportComplianceRequest {
        device_id: harness.device.to_string(),
        volumes: (0..volumes)
            .map(|_| v1::VolumeCompliance {
                volume_id: VolumeId::new(Uuid::new_v4()).to_string(),
                volume_kind: v1::VolumeKind::FixedData.into(),
                status: v1::ComplianceStatus::Compliant.into(),
                encryption_state: v1::EncryptionState::Encrypted.into(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    refused(agent.report_compliance(report(65)).await, ErrorKind::Invalid, "volumes");
    agent.report_compliance(report(64)).await.unwrap();
    let one_more = sealed(&agent, &new_escrow(harness.device)).await;
    refused(agent.send(&one_more).await, ErrorKind::Exhausted, "TOO_MANY_VOLUMES");
}
