//! Links between processes on loopback, for whoever is not root: every connection to a server goes over a proxy in this
//! process, which can hold back, slow down and reset what goes from one host to another.
//!
//! All servers have one address for a member, so who makes a connection is found out by its socket: the process that holds
//! it is one of ours. Clients are host 0.
//!
//! What a cut link holds back arrives when it is whole again, as after TCP has sent it once more. Packets can't be lost, sent twice or
//! come in another order here: that needs a network of one's own.

mod relay;
mod source;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use relay::{Behind, relay};
pub use source::Source;
pub(crate) use source::process_of;

/// Whoever is no server.
pub const CLIENTS: u64 = 0;
/// How often it is looked whether a server listens again.
const LOOK: Duration = Duration::from_millis(20);

/// What becomes of what one host sends to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rule {
    /// Nothing arrives.
    pub hold: bool,
    /// Connections end with a reset.
    pub reset: bool,
    /// Connections that the first host makes come to nothing.
    pub no_new: bool,
    /// How late everything is, in milliseconds: at least, and how much more at most.
    pub delay: (u64, u64),
    /// Bytes a second.
    pub rate: Option<u64>,
}

/// Rules by who sends and who receives.
pub type Rules = BTreeMap<(u64, u64), Rule>;

/// What all connections share.
#[derive(Debug)]
struct Shared {
    rules: watch::Sender<Rules>,
    /// Pieces that a rule has touched.
    touched: AtomicU64,
}

impl Shared {
    fn touch(&self) {
        self.touched.fetch_add(1, Ordering::Relaxed);
    }
}

/// A port and what is behind it.
#[derive(Debug)]
struct Port {
    listener: StdListener,
    host: u64,
    target: String,
    /// Whether servers come here, or clients.
    servers: bool,
}

/// All proxies of a run.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    ports: Mutex<Vec<Port>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared { rules: watch::channel(Rules::new()).0, touched: 0.into() }),
            ports: Mutex::default(),
            tasks: Mutex::default(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Whole between two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Takes a port for what is behind it at `target`. Needs no runtime; nobody is served before [`Proxy::start`].
    ///
    /// # Errors
    /// If there is no port.
    pub fn port(&self, host: u64, target: &str, servers: bool) -> anyhow::Result<String> {
        let listener = StdListener::bind("127.0.0.1:0").context("a port for the proxy")?;
        listener.set_nonblocking(true).context("a port for the proxy")?;
        let address = listener.local_addr()?.to_string();
        locked(&self.ports).push(Port { listener, host, target: target.to_owned(), servers });
        Ok(address)
    }

    /// Begins to serve all ports that were taken.
    ///
    /// # Errors
    /// Outside of a runtime.
    pub fn start(&self, source: &Arc<dyn Source>) -> anyhow::Result<()> {
        let mut tasks = locked(&self.tasks);
        for port in locked(&self.ports).drain(..) {
            let address = port.listener.local_addr()?;
            let listener = TcpListener::from_std(port.listener).context("a port for the proxy")?;
            let serve = Serve {
                shared: Arc::clone(&self.shared),
                source: Arc::clone(source),
                address,
                host: port.host,
                target: port.target,
                servers: port.servers,
            };
            tasks.spawn(serve.run(listener));
        }
        Ok(())
    }

    /// Changes the rules.
    pub fn set(&self, rules: Rules) {
        self.shared.touched.store(0, Ordering::Relaxed);
        self.shared.rules.send_replace(rules);
    }

    /// How many pieces and connections the rules have touched since they were set.
    pub fn touched(&self) -> u64 {
        self.shared.touched.load(Ordering::Relaxed)
    }

    /// The rules as they are.
    pub fn rules(&self) -> Rules {
        self.shared.rules.borrow().clone()
    }
}

/// One port that is served.
struct Serve {
    shared: Arc<Shared>,
    source: Arc<dyn Source>,
    address: SocketAddr,
    host: u64,
    target: String,
    servers: bool,
}

impl Serve {
    async fn run(self, listener: TcpListener) {
        let mut listener = Some(listener);
        let mut open = JoinSet::new();
        let (gone, mut noticed) = watch::channel(0_u64);
        loop {
            while open.try_join_next().is_some() {}
            let Some(here) = listener.as_ref() else {
                // Nobody listens behind it, so nobody listens here: whoever knocks is told at once.
                if TcpStream::connect(&self.target).await.is_ok() {
                    listener = TcpListener::bind(self.address).await.ok();
                    noticed.mark_unchanged();
                }
                tokio::time::sleep(LOOK).await;
                continue;
            };
            tokio::select! {
                accepted = here.accept() => {
                    let Ok((stream, from)) = accepted else { continue };
                    self.connect(stream, from, &gone, &mut open).await;
                }
                _ = noticed.changed() => listener = None,
            }
        }
    }

    async fn connect(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        gone: &watch::Sender<u64>,
        open: &mut JoinSet<()>,
    ) {
        let opener = if self.servers {
            let source = Arc::clone(&self.source);
            let address = self.address;
            let found = tokio::task::spawn_blocking(move || source.host_of(from, address)).await;
            found.ok().flatten().unwrap_or(CLIENTS)
        } else {
            CLIENTS
        };
        let (shared, target, gone) = (Arc::clone(&self.shared), self.target.clone(), gone.clone());
        let ends = (opener, self.host);
        open.spawn(async move {
            relay(&shared, stream, Behind { target: &target, gone: &gone }, ends).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Every connection is host 1's.
    #[derive(Debug)]
    struct First;

    impl Source for First {
        fn host_of(&self, _: SocketAddr, _: SocketAddr) -> Option<u64> {
            Some(1)
        }
    }

    /// A server that says everything back, as host 2.
    async fn proxied() -> (Proxy, String, tokio::task::JoinHandle<()>) {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = echo.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut stream, _)) = echo.accept().await {
                open.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    drop(tokio::io::copy(&mut from, &mut to).await);
                });
            }
        });
        let proxy = Proxy::default();
        let address = proxy.port(2, &target, true).unwrap();
        let source: Arc<dyn Source> = Arc::new(First);
        proxy.start(&source).unwrap();
        (proxy, address, server)
    }

    async fn say(stream: &mut TcpStream, within: u64) -> std::io::Result<bool> {
        stream.write_all(b"word").await?;
        let mut heard = [0; 4];
        let read = stream.read_exact(&mut heard);
        match tokio::time::timeout(Duration::from_millis(within), read).await {
            Ok(read) => read.map(|_| heard == *b"word"),
            Err(_) => Ok(false),
        }
    }

    fn only(ends: (u64, u64), rule: Rule) -> Rules {
        Rules::from([(ends, rule)])
    }

    #[tokio::test]
    async fn what_a_cut_link_holds_back_arrives_when_it_is_whole_again() {
        let (proxy, address, _server) = proxied().await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        assert!(say(&mut stream, 5000).await.unwrap());
        for cut in [(1, 2), (2, 1)] {
            proxy.set(only(cut, Rule { hold: true, ..Rule::default() }));
            assert!(!say(&mut stream, 100).await.unwrap(), "{cut:?}");
            assert!(proxy.touched() > 0);
            proxy.set(Rules::new());
            let mut held = [0; 4];
            stream.read_exact(&mut held).await.unwrap();
        }
        proxy.set(only((1, 3), Rule { hold: true, ..Rule::default() }));
        assert!(say(&mut stream, 5000).await.unwrap(), "another link is cut");
    }

    #[tokio::test]
    async fn a_late_link_is_late_and_a_reset_one_ends() {
        let (proxy, address, _server) = proxied().await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        proxy.set(only((1, 2), Rule { delay: (80, 10), ..Rule::default() }));
        let before = std::time::Instant::now();
        assert!(say(&mut stream, 5000).await.unwrap());
        assert!(before.elapsed() >= Duration::from_millis(80));
        proxy.set(only((1, 2), Rule { reset: true, ..Rule::default() }));
        let mut byte = [0];
        let error = stream.read_exact(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_port_closes_with_the_server_behind_it_and_opens_with_it() {
        let (_proxy, address, server) = proxied().await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        assert!(say(&mut stream, 5000).await.unwrap());
        server.abort();
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "the connection ends");
        let knock = TcpStream::connect(&address).await;
        assert_eq!(knock.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
