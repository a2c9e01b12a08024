//! The two ports of a real server: who gets in, with which version of TLS, and which claims are believed.

use std::sync::Arc;

use holdfast::cli::local_cluster::{http_get, wait_for};
use holdfast::cli::pki::{CaKind, IssuedPaths, Pki};
use holdfast::clock::{Clock as _, SystemClock};
use holdfast::crypto::Authority;
use holdfast::domain::Timestamp;
use holdfast::tls::{Identity, client_config};
use holdfast_proto::peer::v1 as pb;
use holdfast_proto::peer::v1::peer_service_client::PeerServiceClient;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::harness::{Harness, LIMIT};

/// What a caller of the peer port says of itself.
#[derive(Clone)]
struct Claims {
    cluster: String,
    from: u64,
    from_incarnation: String,
    to: u64,
    to_incarnation: Option<String>,
}

impl Claims {
    fn hello(&self) -> Request<pb::HelloRequest> {
        let mut request = Request::new(pb::HelloRequest::default());
        let metadata = request.metadata_mut();
        let mut put = |key: &'static str, value: &str| {
            metadata.insert(key, value.parse().unwrap());
        };
        put("holdfast-cluster", &self.cluster);
        put("holdfast-from-node", &self.from.to_string());
        put("holdfast-from-incarnation", &self.from_incarnation);
        put("holdfast-to-node", &self.to.to_string());
        if let Some(incarnation) = &self.to_incarnation {
            put("holdfast-to-incarnation", incarnation);
        }
        request
    }
}

async fn connect(harness: &Harness, address: &str, who: &IssuedPaths) -> Result<Channel, String> {
    let ca = Authority::from_pem_file("node", &harness.cluster.client_ca()).unwrap();
    let identity = Identity::load(&who.certificate, &who.private_key).unwrap();
    let config = client_config(&ca, Some(&identity)).unwrap();
    let connector = holdfast::tls::Connector::new(config, LIMIT);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_with_connector(connector).await.map_err(|error| error.to_string())
}

async fn hello(channel: &Channel, claims: &Claims) -> Result<u64, Status> {
    let mut client = PeerServiceClient::new(channel.clone());
    Ok(client.hello(claims.hello()).await?.into_inner().node_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_believed_on_the_peer_port_only_if_every_claim_is_its_own() {
    let mut harness = Harness::start().await;
    let status = harness.client(&harness.administrator).status(true).await.unwrap();
    let incarnation = |id: u64| {
        let of = |m: &&holdfast_proto::v1::MemberStatus| m.node.as_ref().unwrap().node_id == id;
        status.members.iter().find(of).unwrap().incarnation.clone()
    };
    let address = harness.cluster.node(1).unwrap().ports().peer_address();
    let channel = connect(&harness, &address, &harness.node_identity(2)).await.unwrap();
    let right = Claims {
        cluster: harness.cluster.pki().cluster().to_string(),
        from: 2,
        from_incarnation: incarnation(2),
        to: 1,
        to_incarnation: Some(incarnation(1)),
    };
    assert_eq!(hello(&channel, &right).await.unwrap(), 1);
    let other = || Uuid::new_v4().to_string();
    for (claim, wrong) in [
        ("node 3", Claims { from: 3, from_incarnation: incarnation(3), ..right.clone() }),
        ("cluster", Claims { cluster: other(), ..right.clone() }),
        ("node 2", Claims { from_incarnation: other(), ..right.clone() }),
        ("node 3", Claims { to: 3, ..right.clone() }),
        ("incarnation", Claims { to_incarnation: Some(other()), ..right.clone() }),
    ] {
        let refused = hello(&channel, &wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{claim}: {refused}");
        assert!(refused.message().contains(claim), "{claim}: {refused}");
    }
    // Nor does a lie on one call spoil the connection of the node itself.
    assert_eq!(hello(&channel, &right).await.unwrap(), 1);

    // Whoever is no node gets no answer at all there, whatever it claims.
    for who in [&harness.agent, &harness.administrator] {
        let answer = match connect(&harness, &address, who).await {
            Ok(channel) => hello(&channel, &right).await.map_err(|status| status.to_string()),
            Err(error) => Err(error),
        };
        answer.unwrap_err();
    }
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
}

/// Handshakes that a port has refused since the start.
async fn refused_handshakes(harness: &Harness, port: &str) -> u64 {
    let address = harness.cluster.node(1).unwrap().ports().http_address();
    let (_, page) = http_get(&address, "/metrics").await.unwrap();
    let name = format!("holdfast_{port}_tls_handshake_failures_total ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
    line.parse().unwrap()
}

/// Dials with rustls alone, and says whether a byte ever came back.
async fn dial(address: &str, config: ClientConfig) -> bool {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let Ok(mut stream) = connector.connect(name, stream).await else { return false };
    // In TLS 1.3 a client is refused only after its own handshake is done: HTTP/2 shows whether it was.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    if stream.write_all(preface).await.is_err() {
        return false;
    }
    let mut byte = [0];
    matches!(tokio::time::timeout(LIMIT, stream.read(&mut byte)).await.unwrap(), Ok(1))
}

fn raw(
    harness: &Harness,
    version: &'static rustls::SupportedProtocolVersion,
    who: Option<&IssuedPaths>,
) -> ClientConfig {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(harness.cluster.client_ca()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match who {
        None => builder.with_no_client_auth(),
        Some(who) => {
            let chain = CertificateDer::pem_file_iter(&who.certificate).unwrap();
            let key = PrivateKeyDer::from_pem_file(&who.private_key).unwrap();
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_callers_without_a_valid_certificate_are_refused_at_both_ports() {
    let harness = Harness::start().await;
    let ports = harness.cluster.node(1).unwrap().ports();
    let node = harness.node_identity(2);
    let now = SystemClock.now();
    let (cluster, dir) = (harness.cluster.pki().cluster(), harness.cluster.dir().to_owned());
    let foreign = Pki::init(&dir.join("foreign-ca"), cluster, now).unwrap();
    let past = Timestamp::from_millis(now.as_millis() - 3 * 86_400_000);
    let issue = |pki: &Pki, name: &str, at| {
        let agent = holdfast::cli::pki::Subject::Agent(harness.device);
        pki.issue(&agent, 1, &dir.join(name), at).unwrap()
    };
    let forged = issue(&foreign, "forged", now);
    let expired = issue(harness.cluster.pki(), "expired", past);
    let (tls13, tls12) = (&rustls::version::TLS13, &rustls::version::TLS12);
    for (port, address, own, wrong) in [
        ("client", ports.client_address(), &harness.agent, [&node, &forged, &expired]),
        ("peer", ports.peer_address(), &node, [&harness.agent, &forged, &expired]),
    ] {
        assert!(dial(&address, raw(&harness, tls13, Some(own))).await, "{port}: as it should be");
        let before = refused_handshakes(&harness, port).await;
        assert!(!dial(&address, raw(&harness, tls12, Some(own))).await, "{port}: TLS 1.2");
        assert!(!dial(&address, raw(&harness, tls13, None)).await, "{port}: no certificate");
        for who in wrong {
            let answered = dial(&address, raw(&harness, tls13, Some(who))).await;
            assert!(!answered, "{port}: {}", who.certificate.display());
        }
        // A client hears of its refusal before the server counts it.
        wait_for(&format!("{port}: each is counted"), LIMIT, || async {
            let after = refused_handshakes(&harness, port).await;
            if after >= before + 5 { Ok(()) } else { Err(format!("{before} to {after}")) }
        })
        .await
        .unwrap();
    }
    assert_ne!(foreign.ca_path(CaKind::Node), harness.cluster.client_ca());
}
