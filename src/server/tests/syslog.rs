//! Checkpoints that a server sends to a collector of logs.

use std::net::SocketAddr;
use std::path::PathBuf;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::checkpoints::metric;
use super::*;
use crate::client::evidence::Checkpoint;
use crate::crypto::testing::now;
use crate::domain::Role;
use crate::service::Consensus as _;
use crate::state::Heads;
use crate::tls::{enrolment_port_config, peer_port_config};

/// What a collector does with a connection.
#[derive(Clone)]
enum Manner {
    /// Reads to the end, and ends.
    Listens,
    /// The same over TLS.
    Tls(TlsAcceptor),
    /// Reads a few bytes and dies: the rest is lost.
    Dies,
    /// Ends the connection before it hears anything.
    Leaves,
    /// Never reads.
    Hangs,
}

/// A collector of logs on a port of its own, until it is dropped.
struct Collector {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// On a port that is free, or on the one that it had before.
    async fn start(manner: Manner, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::default());
        let (hears, counts) = (Arc::clone(&heard), Arc::<Mutex<usize>>::clone(&connections));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *counts.lock() += 1;
                serve(&manner, stream, &hears).await;
            }
        });
        Self { address, heard, connections, task }
    }

    /// Ends it for good, with its socket.
    async fn kill(mut self) -> u16 {
        self.task.abort();
        drop((&mut self.task).await);
        self.address.port()
    }

    /// The records that it has heard checkpoints of, in the order in which they came; each of them is verified.
    fn sequences(&self, running: &Running) -> Vec<u64> {
        let ca = running.bench.ca.authority();
        let read = |message: &String| {
            let (header, text) = message.split_once("] ").unwrap();
            let start = "<109>1 20";
            let origin = " localhost holdfast ";
            assert!(header.starts_with(start) && header.contains(origin), "{header}");
            let checkpoint = Checkpoint::from_line(text.as_bytes()).unwrap();
            checkpoint.verify(&ca, now()).unwrap();
            let sequence = checkpoint.facts.head.sequence;
            assert!(header.contains(&format!("sequence=\"{sequence}\"")), "{header}");
            sequence
        };
        self.heard.lock().iter().map(read).collect()
    }

    /// Waits until it has heard of the newest record.
    async fn level(&self, running: &Running) -> Vec<u64> {
        let deadline = Instant::now() + LONG;
        loop {
            let head = Heads::load(running.bench.fake.as_ref().view()).unwrap().audit.sequence;
            let sequences = self.sequences(running);
            if sequences.contains(&head) {
                return sequences;
            }
            assert!(Instant::now() < deadline, "{sequences:?} without {head}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn serve(manner: &Manner, mut stream: TcpStream, heard: &Mutex<Vec<String>>) {
    match manner {
        Manner::Listens => listen_to(stream, heard).await,
        Manner::Tls(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                listen_to(stream, heard).await;
            }
        }
        Manner::Dies => {
            stream.read_exact(&mut [0; 10]).await.unwrap();
            // Closed with something unread: as the kernel does it for a process that is killed.
            stream.readable().await.unwrap();
        }
        Manner::Leaves => drop(stream),
        Manner::Hangs => std::future::pending().await,
    }
}

async fn listen_to(mut stream: impl AsyncRead + AsyncWrite + Unpin, heard: &Mutex<Vec<String>>) {
    let mut bytes = Vec::new();
    if stream.read_to_end(&mut bytes).await.is_ok() {
        heard.lock().extend(frames(&bytes));
        stream.shutdown().await.unwrap();
    }
}

/// What stands in a stream: each message after its length.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&bytes[..blank]).unwrap().parse().unwrap();
        let (message, rest) = bytes[blank + 1..].split_at(length);
        found.push(String::from_utf8(message.to_vec()).unwrap());
        bytes = rest;
    }
    found
}

/// A configuration that sends to this port.
fn sending(bench: &Bench, port: u16, ca: Option<&TestCa>) -> Config {
    let mut config = config(bench, 8);
    let scheme = if ca.is_some() { "tls" } else { "tcp" };
    config.audit.syslog = Some(format!("{scheme}://localhost:{port}").parse().unwrap());
    config.audit.syslog_spool = Some(spool(bench));
    config.audit.syslog_ca = ca.map(|ca| {
        let path = bench.dir.path().join("collector-ca.pem");
        let file = std::fs::File::create(&path);
        std::io::Write::write_all(&mut file.unwrap(), ca.pem().as_bytes()).unwrap();
        path
    });
    config
}

fn spool(bench: &Bench) -> PathBuf {
    bench.dir.path().join("spool")
}

/// The records that checkpoints wait to be sent of.
fn waiting(bench: &Bench) -> Vec<u64> {
    // Before the server has made it nothing waits.
    let files = std::fs::read_dir(spool(bench)).into_iter().flatten();
    let files = files.map(|entry| entry.unwrap().path());
    let waiting = files.filter(|path| path.extension().is_some_and(|kind| kind == "waiting"));
    let read = waiting.filter_map(|path| std::fs::read(path).ok());
    let lines = read.map(|line| Checkpoint::from_line(line.trim_ascii_end()).unwrap());
    lines.map(|checkpoint| checkpoint.facts.head.sequence).collect()
}

/// Waits until checkpoints wait of this many different heads.
async fn until_wait(bench: &Bench, count: usize) -> Vec<u64> {
    let deadline = Instant::now() + LONG;
    loop {
        let waiting = waiting(bench);
        if waiting.len() >= count {
            return waiting;
        }
        assert!(Instant::now() < deadline, "{waiting:?} wait, not {count}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_collector_that_was_killed_and_came_back_has_every_checkpoint_also_over_a_restart() {
    let collector = Collector::start(Manner::Listens, 0).await;
    let bench = Bench::ready().await;
    let config = sending(&bench, collector.address.port(), None);
    let running = Running::start_with(bench, config.clone()).await;
    collector.level(&running).await;
    metric(&running, "audit_syslog_failing", 0).await;
    metric(&running, "audit_syslog_waiting", 0).await;
    let port = collector.kill().await;
    running.bench.grant(60, "bob", Role::HelpDesk).await;
    metric(&running, "audit_syslog_failing", 1).await;
    until_wait(&running.bench, 1).await;
    // Nobody who uses the server notices.
    EscrowServiceClient::new(running.agent().await)
        .escrow_recovery_key(escrow_request(&running.bench))
        .await
        .unwrap();
    let missed = until_wait(&running.bench, 2).await;
    let running = Running::start_with(running.stop().await.0, config).await;
    let collector = Collector::start(Manner::Listens, port).await;
    let heard = collector.level(&running).await;
    assert!(missed.iter().all(|sequence| heard.contains(sequence)), "{missed:?} in {heard:?}");
    metric(&running, "audit_syslog_failing", 0).await;
    metric(&running, "audit_syslog_waiting", 0).await;
    metric(&running, "audit_syslog_lag_seconds", 0).await;
}

#[tokio::test]
async fn what_a_collector_had_not_read_when_it_died_is_sent_once_more() {
    for manner in [Manner::Dies, Manner::Leaves] {
        let collector = Collector::start(manner, 0).await;
        let bench = Bench::ready().await;
        let config = sending(&bench, collector.address.port(), None);
        let running = Running::start_with(bench, config).await;
        metric(&running, "audit_syslog_failing", 1).await;
        let missed = until_wait(&running.bench, 1).await;
        assert!(*collector.connections.lock() > 0);
        let collector = Collector::start(Manner::Listens, collector.kill().await).await;
        let heard = collector.level(&running).await;
        assert!(missed.iter().all(|sequence| heard.contains(sequence)), "{missed:?} {heard:?}");
    }
}

#[tokio::test]
async fn a_collector_that_takes_nothing_holds_up_nobody() {
    let collector = Collector::start(Manner::Hangs, 0).await;
    let bench = Bench::ready().await;
    let config = sending(&bench, collector.address.port(), None);
    let running = Running::start_with(bench, config).await;
    for (n, name) in [(60, "bob"), (61, "carol")] {
        let before = waiting(&running.bench).len();
        running.bench.grant(n, name, Role::HelpDesk).await;
        until_wait(&running.bench, before + 1).await;
    }
    EscrowServiceClient::new(running.agent().await)
        .escrow_recovery_key(escrow_request(&running.bench))
        .await
        .unwrap();
    let (bench, outcome) = running.stop().await;
    assert_eq!(outcome, Outcome::Stopped);
    assert!(waiting(&bench).len() >= 2, "they wait for the next start");
}

#[tokio::test]
async fn over_tls_the_collector_is_known_by_its_ca_and_knows_the_server_by_its_certificate() {
    let (bench, collectors) = (Bench::ready().await, TestCa::new("collector"));
    // It asks for a certificate of the node CA.
    let own = identity(collectors.make(&Order::uris(&["https://logs.example.org"])));
    let acceptor = peer_port_config(&bench.ca.authority(), &own).unwrap();
    let manner = Manner::Tls(TlsAcceptor::from(acceptor));
    let collector = Collector::start(manner.clone(), 0).await;
    let config = sending(&bench, collector.address.port(), Some(&collectors));
    let running = Running::start_with(bench, config).await;
    collector.level(&running).await;
    metric(&running, "audit_syslog_failing", 0).await;

    // Somebody else's, at the same place, hears nothing.
    let port = collector.kill().await;
    let stranger = TestCa::new("collector");
    let other = identity(stranger.make(&Order::uris(&["https://logs.example.org"])));
    let impostor = TlsAcceptor::from(enrolment_port_config(&other).unwrap());
    let impostor = Collector::start(Manner::Tls(impostor), port).await;
    running.bench.grant(60, "bob", Role::HelpDesk).await;
    metric(&running, "audit_syslog_failing", 1).await;
    let missed = until_wait(&running.bench, 1).await;
    assert!(impostor.heard.lock().is_empty());
    let collector = Collector::start(manner, impostor.kill().await).await;
    let heard = collector.level(&running).await;
    assert!(missed.iter().all(|sequence| heard.contains(sequence)), "{missed:?} in {heard:?}");
    let (_, page) = running.get("/metrics").await;
    assert!(page.contains("holdfast_audit_syslog_unconfirmed_total 0\n"), "{page}");
}
