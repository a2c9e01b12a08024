//! The peer port: every call proves who sends it and whom it is for, and a state that differs raises an alarm (I4, I7).

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use holdfast::cli::local_cluster::wait_for;
use holdfast::cli::pki::{CaKind, IssuedPaths};
use holdfast::crypto::Authority;
use holdfast::domain::NodeId;
use holdfast::raft::peer::{CLUSTER, FROM_INCARNATION, FROM_NODE, TO_INCARNATION, TO_NODE};
use holdfast::tls::{
    Connector, Identity, IncomingOptions, incoming, peer_client_config, peer_port_config,
};
use holdfast_proto::peer::v1 as pb;
use holdfast_proto::peer::v1::peer_service_client::PeerServiceClient;
use holdfast_proto::peer::v1::peer_service_server::{PeerService, PeerServiceServer};
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::harness::{Harness, LIMIT};

/// What a call says of itself.
#[derive(Clone)]
struct Claim {
    cluster: String,
    from: u64,
    from_incarnation: String,
    to: u64,
    to_incarnation: Option<String>,
}

impl Claim {
    fn stamp(&self, mut request: Request<()>) -> Request<()> {
        let mut values = vec![
            (CLUSTER, self.cluster.clone()),
            (FROM_NODE, self.from.to_string()),
            (FROM_INCARNATION, self.from_incarnation.clone()),
            (TO_NODE, self.to.to_string()),
        ];
        values.extend(self.to_incarnation.clone().map(|value| (TO_INCARNATION, value)));
        for (key, value) in values {
            request.metadata_mut().insert(key, value.parse().unwrap());
        }
        request
    }
}

fn identity(paths: &IssuedPaths) -> Identity {
    Identity::load(&paths.certificate, &paths.private_key).unwrap()
}

fn node_ca(harness: &Harness) -> Authority {
    Authority::from_pem_file("node", &harness.cluster.pki().ca_path(CaKind::Node)).unwrap()
}

async fn dial(harness: &Harness, who: &IssuedPaths, to: u64) -> Result<Channel, Status> {
    let cluster = harness.cluster.pki().cluster();
    let config =
        peer_client_config(&node_ca(harness), &identity(who), cluster, NodeId::new(to)).unwrap();
    let address = harness.cluster.node(to).unwrap().ports().peer_address();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let connector = Connector::new(config, Duration::from_secs(5));
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| Status::unavailable(error.to_string()))
}

/// Makes every call there is; gives how each ended.
async fn call_all(channel: &Channel, claim: &Claim) -> Vec<(&'static str, Code)> {
    let claim = claim.clone();
    let stamp = move |request: Request<()>| Ok(claim.stamp(request));
    let mut client: PeerServiceClient<InterceptedService<Channel, _>> =
        PeerServiceClient::with_interceptor(channel.clone(), stamp);
    fn code<T>(result: Result<T, Status>) -> Code {
        result.map_or_else(|status| status.code(), |_| Code::Ok)
    }
    let none = futures::stream::empty::<pb::AppendRequest>;
    vec![
        ("hello", code(client.hello(pb::HelloRequest::default()).await)),
        ("append", code(client.append(none()).await)),
        ("vote", code(client.vote(pb::VoteRequest::default()).await)),
        ("pre_vote", code(client.pre_vote(pb::VoteRequest::default()).await)),
        ("install_snapshot", code(client.install_snapshot(futures::stream::empty()).await)),
        (
            "transfer_leader",
            code(client.transfer_leader(pb::TransferLeaderRequest::default()).await),
        ),
        ("forward", code(client.forward(futures::stream::empty()).await)),
        ("read_index", code(client.read_index(pb::ReadIndexRequest {}).await)),
        ("status", code(client.status(pb::StatusRequest {}).await)),
        ("compare", code(client.compare(pb::CompareRequest {}).await)),
        ("membership", code(client.membership(pb::MembershipRequest::default()).await)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_between_nodes_gets_through_with_a_wrong_identity() {
    let harness = Harness::start().await;
    let status = harness.cluster.administrator().unwrap().status(true).await.unwrap();
    let incarnation = |id: u64| {
        let mut members = status.members.iter();
        let found = members.find(|member| member.node.as_ref().unwrap().node_id == id);
        found.unwrap().incarnation.clone()
    };
    let right = Claim {
        cluster: harness.cluster.pki().cluster().to_string(),
        from: 2,
        from_incarnation: incarnation(2),
        to: 1,
        to_incarnation: Some(incarnation(1)),
    };
    let other = || Uuid::new_v4().to_string();
    let wrong = [
        ("another node's id", Claim { from: 3, from_incarnation: incarnation(3), ..right.clone() }),
        ("another cluster", Claim { cluster: other(), ..right.clone() }),
        ("another life of the sender", Claim { from_incarnation: other(), ..right.clone() }),
        ("another node is meant", Claim { to: 3, ..right.clone() }),
        ("another life is meant", Claim { to_incarnation: Some(other()), ..right.clone() }),
    ];
    let two = dial(&harness, &harness.node_identity(2), 1).await.unwrap();
    for (what, claim) in wrong {
        for (call, code) in call_all(&two, &claim).await {
            assert_eq!(code, Code::PermissionDenied, "{call}: {what}");
        }
    }
    // Without the life that is meant, only a greeting is answered.
    let vague = Claim { to_incarnation: None, ..right.clone() };
    for (call, code) in call_all(&two, &vague).await {
        let wanted = if call == "hello" { Code::Ok } else { Code::PermissionDenied };
        assert_eq!(code, wanted, "{call}: no incarnation");
    }
    for (call, code) in call_all(&two, &right).await {
        assert_ne!(code, Code::PermissionDenied, "{call}: the right identity");
        assert_ne!(code, Code::Unauthenticated, "{call}: the right identity");
    }
    // An agent's or an operator's certificate does not get as far as a call; whatever it claims.
    for who in [&harness.agent, &harness.administrator] {
        let Ok(channel) = dial(&harness, who, 1).await else { continue };
        for (call, code) in call_all(&channel, &right).await {
            assert_ne!(code, Code::Ok, "{call}: no node's certificate");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_no_member_may_greet_and_nothing_is_done_for_it() {
    let mut harness = Harness::start().await;
    harness.cluster.add_node(4).unwrap();
    let status = harness.cluster.administrator().unwrap().status(true).await.unwrap();
    let first = status.members.iter().find(|m| m.node.as_ref().unwrap().node_id == 1).unwrap();
    let claim = Claim {
        cluster: harness.cluster.pki().cluster().to_string(),
        from: 4,
        from_incarnation: Uuid::new_v4().to_string(),
        to: 1,
        to_incarnation: Some(first.incarnation.clone()),
    };
    let four = dial(&harness, &harness.node_identity(4), 1).await.unwrap();
    for (call, code) in call_all(&four, &claim).await {
        match call {
            "hello" => assert_eq!(code, Code::Ok),
            "forward" | "read_index" | "status" | "compare" | "membership" => {
                assert_eq!(code, Code::PermissionDenied, "{call}");
            }
            _ => assert_ne!(code, Code::PermissionDenied, "{call} may come from a new leader"),
        }
    }
}

/// Answers as a node whose state is another than everybody else's.
struct Diverged {
    /// An index at which the others' state is known to them.
    index: u64,
}

type Never<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn silent<T>() -> Result<Response<T>, Status> {
    Err(Status::unavailable("only the state is told here"))
}

#[tonic::async_trait]
impl PeerService for Diverged {
    type AppendStream = Never<pb::AppendResponse>;
    type ForwardStream = Never<pb::ForwardResponse>;

    async fn compare(
        &self,
        _: Request<pb::CompareRequest>,
    ) -> Result<Response<pb::CompareResponse>, Status> {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let indexes = self.index.saturating_sub(50)..self.index + 50;
        Ok(Response::new(pb::CompareResponse {
            now_ms: u64::try_from(now).unwrap(),
            states: indexes
                .map(|index| pb::StateDigest { index, digest: Bytes::from_static(&[7; 32]) })
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            snapshot_turn: pb::SnapshotTurn::Unspecified.into(),
        }))
    }

    async fn hello(
        &self,
        _: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        silent()
    }
    async fn append(
        &self,
        _: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        silent()
    }
    async fn vote(
        &self,
        _: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        silent()
    }
    async fn pre_vote(
        &self,
        _: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        silent()
    }
    async fn install_snapshot(
        &self,
        _: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::InstallSnapshotResponse>, Status> {
        silent()
    }
    async fn transfer_leader(
        &self,
        _: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        silent()
    }
    async fn forward(
        &self,
        _: Request<Streaming<pb::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        silent()
    }
    async fn read_index(
        &self,
        _: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        silent()
    }
    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        silent()
    }
    async fn membership(
        &self,
        _: Request<pb::MembershipRequest>,
    ) -> Result<Response<pb::MembershipResponse>, Status> {
        silent()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_differs_at_the_same_index_raises_an_alarm() {
    let mut harness = Harness::start().await;
    harness.cluster.stop_node(3).await.unwrap();
    harness.cluster.leader().await.unwrap();
    let status = harness.cluster.administrator().unwrap().status(true).await.unwrap();
    let index = status.members.iter().map(|member| member.applied_index).max().unwrap();

    // In node 3's place, with its certificate and at its address.
    let address = harness.cluster.node(3).unwrap().ports().peer_address();
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let config =
        peer_port_config(&node_ca(&harness), &identity(&harness.node_identity(3))).unwrap();
    let connections =
        incoming(listener, watch::Sender::new(config).subscribe(), IncomingOptions::default());
    let server = Server::builder().add_service(PeerServiceServer::new(Diverged { index }));
    let serving = tokio::spawn(server.serve_with_incoming(connections));

    for node in [1, 2] {
        wait_for("the alarm is raised", LIMIT, || async {
            let (_, page) = harness.page(node, "/metrics").await;
            let raised = page.lines().any(|line| line == "holdfast_state_divergence 1.0");
            if raised { Ok(()) } else { Err(page) }
        })
        .await
        .unwrap();
        assert!(harness.log(node).contains("the state differs"), "{}", harness.log(node));
    }
    let status = ["cluster", "status", "-o", "json"];
    let said = harness.run(&harness.administrator, &status).await.ends_with(1);
    assert!(said.stderr().contains("differs from node 3"), "{}", said.stderr());
    serving.abort();
}
