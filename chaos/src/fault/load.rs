//! Clients that misbehave: many connections, slow ones, messages that are too big.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::rngs::StdRng;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Fault, Hit, Step, Whom, restore, targets};
use crate::env::World;

/// How long connections are opened.
const CONNECTING: Duration = Duration::from_secs(10);

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rude {
    /// 3000 connections that say nothing.
    Flood,
    /// 200 connections that begin a handshake and send one byte a second.
    Slow,
    /// Messages of 4 MiB.
    Oversize,
}

/// Rude clients of one server.
pub(crate) struct Clients {
    rude: Rude,
    tasks: JoinSet<()>,
}

impl Clients {
    pub(crate) fn new(rude: Rude) -> Self {
        Self { rude, tasks: JoinSet::new() }
    }

    /// Opens connections and keeps each open for as long as the server does; how many were made.
    async fn connect(&mut self, address: &str, count: usize, slow: bool) -> usize {
        let mut made = 0;
        let deadline = Instant::now() + CONNECTING;
        for _ in 0..count {
            // A server that takes no more lets each further one wait.
            if Instant::now() >= deadline {
                break;
            }
            let connected = TcpStream::connect(address);
            let connected = tokio::time::timeout(Duration::from_secs(1), connected).await;
            let Ok(Ok(mut stream)) = connected else { continue };
            made += 1;
            self.tasks.spawn(async move {
                // The first bytes of a TLS record that says it is long.
                let mut bytes =
                    [0x16, 0x03, 0x01, 0x3f, 0xff].into_iter().chain(std::iter::repeat(1));
                while let Some(byte) = bytes.next().filter(|_| slow) {
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                std::future::pending::<()>().await;
            });
        }
        made
    }
}

impl Fault for Clients {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            let (hit, target) = targets(world, Whom::Any, rng).await?;
            let server = *hit.first().context("nobody")?;
            let address = server.addresses.client.clone();
            let before = server.usage().map_or(0, |(_, descriptors)| descriptors);
            let made = match self.rude {
                Rude::Flood => self.connect(&address, 3000, false).await,
                Rude::Slow => self.connect(&address, 200, true).await,
                Rude::Oversize => {
                    let client = world.administrator_of(server)?;
                    let big = "x".repeat(4 << 20);
                    let name = holdfast_proto::v1::NodeSpec {
                        node_id: 99,
                        client_address: big,
                        peer_address: String::new(),
                    };
                    let refused = client.add_learner(name).await.err();
                    let refused = refused.context("a message of 4 MiB was taken")?.to_string();
                    let seen =
                        format!("refused: {}", refused.chars().take(120).collect::<String>());
                    return Ok(Hit::seen(&hit, target, seen));
                }
            };
            let after = server.usage().map_or(0, |(_, descriptors)| descriptors);
            let seen = format!("{made} connections; its descriptors rose from {before} to {after}");
            Ok(if made > 100 && after > before {
                Hit::seen(&hit, target, seen)
            } else {
                Hit::unseen(&hit, target, seen)
            })
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            self.tasks.shutdown().await;
            restore(world).await
        })
    }
}
