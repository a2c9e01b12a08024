//! A link that is slow, not broken: what takes long on it arrives all the same.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast::domain::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{Harness, LIMIT};
use crate::load::Load;

/// Bytes a second, to and fro: a megabit.
const RATE: u64 = 128 * 1024;
/// Bytes that are carried at a time.
const PIECE: usize = 8 * 1024;

/// Carries bytes no faster than the rate, and takes no more than it carries: what waits, waits at the sender.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut piece = vec![0; PIECE];
    let mut free = Instant::now();
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let micros = u64::try_from(length).unwrap() * 1_000_000 / RATE;
        free = free.max(Instant::now()) + Duration::from_micros(micros);
        tokio::time::sleep_until(free).await;
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// A slow way to an address.
async fn slow_way(to: String) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut ways = JoinSet::new();
    ways.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(&to).await else { continue };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            connections.spawn(async move {
                tokio::join!(carry(near_in, far_out), carry(far_in, near_out));
            });
        }
    });
    (address, ways)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_member_behind_a_slow_link_gets_batches_that_take_seconds() {
    let mut harness = Harness::start().await;
    // One batch of more than a megabyte: eight seconds on the link, where a small one has two.
    let agent = harness.client(&harness.agent);
    let load = Load::with_package(&agent, harness.device, 2, 32 * 1024);
    load.more(40).await;
    let written = load.stop();
    harness.cluster.add_node(4).unwrap();
    harness.cluster.start_node(4).await.unwrap();
    let mut spec = harness.cluster.spec(4).unwrap();
    let (slow, _ways) = slow_way(spec.peer_address).await;
    spec.peer_address = slow.to_string();
    let administrator = harness.client(&harness.administrator);
    administrator.add_learner(spec).await.unwrap();
    harness.cluster.wait_caught_up(4, LIMIT).await.unwrap();
    administrator.promote(NodeId::new(4)).await.unwrap();
    written.all_are_there(&harness.client_of_node(4, &harness.agent)).await;
    harness.cluster.stop().await.unwrap();
}
