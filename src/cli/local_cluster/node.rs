//! One server of a local cluster, as a child process.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use super::error::LocalError;
use super::files::{NodePorts, io, last_lines, open_log, write_atomically};
use crate::cli::pki::{CaKind, IssuedPaths, Pki};

/// How long a server may take to hand over, drain and end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How many of its last lines are shown when a server ended by itself.
const LAST_LINES: usize = 12;

/// A server: its files, and its process while it runs.
pub struct LocalNode {
    ports: NodePorts,
    dir: PathBuf,
    child: Option<Child>,
}

impl LocalNode {
    pub(super) const fn new(ports: NodePorts, dir: PathBuf) -> Self {
        Self { ports, dir, child: None }
    }

    /// Its ports.
    pub const fn ports(&self) -> &NodePorts {
        &self.ports
    }

    /// Its id.
    pub const fn id(&self) -> u64 {
        self.ports.id
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Its log: what it wrote to stderr, in all its lives.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log.txt")
    }

    /// Its configuration.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("holdfast.toml")
    }

    /// Its process, if it was started and not stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Writes its configuration.
    pub(super) fn configure(
        &self,
        pki: &Pki,
        identity: &IssuedPaths,
        root_key: &Path,
        extra: &toml::Table,
    ) -> Result<(), LocalError> {
        std::fs::create_dir_all(&self.dir).map_err(io(&self.dir))?;
        let mut tls = toml::Table::new();
        let mut put = |name: &str, path: &Path| {
            tls.insert(name.to_owned(), path.display().to_string().into());
        };
        put("node_ca", &pki.ca_path(CaKind::Node));
        put("agent_ca", &pki.ca_path(CaKind::Agent));
        put("operator_ca", &pki.ca_path(CaKind::Operator));
        put("cert", &identity.certificate);
        put("key", &identity.private_key);
        let mut config = toml::Table::new();
        let id = i64::try_from(self.ports.id).unwrap_or(i64::MAX);
        config.insert("node_id".to_owned(), id.into());
        let texts = [
            ("cluster_id", pki.cluster().to_string()),
            ("data_dir", self.data_dir().display().to_string()),
            ("client_listen", self.ports.client_address()),
            ("peer_listen", self.ports.peer_address()),
            ("http_listen", self.ports.http_address()),
            ("auto_unseal_key_file", root_key.display().to_string()),
        ];
        for (name, text) in texts {
            config.insert(name.to_owned(), text.into());
        }
        config.insert("tls".to_owned(), tls.into());
        for (name, value) in extra {
            config.insert(name.clone(), value.clone());
        }
        write_atomically(&self.config_path(), config.to_string().as_bytes())
    }

    /// Starts the process. It ends with this one, however this one ends: it watches its standard input.
    pub(super) fn spawn(&mut self, binary: &Path) -> Result<(), LocalError> {
        let log = open_log(&self.log_path())?;
        let mut command = Command::new(binary);
        command.arg("server").arg("--config").arg(self.config_path()).arg("--exit-with-stdin");
        // The configuration is the file's alone: variables of this shell are meant for clients.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOLDFAST_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        // A process group of its own: Ctrl-C in a terminal is for this process, which then stops the servers in order.
        command.process_group(0).kill_on_drop(true);
        self.child = Some(command.spawn().map_err(io(binary))?);
        Ok(())
    }

    /// Kills it at once, as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// If it can't be waited for.
    pub async fn kill(&mut self) -> Result<(), LocalError> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.map_err(io(&self.dir))?;
        }
        Ok(())
    }

    /// Asks it to stop (SIGTERM): it must not wait any longer than this takes.
    pub(super) fn ask_to_stop(&self) -> Result<(), LocalError> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        match pid.map(|pid| kill_process(pid, Signal::TERM)) {
            // A process that has just ended needs no asking.
            None | Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => Ok(()),
            Some(Err(errno)) => Err(io(&self.dir)(errno.into())),
        }
    }

    /// Waits until it has ended after [`LocalNode::ask_to_stop`], with exit code 0.
    pub(super) async fn wait_stopped(&mut self) -> Result<(), LocalError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // The end of its input stays open until it has ended: closing it would be another way to say stop.
        match tokio::time::timeout(STOP_DEADLINE, wait_keeping_stdin(&mut child)).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.ended(&status.to_string())),
            Ok(Err(error)) => Err(io(&self.dir)(error)),
            Err(_) => {
                child.kill().await.map_err(io(&self.dir))?;
                Err(LocalError::NotStopped { node: self.id(), waited: STOP_DEADLINE })
            }
        }
    }

    /// Says so if the process ended by itself.
    ///
    /// # Errors
    /// With its last words, if it did.
    pub fn check_running(&mut self) -> Result<(), LocalError> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        match child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                self.child = None;
                Err(self.ended(&status.to_string()))
            }
            Err(error) => Err(io(&self.dir)(error)),
        }
    }

    /// Waits until the process has ended by itself, and says how.
    ///
    /// # Errors
    /// If it goes on beyond the limit; it is left alone then.
    pub async fn wait_ended(&mut self, limit: Duration) -> Result<ExitStatus, LocalError> {
        let goes_on = LocalError::NotStopped { node: self.id(), waited: limit };
        let Some(child) = self.child.as_mut() else { return Err(goes_on) };
        match tokio::time::timeout(limit, wait_keeping_stdin(child)).await {
            Ok(Ok(status)) => {
                self.child = None;
                Ok(status)
            }
            Ok(Err(error)) => Err(io(&self.dir)(error)),
            Err(_) => Err(goes_on),
        }
    }

    fn ended(&self, status: &str) -> LocalError {
        LocalError::Ended {
            node: self.id(),
            status: status.to_owned(),
            last: last_lines(&self.log_path(), LAST_LINES),
        }
    }
}

/// Like [`Child::wait`], which closes the child's standard input first: for a server that is another way to say stop.
///
/// # Errors
/// If the operating system can't wait for it.
pub async fn wait_keeping_stdin(child: &mut Child) -> std::io::Result<ExitStatus> {
    // It goes back to the child even if this is given up.
    struct Kept<'a>(&'a mut Child, Option<ChildStdin>);
    impl Drop for Kept<'_> {
        fn drop(&mut self) {
            self.0.stdin = self.1.take();
        }
    }
    let stdin = child.stdin.take();
    let kept = Kept(child, stdin);
    kept.0.wait().await
}
