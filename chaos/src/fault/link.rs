//! Links that are bad, not cut: loss, duplicates, little bandwidth, delay.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nfq::{Queue, Verdict};
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::process::{Child, Command};

use super::partition::{load, network, watch_counters};
use super::{Fault, Hit, SEEN, Step, Whom, restore, targets, watch};
use crate::env::command::call;
use crate::env::network::LINK;
use crate::env::proxy::{CLIENTS, Proxy, Rule, Rules};
use crate::env::{Server, World};

/// What is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// A fifth of the packets is lost.
    Loss,
    /// Each packet is sent twice.
    Duplicates,
    /// 256 kbit a second.
    Thin,
    /// Each packet comes 50 ms late.
    Delay,
    /// Each packet comes 5 to 105 ms late, in another order.
    Jitter,
}

/// A bad link of one host, to everybody.
pub(crate) struct Link {
    bad: Bad,
    delayer: Option<Child>,
}

impl Link {
    pub(crate) const fn new(bad: Bad) -> Self {
        Self { bad, delayer: None }
    }
}

const QUEUE: &str = "5";
const LOSS: &str = "table inet chaos\ndelete table inet chaos\ntable inet chaos {\n\
    chain in {\ntype filter hook input priority 0; policy accept;\n\
    iifname \"e0\" meta l4proto tcp numgen random mod 100 < 20 counter drop\n}\n}\n";
const DUPLICATES: &str = "table netdev chaos\ndelete table netdev chaos\ntable netdev chaos {\n\
    chain out {\ntype filter hook egress device \"e0\" priority 0; policy accept;\n\
    meta l4proto tcp counter dup to \"e0\"\n}\n}\n";
const CLEAR: &str = "table inet chaos\ndelete table inet chaos\n\
    table netdev chaos\ndelete table netdev chaos\n";

async fn inside(server: &Server, words: &[&str]) -> anyhow::Result<String> {
    let [program, namespace] = network(server)?.enter();
    call(&program, &[&[namespace.as_str()], words].concat()).await
}

/// How long a connection to a server takes to be made.
async fn connect_time(server: &Server) -> anyhow::Result<Duration> {
    let before = Instant::now();
    let connected = tokio::net::TcpStream::connect(&server.addresses.http);
    drop(tokio::time::timeout(Duration::from_secs(3), connected).await??);
    Ok(before.elapsed())
}

impl Link {
    async fn delay(
        &mut self,
        world: &World,
        server: &Server,
        (base, jitter): (u64, u64),
    ) -> anyhow::Result<()> {
        let [program, namespace] = network(server)?.enter();
        let own = own_program().context("the program holdfast-chaos")?;
        let numbers = [QUEUE.to_owned(), base.to_string(), jitter.to_string()];
        let mut command = Command::new(program);
        command.arg(namespace).arg(own).arg("delay-packets").args(numbers);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let delayer = command.process_group(0).spawn().context("starting the delayer")?;
        world.registry().note(delayer.id().unwrap_or(0));
        self.delayer = Some(delayer);
        let rule = ["-p", "tcp", "-j", "NFQUEUE", "--queue-num", QUEUE, "--queue-bypass"];
        inside(server, &[&["iptables-legacy", "-A", "INPUT", "-i", LINK][..], &rule].concat())
            .await
            .map(drop)
    }

    async fn seen_delayed(server: &Server, before: Duration, base: u64) -> Option<String> {
        watch(SEEN, || async {
            let now = connect_time(server).await.ok()?;
            let enough = now > before && now >= Duration::from_millis(base);
            enough.then(|| format!("a connection takes {now:.1?}, it took {before:.1?}"))
        })
        .await
    }
}

/// This program, also where a test is what runs.
fn own_program() -> Option<std::path::PathBuf> {
    let own = std::env::current_exe().ok()?;
    let name = "holdfast-chaos";
    let dirs = own.ancestors().skip(1).take(2);
    dirs.map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The rules of the proxy for a bad link of a host; none for what it can't do.
fn rules(bad: Bad, host: u64, hosts: &[u64]) -> Option<Rules> {
    let (to, from) = match bad {
        Bad::Delay => (Rule { delay: (50, 0), ..Rule::default() }, Rule::default()),
        Bad::Jitter => (Rule { delay: (5, 100), ..Rule::default() }, Rule::default()),
        Bad::Thin => (Rule::default(), Rule { rate: Some(32_000), ..Rule::default() }),
        Bad::Loss | Bad::Duplicates => return None,
    };
    let others = hosts.iter().copied().filter(|other| *other != host).chain([CLIENTS]);
    Some(others.flat_map(|other| [((other, host), to), ((host, other), from)]).collect())
}

impl Link {
    async fn by_proxy(
        &self,
        world: &World,
        proxy: &Proxy,
        rng: &mut StdRng,
    ) -> anyhow::Result<Hit> {
        let (hit, target) = targets(world, Whom::Any, rng).await?;
        let host = hit.first().context("nobody")?.host;
        let hosts: Vec<u64> = world.all().map(|server| server.host).collect();
        proxy.set(rules(self.bad, host, &hosts).context("a proxy can't do that")?);
        let touched = watch(SEEN, || async { Some(proxy.touched()).filter(|n| *n > 0) }).await;
        Ok(match touched {
            Some(touched) => Hit::seen(&hit, target, format!("{touched} pieces had to wait")),
            None => Hit::unseen(&hit, target, "nothing had to wait"),
        })
    }
}

impl Fault for Link {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            if let Some(proxy) = world.proxy() {
                return self.by_proxy(world, proxy, rng).await;
            }
            let (hit, target) = targets(world, Whom::Any, rng).await?;
            let server = *hit.first().context("nobody")?;
            let counted = |count: Option<u64>| count.map(|n| format!("{n} packets counted"));
            let seen = match self.bad {
                Bad::Loss => {
                    load(server, LOSS).await?;
                    counted(watch_counters(&hit, "inet").await)
                }
                Bad::Duplicates => {
                    load(server, DUPLICATES).await?;
                    counted(watch_counters(&hit, "netdev").await)
                }
                Bad::Thin => {
                    let limit = ["rate", "256kbit", "burst", "4kb", "latency", "400ms"];
                    let add = ["tc", "qdisc", "replace", "dev", LINK, "root", "tbf"];
                    inside(server, &[&add[..], &limit].concat()).await?;
                    watch(SEEN, || async {
                        let shown = inside(server, &["tc", "-s", "qdisc", "show", "dev", LINK])
                            .await
                            .ok()?;
                        let over = shown.split("overlimits ").nth(1)?.split(' ').next()?;
                        let over = over.parse::<u64>().ok().filter(|count| *count > 0)?;
                        Some(format!("{over} packets had to wait"))
                    })
                    .await
                }
                Bad::Delay | Bad::Jitter => {
                    let (base, jitter) = if self.bad == Bad::Delay { (50, 0) } else { (5, 100) };
                    let before = connect_time(server).await?;
                    self.delay(world, server, (base, jitter)).await?;
                    Self::seen_delayed(server, before, base).await
                }
            };
            Ok(match seen {
                Some(seen) => Hit::seen(&hit, target, seen),
                None => Hit::unseen(&hit, target, "no packet was touched"),
            })
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            if let Some(proxy) = world.proxy() {
                proxy.set(Rules::new());
            }
            for server in world.servers().iter().filter(|server| server.network.is_some()) {
                load(server, CLEAR).await?;
                match self.bad {
                    Bad::Thin => {
                        // An error if there is none, as with all hosts but one.
                        drop(inside(server, &["tc", "qdisc", "del", "dev", LINK, "root"]).await);
                    }
                    Bad::Delay | Bad::Jitter => {
                        inside(server, &["iptables-legacy", "-F", "INPUT"]).await?;
                    }
                    Bad::Loss | Bad::Duplicates => {}
                }
            }
            // After the rules: without a delayer the queue lets pass.
            if let Some(mut delayer) = self.delayer.take() {
                delayer.kill().await.context("ending the delayer")?;
            }
            restore(world).await
        })
    }
}

/// A packet that waits.
struct Waiting {
    until: Instant,
    number: u64,
    packet: nfq::Message,
}

impl Waiting {
    const fn key(&self) -> (Instant, u64) {
        (self.until, self.number)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Lets each packet that the kernel hands to a queue go on after a while. Runs until it is killed.
///
/// # Errors
/// If the queue can't be used.
pub fn delay_packets(queue: u16, base: u64, jitter: u64) -> anyhow::Result<()> {
    let mut from = Queue::open().context("opening a queue of packets")?;
    from.bind(queue).context("binding it")?;
    from.set_nonblocking(true);
    let mut rng = StdRng::seed_from_u64(u64::from(queue));
    let mut waiting = BinaryHeap::new();
    let mut number = 0;
    loop {
        match from.recv() {
            Ok(packet) => {
                let wait = base + if jitter > 0 { rng.random_range(0..=jitter) } else { 0 };
                let until = Instant::now() + Duration::from_millis(wait);
                waiting.push(Reverse(Waiting { until, number, packet }));
                number += 1;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::park_timeout(Duration::from_micros(500));
            }
            Err(error) => return Err(error).context("receiving a packet"),
        }
        while waiting.peek().is_some_and(|Reverse(first)| first.until <= Instant::now()) {
            let Some(Reverse(mut first)) = waiting.pop() else { break };
            first.packet.set_verdict(Verdict::Accept);
            from.verdict(first.packet).context("letting a packet go")?;
        }
    }
}
