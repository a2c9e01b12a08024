//! The command line.

use std::path::PathBuf;

use clap::Subcommand;
use jiff::Timestamp as Moment;
use serde::Serialize;
use uuid::Uuid;

use crate::cli::output::{Sheet, Show};
use crate::domain::{ClusterId, DeviceId, NodeId, OperatorName, Timestamp};

use super::{CaKind, CertificateSummary, Pki, PkiError, Subject, summaries, write_root_key};

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
    Issue {
        /// Where to read from and write to, and for how long.
        #[command(flatten)]
        common: IssueArgs,
        /// Whom it is for.
        #[command(subcommand)]
        whom: IssueCommand,
    },
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
    },
    /// For a client machine.
    Agent {
        /// Its id (UUID).
        #[arg(long)]
        device: DeviceId,
    },
    /// For a person.
    Operator {
        /// Its name: letters, digits and any of . - _ @ +
        #[arg(long)]
        name: OperatorName,
    },
}

/// What all kinds share; taken before and after the kind.
#[derive(Debug, Clone, clap::Args)]
pub struct IssueArgs {
    /// Directory that `pki init` made.
    #[arg(long, env = "HOLDFAST_PKI_DIR", default_value = "pki", global = true)]
    dir: PathBuf,
    /// Directory to write the certificate and its private key to.
    #[arg(long, default_value = ".", global = true)]
    out: PathBuf,
    /// Days until it expires: 365 for nodes and operators, 90 for agents if left out.
    #[arg(long, global = true)]
    days: Option<u32>,
}

/// What a command made or found.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum PkiView {
    /// New authorities.
    Authorities {
        /// The new cluster.
        cluster_id: ClusterId,
        /// Certificate of the CA of nodes.
        node_ca: PathBuf,
        /// Certificate of the CA of agents.
        agent_ca: PathBuf,
        /// Certificate of the CA of operators.
        operator_ca: PathBuf,
    },
    /// A new certificate.
    Issued {
        /// Its file.
        certificate: PathBuf,
        /// The file of its key.
        private_key: PathBuf,
    },
    /// A new root key.
    RootKey {
        /// Its file.
        root_key: PathBuf,
    },
    /// What a file holds.
    Certificates {
        /// In the order of the file.
        certificates: Vec<CertificateView>,
    },
}

/// A certificate.
#[derive(Debug, Serialize)]
pub struct CertificateView {
    subject: String,
    issuer: String,
    serial: String,
    is_ca: bool,
    uris: Vec<String>,
    hosts: Vec<String>,
    not_before: String,
    not_after: String,
    expired: bool,
    not_valid_yet: bool,
}

impl CertificateView {
    fn new(certificate: CertificateSummary, now: Timestamp) -> Self {
        Self {
            not_before: moment(certificate.not_before),
            not_after: moment(certificate.not_after),
            expired: certificate.not_after < now,
            not_valid_yet: now < certificate.not_before,
            subject: certificate.subject,
            issuer: certificate.issuer,
            serial: certificate.serial,
            is_ca: certificate.is_ca,
            uris: certificate.uris,
            hosts: certificate.hosts,
        }
    }

    fn lines(&self, sheet: Sheet) -> Sheet {
        let state = match (self.expired, self.not_valid_yet) {
            (true, _) => " (expired)",
            (false, true) => " (not valid yet)",
            (false, false) => "",
        };
        let mut sheet = sheet
            .line(format!("subject:    {}", self.subject))
            .line(format!("issuer:     {}", self.issuer))
            .line(format!("serial:     {}", self.serial))
            .line(format!("CA:         {}", if self.is_ca { "yes" } else { "no" }));
        for uri in &self.uris {
            sheet = sheet.line(format!("URI:        {uri}"));
        }
        for host in &self.hosts {
            sheet = sheet.line(format!("host:       {host}"));
        }
        sheet
            .line(format!("not before: {}", self.not_before))
            .line(format!("not after:  {}{state}", self.not_after))
    }
}

impl Show for PkiView {
    fn sheet(&self) -> Sheet {
        match self {
            Self::Authorities { cluster_id, node_ca, agent_ca, operator_ca } => Sheet::new()
                .line(format!("cluster {cluster_id}"))
                .line(format!("node CA: {}", node_ca.display()))
                .line(format!("agent CA: {}", agent_ca.display()))
                .line(format!("operator CA: {}", operator_ca.display())),
            Self::Issued { certificate, private_key } => Sheet::new()
                .line(format!("certificate: {}", certificate.display()))
                .line(format!("private key: {}", private_key.display())),
            Self::RootKey { root_key } => Sheet::new()
                .line(format!("root key: {}", root_key.display()))
                .line("Keep a copy in a safe: without it no key can ever be disclosed."),
            Self::Certificates { certificates } => {
                certificates.iter().fold(Sheet::new(), |sheet, found| found.lines(sheet))
            }
        }
    }
}

/// Runs a command.
///
/// # Errors
/// Says what could not be done, and names the file.
pub fn run(command: PkiCommand, now: Timestamp) -> Result<PkiView, PkiError> {
    match command {
        PkiCommand::Init { dir, cluster } => {
            let cluster_id = cluster.unwrap_or_else(|| ClusterId::new(Uuid::new_v4()));
            let pki = Pki::init(&dir, cluster_id, now)?;
            Ok(PkiView::Authorities {
                cluster_id,
                node_ca: pki.ca_path(CaKind::Node),
                agent_ca: pki.ca_path(CaKind::Agent),
                operator_ca: pki.ca_path(CaKind::Operator),
            })
        }
        PkiCommand::Issue { common, whom } => issue(whom, &common, now),
        PkiCommand::RootKey { out } => {
            write_root_key(&out)?;
            Ok(PkiView::RootKey { root_key: out })
        }
        PkiCommand::Show { file } => {
            let found = summaries(&file)?.into_iter();
            let certificates = found.map(|found| CertificateView::new(found, now)).collect();
            Ok(PkiView::Certificates { certificates })
        }
    }
}

fn issue(whom: IssueCommand, args: &IssueArgs, now: Timestamp) -> Result<PkiView, PkiError> {
    let subject = match whom {
        IssueCommand::Node { id, hosts } => Subject::Node { id: NodeId::new(id), hosts },
        IssueCommand::Agent { device } => Subject::Agent(device),
        IssueCommand::Operator { name } => Subject::Operator(name),
    };
    let days = args.days.unwrap_or(subject.default_days());
    let paths = Pki::open(&args.dir)?.issue(&subject, days, &args.out, now)?;
    Ok(PkiView::Issued { certificate: paths.certificate, private_key: paths.private_key })
}

fn moment(time: Timestamp) -> String {
    let seconds = i64::try_from(time.as_millis() / 1000).ok();
    let moment = seconds.and_then(|seconds| Moment::from_second(seconds).ok());
    moment.map_or_else(|| format!("{} ms", time.as_millis()), |moment| moment.to_string())
}
