//! The command line.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;
use jiff::Timestamp as Moment;
use uuid::Uuid;

use crate::domain::{ClusterId, DeviceId, NodeId, OperatorName, Timestamp};

use super::{CaKind, Pki, PkiError, Subject, summaries, write_root_key};

/// Makes certificates and the root key.
#[derive(Debug, Clone, Subcommand)]
pub enum PkiCommand {
    /// Makes three CAs (node, agent, operator) for a new cluster.
    Init {
        /// New directory for the CAs and their private keys. Keep it off the servers.
        #[arg(long, env = "HOLDFAST_PKI_DIR", default_value = "pki")]
        dir: PathBuf,
        /// Id of the cluster (UUID); a new one if left out.
        #[arg(long)]
        cluster: Option<ClusterId>,
    },
    /// Issues a certificate.
    #[command(subcommand)]
    Issue(IssueCommand),
    /// Makes a root key. Keep a copy in a safe: without it no key can ever be disclosed.
    RootKey {
        /// File to write, with mode 0400. It must not lie in a data directory.
        #[arg(long)]
        out: PathBuf,
    },
    /// Shows the certificates of a PEM file.
    Show {
        /// The file.
        file: PathBuf,
    },
}

/// Whom a certificate is issued for.
#[derive(Debug, Clone, Subcommand)]
pub enum IssueCommand {
    /// For a server.
    Node {
        /// Its id, from 1. Never use the id of a removed node again.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// DNS names and IP addresses that it is reached at.
        #[arg(long = "host", required = true, num_args = 1..)]
        hosts: Vec<String>,
        /// Where to read from and write to, and for how long.
        #[command(flatten)]
        common: IssueArgs,
    },
    /// For a client machine.
    Agent {
        /// Its id (UUID).
        #[arg(long)]
        device: DeviceId,
        /// Where to read from and write to, and for how long.
        #[command(flatten)]
        common: IssueArgs,
    },
    /// For a person.
    Operator {
        /// Its name: letters, digits and any of . - _ @ +
        #[arg(long)]
        name: OperatorName,
        /// Where to read from and write to, and for how long.
        #[command(flatten)]
        common: IssueArgs,
    },
}

/// What all kinds share.
#[derive(Debug, Clone, clap::Args)]
pub struct IssueArgs {
    /// Directory that `pki init` made.
    #[arg(long, env = "HOLDFAST_PKI_DIR", default_value = "pki")]
    dir: PathBuf,
    /// Directory to write the certificate and its private key to.
    #[arg(long, default_value = ".")]
    out: PathBuf,
    /// Days until it expires: 365 for nodes and operators, 90 for agents if left out.
    #[arg(long)]
    days: Option<u32>,
}

/// Runs a command; `out` gets its output.
///
/// # Errors
/// Says what could not be done, and names the file.
pub fn run(command: PkiCommand, now: Timestamp, out: &mut impl Write) -> Result<(), PkiError> {
    match command {
        PkiCommand::Init { dir, cluster } => {
            let cluster = cluster.unwrap_or_else(|| ClusterId::new(Uuid::new_v4()));
            let pki = Pki::init(&dir, cluster, now)?;
            writeln!(out, "cluster {cluster}")?;
            for kind in CaKind::ALL {
                writeln!(out, "{} CA: {}", kind.as_str(), pki.ca_path(kind).display())?;
            }
        }
        PkiCommand::Issue(command) => issue(command, now, out)?,
        PkiCommand::RootKey { out: path } => {
            write_root_key(&path)?;
            writeln!(out, "root key: {}", path.display())?;
            writeln!(out, "Keep a copy in a safe: without it no key can ever be disclosed.")?;
        }
        PkiCommand::Show { file } => {
            for certificate in summaries(&file)? {
                show(&certificate, now, out)?;
            }
        }
    }
    Ok(())
}

fn issue(command: IssueCommand, now: Timestamp, out: &mut impl Write) -> Result<(), PkiError> {
    let (subject, args) = match command {
        IssueCommand::Node { id, hosts, common } => {
            (Subject::Node { id: NodeId::new(id), hosts }, common)
        }
        IssueCommand::Agent { device, common } => (Subject::Agent(device), common),
        IssueCommand::Operator { name, common } => (Subject::Operator(name), common),
    };
    let days = args.days.unwrap_or(subject.default_days());
    let paths = Pki::open(&args.dir)?.issue(&subject, days, &args.out, now)?;
    writeln!(out, "certificate: {}", paths.certificate.display())?;
    writeln!(out, "private key: {}", paths.private_key.display())?;
    Ok(())
}

fn show(
    certificate: &super::CertificateSummary,
    now: Timestamp,
    out: &mut impl Write,
) -> Result<(), PkiError> {
    let state = if certificate.not_after < now {
        " (expired)"
    } else if now < certificate.not_before {
        " (not valid yet)"
    } else {
        ""
    };
    writeln!(out, "subject:    {}", certificate.subject)?;
    writeln!(out, "issuer:     {}", certificate.issuer)?;
    writeln!(out, "serial:     {}", certificate.serial)?;
    writeln!(out, "CA:         {}", if certificate.is_ca { "yes" } else { "no" })?;
    for uri in &certificate.uris {
        writeln!(out, "URI:        {uri}")?;
    }
    for host in &certificate.hosts {
        writeln!(out, "host:       {host}")?;
    }
    writeln!(out, "not before: {}", moment(certificate.not_before))?;
    writeln!(out, "not after:  {}{state}", moment(certificate.not_after))?;
    Ok(())
}

fn moment(time: Timestamp) -> String {
    let seconds = i64::try_from(time.as_millis() / 1000).ok();
    let moment = seconds.and_then(|seconds| Moment::from_second(seconds).ok());
    moment.map_or_else(|| format!("{} ms", time.as_millis()), |moment| moment.to_string())
}
