//! The limits of the wire itself, each at its edge, and what the server says of itself.

use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::*;
use crate::domain::limits::{CONNECTION_STREAMS, MESSAGE_BYTES};
use crate::service::Consensus as _;

/// An escrow of exactly this many bytes, with a name that is much too long.
fn escrow_of_bytes(bench: &Bench, bytes: usize) -> v1::EscrowRecoveryKeyRequest {
    let mut request = escrow_request(bench);
    request.host_name = "x".repeat(bytes);
    let over = request.encoded_len() - bytes;
    request.host_name = "x".repeat(bytes - over);
    assert_eq!(request.encoded_len(), bytes);
    request
}

#[tokio::test]
async fn a_message_of_one_mebibyte_is_read_and_one_byte_more_is_not() {
    let running = Running::start(100).await;
    let mut escrow = EscrowServiceClient::new(running.agent().await);
    let at_limit = escrow_of_bytes(&running.bench, MESSAGE_BYTES);
    let read = escrow.escrow_recovery_key(at_limit).await.unwrap_err();
    assert_eq!((read.code(), reason(&read).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    let fields = read.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "host_name");
    let above = escrow_of_bytes(&running.bench, MESSAGE_BYTES + 1);
    let refused = escrow.escrow_recovery_key(above).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    escrow.get_escrow_key(v1::GetEscrowKeyRequest {}).await.unwrap();
}

/// One HTTP/2 frame: type, flags, stream, payload.
type Frame = (u8, u8, u32, Vec<u8>);

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

async fn send(stream: &mut (impl AsyncWrite + Unpin), (kind, flags, id, payload): Frame) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &id.to_be_bytes()].concat();
    stream.write_all(&[head, payload].concat()).await.unwrap();
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Frame {
    let mut head = [0; 9];
    tokio::time::timeout(LONG, stream.read_exact(&mut head)).await.unwrap().unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.unwrap();
    (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload)
}

/// The headers of a gRPC call whose message never comes, without compression (RFC 7541).
fn headers() -> Vec<u8> {
    let literal = |prefix: &[u8], value: &[u8]| {
        [prefix, &[u8::try_from(value.len()).unwrap()], value].concat()
    };
    let path = b"/holdfast.v1.EscrowService/GetEscrowKey";
    [
        vec![0x83, 0x86],
        literal(&[0x04], path),
        literal(&[0x01], b"localhost"),
        literal(&[0x0f, 0x10], b"application/grpc"),
        literal(&[0x00, 2, b't', b'e'], b"trailers"),
    ]
    .concat()
}

#[tokio::test]
async fn a_connection_may_have_100_open_streams_and_the_101st_is_refused() {
    let running = Running::start(1000).await;
    let made = running.agents.make(&Order::actor(&Actor::Agent(DEVICE)));
    let config = client_config(&running.bench.ca.authority(), Some(&identity(made))).unwrap();
    let connector = Connector::new(config, SECOND * 5);
    let mut stream = connector.connect("localhost", running.port).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    send(&mut stream, (SETTINGS, 0, 0, Vec::new())).await;
    let advertised = loop {
        let (kind, flags, _, payload) = receive(&mut stream).await;
        if kind == SETTINGS && flags & ACK == 0 {
            send(&mut stream, (SETTINGS, ACK, 0, Vec::new())).await;
            let mut settings = payload.chunks_exact(6);
            let most = settings.find(|setting| setting[..2] == MAX_CONCURRENT_STREAMS).unwrap();
            break u32::from_be_bytes(most[2..].try_into().unwrap());
        }
    };
    assert_eq!(advertised, CONNECTION_STREAMS);
    let id = |n: u32| 2 * n + 1;
    for n in 0..CONNECTION_STREAMS {
        send(&mut stream, (HEADERS, END_HEADERS, id(n), headers())).await;
    }
    // All of them stand: the answer to a ping comes after whatever is said of them.
    send(&mut stream, (PING, 0, 0, vec![7; 8])).await;
    loop {
        let (kind, flags, of, payload) = receive(&mut stream).await;
        assert_ne!(kind, RST_STREAM, "stream {of}: {payload:?}");
        if kind == PING && flags & ACK != 0 {
            break;
        }
    }
    send(&mut stream, (HEADERS, END_HEADERS, id(CONNECTION_STREAMS), headers())).await;
    loop {
        let (kind, _, of, payload) = receive(&mut stream).await;
        if kind == RST_STREAM {
            assert_eq!((of, payload), (id(CONNECTION_STREAMS), REFUSED_STREAM.to_vec()));
            break;
        }
    }
    // The node still serves others.
    let mut escrow = EscrowServiceClient::new(running.agent().await);
    escrow.get_escrow_key(v1::GetEscrowKeyRequest {}).await.unwrap();
}

#[tokio::test]
async fn grants_come_in_pages_of_at_most_a_thousand_and_none_twice() {
    let running = Running::start(100).await;
    for n in 0..5 {
        let name = format!("person-{n}");
        running.bench.grant(150 + n, &name, crate::domain::Role::HelpDesk).await;
    }
    let mut admin = AdminServiceClient::new(running.alice().await);
    let ask = |page_size, page_token: &str| v1::ListGrantsRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let all = admin.list_grants(ask(1000, "")).await.unwrap().into_inner();
    assert!(all.next_page_token.is_empty());
    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        let page = admin.list_grants(ask(2, &token)).await.unwrap().into_inner();
        paged.push(page.grants);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    // Alice has all six roles.
    assert_eq!(paged.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 2, 2, 1]);
    assert_eq!(paged.concat(), all.grants);
    for (size, bad, field) in [(1001, "", "page_size"), (1, "x", "page_token")] {
        let refused = admin.list_grants(ask(size, bad)).await.unwrap_err();
        let fields = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!(fields[0].field, field);
    }
    let nobody = running.connect(&running.operators, &operator("nobody")).await;
    let refused = AdminServiceClient::new(nobody).list_grants(ask(1, "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_audit_listing_streams_messages_of_at_most_a_thousand_records() {
    use holdfast_proto::v1::audit_service_client::AuditServiceClient;
    let running = Running::start(100).await;
    let bench = &running.bench;
    let so_far = bench.context.consensus().view();
    let so_far = crate::state::Heads::load(so_far).unwrap().audit.sequence;
    let wanted = 2001;
    for n in so_far..wanted {
        let detail = crate::domain::Text::free("detail", n.to_string()).unwrap();
        let command = crate::state::Command {
            actor: operator("alice"),
            certificate: None,
            roles: Default::default(),
            request_id: crate::domain::RequestId::new(uuid::Uuid::new_v4()),
            time: bench.context.now(),
            body: crate::state::CommandBody::AuditRead { detail },
        };
        bench.fake.propose(command).await.unwrap();
    }
    let mut audit = AuditServiceClient::new(running.alice().await);
    let request = v1::ListRecordsRequest { last_sequence: wanted, ..Default::default() };
    let mut stream = audit.list_records(request).await.unwrap().into_inner();
    let mut sizes = Vec::new();
    let mut next = 1;
    while let Some(message) = stream.message().await.unwrap() {
        assert!(message.encoded_len() <= MESSAGE_BYTES);
        assert_eq!(message.head.as_ref().unwrap().sequence, wanted);
        for record in &message.records {
            assert_eq!(record.sequence, next);
            next += 1;
        }
        sizes.push(message.records.len());
    }
    assert_eq!(sizes, [1000, 1000, 1]);
    let head = audit.get_head(v1::GetHeadRequest { stale: false }).await.unwrap().into_inner();
    assert_eq!(head.head.unwrap().sequence, wanted + 1, "the listing itself is on record, once");
}
