//! What becomes of calls that are open when their caller is denied.

use holdfast_proto::v1::audit_service_client::AuditServiceClient;
use tonic_health::pb::HealthCheckResponse;

use super::*;
use crate::domain::{Fingerprint, Role, Text};
use crate::service::Consensus as _;
use crate::state::{Command, CommandBody, Heads, RefusalCount};

/// Some messages of a listing, far more than what is under way at a time.
const RECORDS: u64 = 5000;

async fn deny(running: &Running, subject: &str) {
    let mut admin = AdminServiceClient::new(running.alice().await);
    let request = v1::DenyCertificateRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        subject: subject.to_owned(),
        reason: "stolen".to_owned(),
    };
    assert!(admin.deny_certificate(request).await.unwrap().into_inner().changed);
}

async fn fill(bench: &Bench) {
    let heads = Heads::load(bench.context.consensus().view()).unwrap();
    for n in heads.audit.sequence..RECORDS {
        let detail = Text::free("detail", n.to_string()).unwrap();
        let command = Command {
            actor: operator("alice"),
            certificate: None,
            roles: Default::default(),
            request_id: crate::domain::RequestId::new(uuid::Uuid::new_v4()),
            time: bench.context.now(),
            body: CommandBody::AuditRead { detail },
        };
        bench.fake.propose(command).await.unwrap();
    }
}

async fn watch(channel: Channel) -> tonic::Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest::default();
    let mut watching = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
    watching.message().await.unwrap().unwrap();
    watching
}

#[track_caller]
fn is_denied(status: &tonic::Status) {
    let found = (status.code(), reason(status));
    assert_eq!(found, (Code::PermissionDenied, "CERTIFICATE_DENIED".to_owned()));
}

#[tokio::test]
async fn a_long_listing_and_an_idle_stream_end_when_their_reader_is_denied() {
    let running = Running::start(100).await;
    running.bench.grant(60, "arthur", Role::Auditor).await;
    fill(&running.bench).await;
    let channel = running.connect(&running.operators, &operator("arthur")).await;
    let mut idle = watch(channel.clone()).await;
    let mut other = watch(running.alice().await).await;
    let mut audit = AuditServiceClient::new(channel);
    let request = v1::ListRecordsRequest { last_sequence: RECORDS, ..Default::default() };
    let mut listing = audit.list_records(request).await.unwrap().into_inner();
    let mut read = listing.message().await.unwrap().unwrap().records.len();

    deny(&running, "operator/arthur").await;
    let began = Instant::now();
    let ended = tokio::time::timeout(SECOND, idle.message()).await;
    is_denied(&ended.expect("the idle stream ends by itself").unwrap_err());
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    let ended = loop {
        match listing.message().await {
            Ok(Some(message)) => read += message.records.len(),
            Ok(None) => panic!("the listing went on to its end"),
            Err(status) => break status,
        }
    };
    is_denied(&ended);
    assert!(u64::try_from(read).unwrap() < RECORDS, "{read}");
    is_denied(&audit.get_head(v1::GetHeadRequest { stale: true }).await.unwrap_err());
    // Others are not disturbed.
    assert!(tokio::time::timeout(SECOND / 2, other.message()).await.is_err());

    // What was refused is recorded, coalesced: the two streams, and the call.
    let (_, metrics) = running.get("/metrics").await;
    assert!(metrics.contains("holdfast_refusals_total 3\n"), "{metrics}");
    let (bench, _) = running.stop().await;
    let CommandBody::Refusals(refusals) = bench.last_proposal() else { panic!() };
    let said = |refusal: &RefusalCount| {
        assert_eq!(refusal.actor, operator("arthur"));
        assert_eq!(refusal.reason.as_str(), "CERTIFICATE_DENIED");
        (refusal.action.to_string(), refusal.count)
    };
    let said: Vec<_> = refusals.iter().map(said).collect();
    assert_eq!(said, [("OpenCall".to_owned(), 2), ("ReadAudit".to_owned(), 1)]);
}

#[tokio::test]
async fn a_command_carries_the_certificate_of_its_caller_so_that_apply_can_refuse_it() {
    let running = Running::start(100).await;
    let made = running.operators.make(&Order::actor(&operator("alice")));
    let fingerprint = Fingerprint::of(&made.certificate);
    let channel = running.connect_with(made).await;
    let mut admin = AdminServiceClient::new(channel);
    let request = v1::GrantRoleRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        operator: "zoe".to_owned(),
        role: v1::Role::Auditor.into(),
        groups: Vec::new(),
    };
    admin.grant_role(request.clone()).await.unwrap();
    let proposed = running.bench.fake.proposed.lock().last().unwrap().clone();
    assert_eq!((proposed.actor, proposed.certificate), (operator("alice"), Some(fingerprint)));
    // The connection goes on, and its certificate is good for nothing.
    deny(&running, &fingerprint.to_string()).await;
    let request = v1::GrantRoleRequest { request_id: uuid::Uuid::new_v4().to_string(), ..request };
    is_denied(&admin.grant_role(request).await.unwrap_err());
}
