//! No audit, no key: what a server without a majority gives out, and what a repeated disclosure leaves behind.

use holdfast::cli::local_cluster::http_get;
use holdfast::client::{AuditFilter, Client, ErrorKind, KeyQuery, Method, new_request_id};
use holdfast::domain::ProtectorId;
use holdfast_proto::v1;
use prost::Message as _;

use crate::harness::{Harness, LIMIT, disclosure, new_escrow, new_key};

fn request(protector: ProtectorId) -> v1::DiscloseKeyRequest {
    v1::DiscloseKeyRequest {
        request_id: new_request_id(),
        protector_id: protector.to_string(),
        reason: Some(v1::Reason { code: "LOST_PIN".to_owned(), text: String::new() }),
        user: Some(v1::User { domain: "CORP".to_owned(), name: "alice".to_owned() }),
        ..Default::default()
    }
}

async fn opened_since_start(harness: &Harness, node: u64) -> String {
    let address = harness.cluster.node(node).unwrap().ports().http_address();
    let (_, page) = http_get(&address, "/metrics").await.unwrap();
    let line = page.lines().find(|line| line.starts_with("holdfast_disclosures_total ")).unwrap();
    line.to_owned()
}

async fn outcomes(client: &Client, protector: ProtectorId) -> Vec<(String, String)> {
    let filter = AuditFilter {
        protector: protector.to_string(),
        action: "disclose".to_owned(),
        ..AuditFilter::default()
    };
    let mut listing = client.audit_records(&filter);
    let mut found = Vec::new();
    while let Some(page) = listing.next().await.unwrap() {
        found.extend(page.into_iter().map(|record| (record.request_id, record.outcome)));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_quorum_discloses_nothing_until_the_record_is_committed() {
    let mut harness = Harness::start().await;
    let (escrow, key) = (new_escrow(harness.device), new_key());
    harness.client(&harness.agent).escrow(&escrow, &key, None).await.unwrap();
    // The leader stays: it could take the command into its log, but nobody confirms it.
    let left = harness.cluster.leader().await.unwrap();
    let address = harness.cluster.node(left).unwrap().ports().client_address();
    let helen = harness.hasty(&address, &harness.cluster.client_ca(), &harness.help_desk);
    helen.disclose(&disclosure(escrow.protector)).await.unwrap();
    let opened = opened_since_start(&harness, left).await;

    for other in (1..=3).filter(|id| *id != left) {
        harness.cluster.kill_node(other).await.unwrap();
    }
    // At once, while it still thinks that it leads, and again when it knows better.
    let message = request(escrow.protector);
    for _ in 0..2 {
        let bytes = message.encode_to_vec().into();
        let refused = helen.exchange(Method::DiscloseKey, bytes).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        let said = format!("{refused} {refused:?}");
        assert!(!said.contains(key.expose_secret()) && !said.contains(&key.expose_secret()[..6]));
    }
    let refused = helen.find_keys(KeyQuery::Protector(escrow.protector)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert_eq!(opened_since_start(&harness, left).await, opened, "no key was opened");

    for other in (1..=3).filter(|id| *id != left) {
        harness.cluster.start_node(other).await.unwrap();
    }
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
    // Whether the first attempt came to be committed nobody could know; asked again, it is answered, and on record.
    let bytes = message.encode_to_vec().into();
    let helen = harness.client(&harness.help_desk);
    let answer = helen.exchange(Method::DiscloseKey, bytes).await.unwrap();
    let answer = v1::DiscloseKeyResponse::decode(answer).unwrap();
    assert_eq!(answer.recovery_key, key.expose_secret());
    let arthur = harness.client(&harness.auditor);
    let records = outcomes(&arthur, escrow.protector).await;
    let own: Vec<_> = records.iter().filter(|(id, _)| *id == message.request_id).collect();
    assert!(!own.is_empty(), "{records:?}");
    assert_eq!(own[0].1, "ok", "the first record of a disclosure is its own: {records:?}");
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_disclosure_is_answered_again_with_a_record_of_its_own() {
    let harness = Harness::start().await;
    let (escrow, key) = (new_escrow(harness.device), new_key());
    harness.client(&harness.agent).escrow(&escrow, &key, None).await.unwrap();
    let message = request(escrow.protector);
    let mut answers = Vec::new();
    // By another server each time: the request is remembered by the cluster, not by a node.
    for node in [1, 2, 3] {
        let helen = harness.client_of_node(node, &harness.help_desk);
        let bytes = message.encode_to_vec().into();
        let answer = helen.exchange(Method::DiscloseKey, bytes).await.unwrap();
        answers.push(v1::DiscloseKeyResponse::decode(answer).unwrap());
    }
    assert!(answers.iter().all(|answer| answer.recovery_key == key.expose_secret()));
    let repeated: Vec<_> = answers.iter().map(|answer| answer.repeated).collect();
    assert_eq!(repeated, [false, true, true]);
    let heads: Vec<_> = answers.iter().map(|a| a.audit.as_ref().unwrap().sequence).collect();
    assert!(heads.windows(2).all(|pair| pair[0] < pair[1]), "{heads:?}");
    let arthur = harness.client(&harness.auditor);
    let records = outcomes(&arthur, escrow.protector).await;
    let found: Vec<_> = records.iter().map(|(_, outcome)| outcome.as_str()).collect();
    assert_eq!(found, ["ok", "repeated", "repeated"]);
    // Another body under the same id is another request, and is refused.
    let other = v1::DiscloseKeyRequest { ticket: "INC-1".to_owned(), ..message };
    let helen = harness.client(&harness.help_desk);
    let refused = helen.exchange(Method::DiscloseKey, other.encode_to_vec().into()).await;
    let refused = refused.unwrap_err();
    assert_eq!((refused.kind(), refused.reason()), (ErrorKind::Conflict, "REQUEST_ID_REUSED"));
}
