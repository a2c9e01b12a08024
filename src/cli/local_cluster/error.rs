//! Why a cluster on this machine doesn't work.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::pki::PkiError;
use crate::client::ClientError;

/// A local cluster can't be made, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A file or directory can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file that describes the cluster is damaged.
    #[error("{}: {what}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another process has its cluster there.
    #[error("{} is in use: another `holdfast dev` or `demo` runs there", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory is somebody else's.
    #[error("{} is not empty, and no cluster is in it: give a new or empty directory", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process listens on a port of the cluster. Its nodes know each other by their ports.
    #[error(
        "port {port} of node {node} is taken; is the cluster running already? Stop whatever listens there"
    )]
    PortTaken {
        /// The node.
        node: u64,
        /// The port.
        port: u16,
    },
    /// There are not enough free ports.
    #[error("no free ports on 127.0.0.1")]
    NoPorts,
    /// There is no such node.
    #[error("there is no node {0}")]
    NoNode(u64),
    /// A server ended by itself.
    #[error("node {node} ended by itself ({status}); its last words:\n{last}")]
    Ended {
        /// The node.
        node: u64,
        /// How.
        status: String,
        /// The last lines of its log.
        last: String,
    },
    /// A condition did not come true in time.
    #[error("{what}: not within {waited:?}{}", because(last))]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// Why it was not so the last time it was looked at.
        last: String,
    },
    /// A server took a signal, but did not end in time.
    #[error("node {node} did not stop within {waited:?}")]
    NotStopped {
        /// The node.
        node: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Certificates could not be made.
    #[error("making certificates: {0}")]
    Pki(#[from] PkiError),
    /// The cluster answered with an error.
    #[error(transparent)]
    Client(#[from] ClientError),
}

fn because(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!(" ({last})") }
}
