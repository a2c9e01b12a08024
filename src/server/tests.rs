//! A whole server over real sockets and TLS, around a consensus of one.

mod checkpoints;
mod denials;
mod enrolment;
mod groups;
mod oidc;
mod rights;
mod syslog;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_proto::v1;
use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use holdfast_proto::v1::escrow_service_client::EscrowServiceClient;
use holdfast_proto::v1::recovery_service_client::RecoveryServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use super::config::{
    AuditConfig, Config, LimitsConfig, LogConfig, RaftConfig, StorageConfig, TlsPaths,
};
use super::{BuiltNode, Credentials, Listeners, Outcome, Server};
use crate::auth::Authorities;
use crate::clock::SystemClock;
use crate::crypto::Secret;
use crate::crypto::testing::{CLUSTER, DEVICE, Made, Order, TestCa, operator};
use crate::domain::{Actor, NodeId};
use crate::service::tests::harness::{Bench, Log};
use crate::telemetry::LogFormat;
use crate::tls::{Connector, Identity, client_config};

const SECOND: Duration = Duration::from_secs(1);
/// The services of the public API.
const SERVICES: [&str; 10] = [
    "holdfast.v1.AdminService",
    "holdfast.v1.AuditService",
    "holdfast.v1.CertificateService",
    "holdfast.v1.ClusterService",
    "holdfast.v1.ComplianceService",
    "holdfast.v1.DisclosureService",
    "holdfast.v1.EnrolmentService",
    "holdfast.v1.EscrowService",
    "holdfast.v1.OperatorService",
    "holdfast.v1.RecoveryService",
];
const LONG: Duration = Duration::from_secs(20);

/// A running server and those who may call it.
struct Running {
    bench: Bench,
    agents: TestCa,
    operators: TestCa,
    port: u16,
    http: u16,
    enrolment: u16,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Outcome>,
}

fn config(bench: &Bench, max_requests: usize) -> Config {
    let here = "127.0.0.1:0".parse().unwrap();
    let none = std::path::PathBuf::new;
    Config {
        node_id: NodeId::new(1),
        cluster_id: CLUSTER,
        data_dir: bench.dir.path().join("data"),
        client_listen: here,
        peer_listen: here,
        http_listen: here,
        enrolment_listen: Some(here),
        client_address: "localhost:1".into(),
        peer_address: "localhost:1".into(),
        auto_unseal_key_file: Some(bench.dir.path().join("root.key")),
        tls: TlsPaths {
            node_ca: none(),
            agent_ca: none(),
            operator_ca: none(),
            cert: none(),
            key: none(),
        },
        log: LogConfig { format: LogFormat::Text, level: "info".into() },
        raft: RaftConfig {
            heartbeat_ms: 50,
            election_min_ms: 200,
            election_max_ms: 350,
            snapshot_chunk_ms: 30_000,
            propose_ms: 5000,
        },
        storage: StorageConfig {
            wal_segment_bytes: 0,
            wal_keep_entries: 0,
            wal_cache_bytes: 0,
            overlay_bytes: 0,
            overlay_age_ms: 0,
            view_cache_bytes: 0,
            snapshot_floor_bytes: 0,
        },
        limits: LimitsConfig {
            max_connections: 16,
            max_requests,
            handshake_ms: 5000,
            drain_ms: 300,
        },
        audit: AuditConfig {
            checkpoint_file: None,
            checkpoint_records: 1,
            syslog: None,
            syslog_ca: None,
            syslog_spool: None,
        },
        oidc: None,
    }
}

fn identity(made: Made) -> Identity {
    Identity::new(vec![made.certificate], Secret::new(made.private_key)).unwrap()
}

impl Running {
    async fn start(max_requests: usize) -> Self {
        let bench = Bench::ready().await;
        let config = config(&bench, max_requests);
        Self::start_with(bench, config).await
    }

    async fn start_with(bench: Bench, config: Config) -> Self {
        let (agents, operators) = (TestCa::new("agent"), TestCa::new("operator"));
        let authorities =
            Authorities::new(bench.ca.authority(), agents.authority(), operators.authority());
        let credentials = Credentials {
            identity: identity(bench.ca.make(&Order::node(1))),
            authorities: Arc::new(authorities.unwrap()),
        };
        let listeners = Listeners::bind(&config).await.unwrap();
        let port = listeners.client.local_addr().unwrap().port();
        let http = listeners.http.local_addr().unwrap().port();
        let enrolment = listeners.enrolment.as_ref().map(|port| port.local_addr().unwrap().port());
        let enrolment = enrolment.unwrap_or_default();
        let built = BuiltNode { node: Arc::clone(&bench.fake), peer: Default::default() };
        let server = Server::new(config, built, credentials, Arc::new(SystemClock));
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(async move {
            server.serve(listeners, async move { stopped.await.unwrap() }).await.unwrap()
        });
        Self { bench, agents, operators, port, http, enrolment, stop, ended }
    }

    async fn connect(&self, ca: &TestCa, actor: &Actor) -> Channel {
        self.connect_with(ca.make(&Order::actor(actor))).await
    }

    async fn connect_with(&self, made: Made) -> Channel {
        let identity = identity(made);
        let config = client_config(&self.bench.ca.authority(), Some(&identity)).unwrap();
        let uri = format!("http://localhost:{}", self.port);
        let connector = Connector::new(config, SECOND * 5);
        // A small window, so that a long answer waits for who reads it.
        let endpoint = Endpoint::from_shared(uri).unwrap().initial_stream_window_size(64 * 1024);
        endpoint.connect_with_connector(connector).await.unwrap()
    }

    async fn agent(&self) -> Channel {
        self.connect(&self.agents, &Actor::Agent(DEVICE)).await
    }

    async fn alice(&self) -> Channel {
        self.connect(&self.operators, &operator("alice")).await
    }

    /// Status line and body of a page.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.http)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn stop(self) -> (Bench, Outcome) {
        self.stop.send(()).unwrap();
        let outcome = tokio::time::timeout(LONG, self.ended).await.unwrap().unwrap();
        (self.bench, outcome)
    }
}

fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().unwrap().reason
}

/// Asks until the answer is right.
async fn health(client: &mut HealthClient<Channel>, service: &str, wanted: ServingStatus) {
    let deadline = Instant::now() + LONG;
    loop {
        let request = HealthCheckRequest { service: service.to_owned() };
        let found = client.check(request).await.unwrap().into_inner().status();
        if found == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{service:?} is {found:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn callers_are_known_by_their_certificates_and_their_request_ids_come_back() {
    let running = Running::start(100).await;
    let mut escrow = EscrowServiceClient::new(running.agent().await);
    let mut request = Request::new(v1::GetEscrowKeyRequest {});
    request.metadata_mut().insert("x-request-id", "call-7".parse().unwrap());
    let answer = escrow.get_escrow_key(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "call-7");
    assert_eq!(answer.get_ref().cluster_id, CLUSTER.to_string());

    let mut recovery = RecoveryServiceClient::new(running.agent().await);
    let request = v1::FindKeysRequest {
        request_id: DEVICE.to_string(),
        query: Some(v1::find_keys_request::Query::DeviceId(DEVICE.to_string())),
    };
    let refused = recovery.find_keys(request.clone()).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "NOT_AN_OPERATOR")
    );
    assert!(refused.metadata().get("x-request-id").is_some());
    let mut recovery = RecoveryServiceClient::new(running.alice().await);
    let absent = recovery.find_keys(request).await.unwrap_err();
    assert_eq!((absent.code(), reason(&absent).as_str()), (Code::NotFound, "UNKNOWN_DEVICE"));
    let bad = v1::FindKeysRequest::default();
    let refused = recovery.find_keys(bad).await.unwrap_err();
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "request_id");
    assert_eq!(running.stop().await.1, Outcome::Stopped);
}

#[tokio::test]
async fn an_operator_name_from_the_agent_ca_is_nobody() {
    let running = Running::start(100).await;
    let forged = running.connect(&running.agents, &operator("alice")).await;
    let refused = RecoveryServiceClient::new(forged)
        .list_reasons(v1::ListReasonsRequest {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(reason(&refused), "CERTIFICATE_INVALID");
}

#[tokio::test]
async fn a_message_above_one_mebibyte_is_refused() {
    let running = Running::start(100).await;
    let mut escrow = EscrowServiceClient::new(running.agent().await);
    let request =
        v1::EscrowRecoveryKeyRequest { host_name: "x".repeat(1024 * 1024), ..Default::default() };
    let refused = escrow.escrow_recovery_key(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
}

#[tokio::test]
async fn health_and_readiness_follow_the_quorum() {
    let running = Running::start(100).await;
    let mut client = HealthClient::new(running.agent().await);
    for service in SERVICES {
        health(&mut client, service, ServingStatus::Serving).await;
    }
    let unknown = HealthCheckRequest { service: "holdfast.v1.NoService".to_owned() };
    assert_eq!(client.check(unknown).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(running.get("/readyz").await.0, 200);
    *running.bench.fake.age.lock() = SECOND * 2;
    for service in SERVICES {
        health(&mut client, service, ServingStatus::NotServing).await;
    }
    health(&mut client, "", ServingStatus::Serving).await;
    let (code, body) = running.get("/readyz").await;
    assert_eq!(code, 503);
    assert!(body.contains("no contact with a quorum"), "{body}");
    assert_eq!(running.get("/livez").await.0, 200);
    *running.bench.fake.age.lock() = Duration::ZERO;
    health(&mut client, "holdfast.v1.EscrowService", ServingStatus::Serving).await;
}

#[tokio::test]
async fn the_metrics_show_calls_consensus_and_ports() {
    let running = Running::start(100).await;
    let mut admin = AdminServiceClient::new(running.alice().await);
    let absent = v1::GetDeviceRequest { device_id: DEVICE.to_string(), stale: false };
    assert_eq!(admin.get_device(absent).await.unwrap_err().code(), Code::NotFound);
    let (code, page) = running.get("/metrics").await;
    assert_eq!(code, 200);
    for line in [
        "holdfast_rpc_total{method=\"holdfast.v1.AdminService/GetDevice\",code=\"NOT_FOUND\"} 1",
        "holdfast_rpc_duration_seconds_count{method=\"holdfast.v1.AdminService/GetDevice\"} 1",
        "holdfast_raft_leader 1.0",
        "holdfast_raft_elections_total 0",
        "holdfast_quorum_age_seconds 0.0",
        "holdfast_disclosures_total 0",
        "holdfast_refusals_total 0",
        "holdfast_disclosures_over_quota_total 0",
        "holdfast_disclosures_unapproved_total 0",
        "holdfast_disclosures_by_approval_total 0",
        "holdfast_mass_recovery 0.0",
        "holdfast_approvals_waiting 0.0",
        "holdfast_client_connections_total 1",
        "holdfast_client_tls_handshake_failures_total 0",
        "holdfast_disk_low 0.0",
        "# EOF",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
    }
    assert!(page.contains("holdfast_unsealed "));
}

#[tokio::test]
async fn reflection_shows_the_public_api_and_nothing_of_the_nodes_own() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let running = Running::start(100).await;
    let mut client = ServerReflectionClient::new(running.alice().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers =
        client.server_reflection_info(futures::stream::iter([ask])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("no list") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let own: Vec<_> = names.iter().filter(|name| name.starts_with("holdfast")).cloned().collect();
    assert_eq!(own, SERVICES, "every service of the API, and no other");
}

fn escrow_request(bench: &Bench) -> v1::EscrowRecoveryKeyRequest {
    let sealed = bench.sealed(b"x").key;
    v1::EscrowRecoveryKeyRequest {
        request_id: DEVICE.to_string(),
        device_id: DEVICE.to_string(),
        volume_id: DEVICE.to_string(),
        protector_id: DEVICE.to_string(),
        protector_kind: 2,
        volume_kind: 1,
        sealed_key: Some(v1::SealedKey {
            epoch: 1,
            encapsulated_key: sealed.encapsulated_key.to_vec().into(),
            ciphertext: sealed.ciphertext,
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn calls_beyond_the_bound_are_shed_and_health_is_still_answered() {
    let running = Running::start(1).await;
    *running.bench.fake.log.lock() = Log::Stalls;
    let channel = running.agent().await;
    let request = escrow_request(&running.bench);
    let before = running.bench.fake.proposed.lock().len();
    let first = tokio::spawn({
        let mut escrow = EscrowServiceClient::new(channel.clone());
        async move { escrow.escrow_recovery_key(request).await }
    });
    let deadline = Instant::now() + LONG;
    while running.bench.fake.proposed.lock().len() == before {
        assert!(Instant::now() < deadline, "the first call was not proposed");
        tokio::task::yield_now().await;
    }
    let mut escrow = EscrowServiceClient::new(channel.clone());
    let shed = escrow.get_escrow_key(v1::GetEscrowKeyRequest {}).await.unwrap_err();
    assert_eq!((shed.code(), reason(&shed).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    let mut client = HealthClient::new(channel);
    health(&mut client, "holdfast.v1.EscrowService", ServingStatus::Serving).await;
    first.abort();
    // Given up by its caller, the first call gives its place back.
    loop {
        match escrow.get_escrow_key(v1::GetEscrowKeyRequest {}).await {
            Ok(_) => break,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[tokio::test]
async fn a_stopped_server_says_so_hands_over_drains_and_closes_in_this_order() {
    let running = Running::start(100).await;
    let channel = running.agent().await;
    // A call that never ends may hold it up no longer than the deadline.
    *running.bench.fake.log.lock() = Log::Stalls;
    let request = escrow_request(&running.bench);
    let mut escrow = EscrowServiceClient::new(channel.clone());
    let hanging = tokio::spawn(async move { escrow.escrow_recovery_key(request).await });
    let mut client = HealthClient::new(channel);
    health(&mut client, "", ServingStatus::Serving).await;
    let (bench, outcome) = running.stop().await;
    assert_eq!(outcome, Outcome::Stopped);
    assert_eq!(*bench.fake.ending.lock(), ["drain", "shutdown"]);
    hanging.abort();
}

#[tokio::test]
async fn a_failed_node_ends_the_server_at_once_and_nothing_is_closed() {
    let running = Running::start(100).await;
    running.bench.fake.failure.send_replace(Some("fsync failed".into()));
    let outcome = tokio::time::timeout(LONG, running.ended).await.unwrap().unwrap();
    assert_eq!(outcome, Outcome::Failed("fsync failed".into()));
    assert!(running.bench.fake.ending.lock().is_empty());
    drop(running.stop);
}
