//! Ctrl-C and SIGTERM, from the first moment on: also while hosts are made, and while they are taken away.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Counts the signals that ask this process to end. It does not end by them any more.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<u32>);

impl Interrupt {
    /// Begins to listen, on a thread of its own.
    ///
    /// # Errors
    /// If the signals can't be listened to.
    pub fn listen() -> anyhow::Result<Self> {
        let (count, counted) = watch::channel(0_u32);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = {
            let _inside = runtime.enter();
            [signal(SignalKind::interrupt()), signal(SignalKind::terminate())]
        };
        let [int, term] = signals;
        let (mut int, mut term) = (int.context("SIGINT")?, term.context("SIGTERM")?);
        let listen = async move {
            loop {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                }
                count.send_modify(|count| *count = count.saturating_add(1));
            }
        };
        let thread = std::thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || runtime.block_on(listen)).context("a thread for signals")?;
        Ok(Self(counted))
    }

    /// One that is never interrupted.
    pub fn never() -> Self {
        Self(watch::channel(0).1)
    }

    /// Whether the process was asked to end.
    pub fn happened(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Fails if the process was asked to end.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.happened(), "interrupted");
        Ok(())
    }

    /// Completes when the process was asked to end so many times.
    pub async fn times(&self, times: u32) {
        let mut counted = self.0.clone();
        if counted.wait_for(|count| *count >= times).await.is_err() {
            // Nobody listens: it never happens.
            std::future::pending::<()>().await;
        }
    }
}
