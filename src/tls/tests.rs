use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected as _;

use tokio::sync::watch;

use super::*;
use crate::crypto::testing::{CLUSTER, DEVICE, Made, Order, TestCa, operator};
use crate::crypto::{CertificateError, Secret};
use crate::domain::{Actor, NodeId};

const PATIENCE: Duration = Duration::from_secs(10);

fn identity(made: &Made) -> Identity {
    Identity::new(vec![made.certificate.clone()], Secret::new(made.private_key.clone())).unwrap()
}

struct Cas {
    node: TestCa,
    agent: TestCa,
    operator: TestCa,
}

impl Cas {
    fn new() -> Self {
        let [node, agent, operator] = ["node", "agent", "operator"].map(TestCa::new);
        Self { node, agent, operator }
    }

    fn client_port(&self) -> Arc<ServerConfig> {
        self.client_port_with(Nameless::Refused)
    }

    fn client_port_with(&self, nameless: Nameless) -> Arc<ServerConfig> {
        let server = identity(&self.node.make(&Order::node(1)));
        client_port_config(&self.agent.authority(), &self.operator.authority(), &server, nameless)
            .unwrap()
    }

    fn peer_port(&self, node: u64) -> Arc<ServerConfig> {
        let server = identity(&self.node.make(&Order::node(node)));
        peer_port_config(&self.node.authority(), &server).unwrap()
    }

    fn dial_as(&self, made: &Made) -> Arc<ClientConfig> {
        client_config(&self.node.authority(), Some(&identity(made))).unwrap()
    }

    fn agent(&self) -> Made {
        self.agent.make(&Order::actor(&Actor::Agent(DEVICE)))
    }
}

struct Port {
    address: SocketAddr,
    incoming: Incoming,
    counters: Arc<ConnectionCounters>,
}

async fn port(config: Arc<ServerConfig>, options: IncomingOptions) -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counters = options.counters.clone();
    Port {
        address,
        incoming: incoming(listener, watch::Sender::new(config).subscribe(), options),
        counters,
    }
}

impl Port {
    async fn next(&mut self) -> Conn {
        tokio::time::timeout(PATIENCE, self.incoming.next()).await.unwrap().unwrap().unwrap()
    }

    async fn until(&self, what: impl Fn(ConnectionCounts) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !what(self.counters.counts()) {
            assert!(Instant::now() < deadline, "{:?}", self.counters.counts());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Dials and speaks until the server has decided: in TLS 1.3 a client is refused only after its own handshake is done.
async fn refused(port: &mut Port, config: Arc<ClientConfig>) {
    let before = port.counters.counts();
    let connector = Connector::new(config, PATIENCE);
    if let Ok(mut stream) = connector.connect("127.0.0.1", port.address.port()).await {
        let mut byte = [0];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.unwrap();
        assert!(!matches!(read, Ok(1)));
    }
    port.until(|now| now.handshake_failed == before.handshake_failed + 1).await;
    assert_eq!(port.counters.counts().accepted, before.accepted);
}

#[tokio::test]
async fn a_refused_client_that_has_begun_to_speak_reads_why() {
    let cas = Cas::new();
    let port = port(cas.client_port(), IncomingOptions::default()).await;
    let stranger = TestCa::new("agent").make(&Order::actor(&Actor::Agent(DEVICE)));
    let connector = Connector::new(cas.dial_as(&stranger), PATIENCE);
    let mut stream = connector.connect("127.0.0.1", port.address.port()).await.unwrap();
    port.until(|now| now.handshake_failed == 1).await;
    // A closed socket would answer the first with a reset, and the second would fail.
    for said in ["PRI * HTTP/2.0", "SM"] {
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await.unwrap();
    let alert = read.unwrap_err();
    assert!(alert.to_string().contains("alert"), "{alert}");
}

#[tokio::test]
async fn agents_and_operators_get_in_at_the_client_port_with_their_certificates_known() {
    let cas = Cas::new();
    let mut port = port(cas.client_port(), IncomingOptions::default()).await;
    let person = cas.operator.make(&Order::actor(&operator("alice")));
    for made in [cas.agent(), person] {
        let connector = Connector::new(cas.dial_as(&made), PATIENCE);
        let dialled = connector.connect("localhost", port.address.port()).await.unwrap();
        let (_, connection) = dialled.get_ref();
        assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(connection.alpn_protocol(), Some(b"h2".as_slice()));
        let conn = port.next().await;
        assert_eq!(conn.connect_info().chain(), [made.certificate.to_vec()]);
        assert_eq!(conn.connect_info().remote(), dialled.get_ref().0.local_addr().unwrap());
    }
}

#[tokio::test]
async fn the_client_port_refuses_everybody_else() {
    let cas = Cas::new();
    let mut port = port(cas.client_port(), IncomingOptions::default()).await;
    let foreign = TestCa::new("agent").make(&Order::actor(&Actor::Agent(DEVICE)));
    let expired = cas.agent.make(&Order::actor(&Actor::Agent(DEVICE)).expired());
    for made in [foreign, expired, cas.node.make(&Order::node(2))] {
        refused(&mut port, cas.dial_as(&made)).await;
    }
    let nobody = client_config(&cas.node.authority(), None).unwrap();
    refused(&mut port, nobody).await;
}

#[tokio::test]
async fn where_people_come_with_tokens_a_certificate_may_be_missing_and_a_bad_one_is_refused() {
    let cas = Cas::new();
    let mut port = port(cas.client_port_with(Nameless::Taken), IncomingOptions::default()).await;
    let nobody = client_config(&cas.node.authority(), None).unwrap();
    let number = port.address.port();
    let _dialled = Connector::new(nobody, PATIENCE).connect("localhost", number).await.unwrap();
    assert!(port.next().await.connect_info().chain().is_empty());
    let agent = cas.agent();
    let connector = Connector::new(cas.dial_as(&agent), PATIENCE);
    let _dialled = connector.connect("localhost", number).await.unwrap();
    assert_eq!(port.next().await.connect_info().chain(), [agent.certificate.to_vec()]);
    let foreign = TestCa::new("agent").make(&Order::actor(&Actor::Agent(DEVICE)));
    let expired = cas.operator.make(&Order::actor(&operator("alice")).expired());
    for made in [foreign, expired, cas.node.make(&Order::node(2))] {
        refused(&mut port, cas.dial_as(&made)).await;
    }
}

#[tokio::test]
async fn connections_without_a_certificate_take_no_place_of_those_with_one_and_end() {
    let cas = Cas::new();
    let nameless = NamelessLimits {
        max_connections: 1,
        max_per_address: 1,
        age: Some(Duration::from_secs(1)),
    };
    let options = IncomingOptions { nameless, ..Default::default() };
    let mut port = port(cas.client_port_with(Nameless::Taken), options).await;
    let nobody = client_config(&cas.node.authority(), None).unwrap();
    let stranger = Connector::new(nobody, PATIENCE);
    let number = port.address.port();
    let _dialled = stranger.connect("localhost", number).await.unwrap();
    let mut first = port.next().await;
    // A second one is closed after its handshake, which in TLS 1.3 it need not notice at once.
    let second = stranger.connect("localhost", number).await;
    port.until(|now| now.refused == 1).await;
    drop(second);
    let connector = Connector::new(cas.dial_as(&cas.agent()), PATIENCE);
    let mut named = connector.connect("localhost", number).await.unwrap();
    let mut conn = port.next().await;
    let ended = tokio::time::timeout(PATIENCE, first.read(&mut [0])).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    drop(first);
    let _again = stranger.connect("localhost", number).await.unwrap();
    port.next().await;
    named.write_all(b"x").await.unwrap();
    named.flush().await.unwrap();
    conn.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn the_peer_port_refuses_everybody_but_nodes() {
    let cas = Cas::new();
    let mut port = port(cas.peer_port(1), IncomingOptions::default()).await;
    let person = cas.operator.make(&Order::actor(&operator("alice")));
    let signer = cas.node.make(&Order::escrow_signer());
    for made in [cas.agent(), person, signer] {
        refused(&mut port, cas.dial_as(&made)).await;
    }
    let connector = Connector::new(cas.dial_as(&cas.node.make(&Order::node(2))), PATIENCE);
    let _dialled = connector.connect("127.0.0.1", port.address.port()).await.unwrap();
    port.next().await;
}

#[tokio::test]
async fn a_client_that_speaks_tls_1_2_is_refused() {
    let cas = Cas::new();
    let mut port = port(cas.client_port(), IncomingOptions::default()).await;
    let mut roots = RootCertStore::empty();
    roots.add(cas.node.authority().certificates()[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let agent = identity(&cas.agent());
    let old = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(agent.chain().to_vec(), agent.rustls_key())
        .unwrap();
    refused(&mut port, Arc::new(old)).await;
}

#[tokio::test]
async fn a_dialler_takes_exactly_the_node_that_it_expects() {
    let cas = Cas::new();
    let mut port = port(cas.peer_port(2), IncomingOptions::default()).await;
    let own = identity(&cas.node.make(&Order::node(1)));
    let dial = |cluster, expected, ca: &TestCa| {
        let ca = ca.authority();
        let config = peer_client_config(&ca, &own, cluster, NodeId::new(expected)).unwrap();
        let port = port.address.port();
        // The name that is dialled does not count.
        async move { Connector::new(config, PATIENCE).connect("127.0.0.1", port).await }
    };
    let error = dial(CLUSTER, 3, &cas.node).await.unwrap_err().to_string();
    assert!(error.contains("node/2") && error.contains("node/3"), "{error}");
    assert!(!error.contains("Refused(") && !error.contains("Other("), "no debug text: {error}");
    let other = crate::domain::ClusterId::from_bytes([0xee; 16]);
    assert!(dial(other, 2, &cas.node).await.is_err(), "another cluster");
    assert!(dial(CLUSTER, 2, &TestCa::new("node")).await.is_err(), "another CA");
    let _dialled = dial(CLUSTER, 2, &cas.node).await.unwrap();
    port.next().await;
}

#[tokio::test]
async fn a_client_refuses_a_server_of_another_ca_or_another_name() {
    let cas = Cas::new();
    let port = port(cas.client_port(), IncomingOptions::default()).await;
    let agent = identity(&cas.agent());
    let foreign = client_config(&TestCa::new("node").authority(), Some(&agent)).unwrap();
    let dial = |config, host: &'static str| {
        let connector = Connector::new(config, PATIENCE);
        async move { connector.connect(host, port.address.port()).await }
    };
    assert!(dial(foreign, "127.0.0.1").await.is_err());
    let own = client_config(&cas.node.authority(), Some(&agent)).unwrap();
    // 127.0.0.2 is the same machine, but no address in the certificate.
    assert!(dial(own, "127.0.0.2").await.is_err());
}

#[tokio::test]
async fn whoever_does_not_finish_its_handshake_is_cut_off_and_holds_up_nobody() {
    let cas = Cas::new();
    let options =
        IncomingOptions { handshake_timeout: Duration::from_secs(1), ..Default::default() };
    let mut port = port(cas.client_port(), options).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(port.address).await.unwrap());
    }
    let connector = Connector::new(cas.dial_as(&cas.agent()), PATIENCE);
    let _dialled = connector.connect("127.0.0.1", port.address.port()).await.unwrap();
    port.next().await;
    port.until(|now| now.handshake_timed_out == 20).await;
    for stream in &mut silent {
        let closed = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await.unwrap();
        assert!(!matches!(closed, Ok(1)));
    }
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_and_a_closed_one_makes_room() {
    let cas = Cas::new();
    let options = IncomingOptions { max_connections: 1, ..Default::default() };
    let mut port = port(cas.client_port(), options).await;
    let connector = Connector::new(cas.dial_as(&cas.agent()), PATIENCE);
    let number = port.address.port();
    let first = connector.connect("127.0.0.1", number).await.unwrap();
    let conn = port.next().await;
    assert!(connector.connect("127.0.0.1", number).await.is_err());
    port.until(|now| now.refused == 1).await;
    drop((first, conn));
    let _again = connector.connect("127.0.0.1", number).await.unwrap();
    port.next().await;
}

#[tokio::test]
async fn garbage_is_counted_and_the_port_goes_on() {
    let cas = Cas::new();
    let mut port = port(cas.client_port(), IncomingOptions::default()).await;
    let mut stranger = TcpStream::connect(port.address).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    port.until(|now| now.handshake_failed == 1).await;
    let connector = Connector::new(cas.dial_as(&cas.agent()), PATIENCE);
    let _dialled = connector.connect("127.0.0.1", port.address.port()).await.unwrap();
    port.next().await;
}

#[tokio::test]
async fn a_resumed_connection_still_tells_who_it_is() {
    let cas = Cas::new();
    let mut port = port(cas.client_port(), IncomingOptions::default()).await;
    let made = cas.agent();
    let connector = Connector::new(cas.dial_as(&made), PATIENCE);
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut dialled = connector.connect("127.0.0.1", port.address.port()).await.unwrap();
        let mut conn = port.next().await;
        conn.write_all(b"x").await.unwrap();
        conn.flush().await.unwrap();
        dialled.read_exact(&mut [0]).await.unwrap();
        assert_eq!(dialled.get_ref().1.handshake_kind(), Some(expected));
        assert_eq!(conn.connect_info().chain(), [made.certificate.to_vec()]);
    }
}

#[tokio::test]
async fn tonic_serves_the_incoming_connections_and_dials_by_the_connector() {
    let cas = Cas::new();
    let Port { address, incoming, .. } = port(cas.client_port(), IncomingOptions::default()).await;
    let (_, service) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(service);
    let server = tokio::spawn(server.serve_with_incoming(incoming));
    let connector = Connector::new(cas.dial_as(&cas.agent()), PATIENCE);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest { service: String::new() };
    let answer = client.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    server.abort();
}

fn write_pem(path: &Path, label: &str, der: &[u8], mode: u32) -> PathBuf {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).unwrap();
    writeln!(file, "-----BEGIN {label}-----\n{text}\n-----END {label}-----").unwrap();
    path.to_owned()
}

#[test]
fn an_identity_is_read_from_files_and_a_key_that_others_may_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let made = TestCa::new("node").make(&Order::node(1));
    let certificate = write_pem(&place("node.pem"), "CERTIFICATE", &made.certificate, 0o644);
    let key = |name, mode| write_pem(&place(name), "PRIVATE KEY", &made.private_key, mode);
    for (name, mode) in [("a.key", 0o600), ("b.key", 0o400)] {
        let loaded = Identity::load(&certificate, &key(name, mode)).unwrap();
        let node = Actor::Node(NodeId::new(1));
        loaded.expect(CLUSTER, &node).unwrap();
        assert!(loaded.expect(CLUSTER, &Actor::Node(NodeId::new(2))).is_err());
        assert!(loaded.node_signer(CLUSTER, NodeId::new(1)).is_ok());
        assert_eq!(
            format!("{loaded:?}"),
            format!("Identity(spiffe://{CLUSTER}/node/1, [redacted])")
        );
    }
    for (name, mode) in [("c.key", 0o644), ("d.key", 0o640), ("e.key", 0o604)] {
        let error = Identity::load(&certificate, &key(name, mode)).unwrap_err();
        assert!(matches!(&error, TlsError::KeyMode { mode: found, .. } if *found == mode));
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("chmod 0600"), "{text}");
    }
}

#[test]
fn a_file_that_is_missing_or_holds_something_else_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let made = TestCa::new("node").make(&Order::node(1));
    let certificate = write_pem(&place("node.pem"), "CERTIFICATE", &made.certificate, 0o644);
    let wrong = write_pem(&place("wrong.key"), "CERTIFICATE", &made.certificate, 0o600);
    let error = Identity::load(&certificate, &wrong).unwrap_err().to_string();
    assert!(error.contains("wrong.key") && error.contains("BEGIN PRIVATE KEY"), "{error}");
    let error = Identity::load(&certificate, &place("missing.key")).unwrap_err().to_string();
    assert!(error.contains("missing.key"), "{error}");
    let error = Identity::load(&place("missing.pem"), &wrong).unwrap_err();
    let TlsError::Certificate(CertificateError::File { path, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(path, &place("missing.pem"));
}

#[test]
fn a_key_of_another_certificate_and_a_shared_ca_make_no_configuration() {
    let cas = Cas::new();
    let made = cas.node.make(&Order::node(1));
    let other = Made { private_key: cas.node.make(&Order::node(1)).private_key, ..made };
    assert!(peer_port_config(&cas.node.authority(), &identity(&other)).is_err());
    let agent = cas.agent.authority();
    let server = identity(&cas.node.make(&Order::node(1)));
    let error = client_port_config(&agent, &agent, &server, Nameless::Refused).unwrap_err();
    assert!(matches!(error, TlsError::SharedCa));
}
