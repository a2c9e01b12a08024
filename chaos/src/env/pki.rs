//! Certificates and configurations, made with the product's own command line as docs/operations.md says.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use uuid::Uuid;

use super::command::call_blocking;
use super::files;
use super::server::Server;

/// The first administrator.
pub const ADMINISTRATOR: &str = "admin";
/// Who works at the help desk.
pub const HELP_DESK: &str = "helen";
/// Who reads the audit.
pub const AUDITOR: &str = "arthur";
/// Who reads reports.
pub const READER: &str = "rita";

/// Everything that clients and servers are known by.
#[derive(Debug, Clone)]
pub struct Papers {
    program: String,
    dir: PathBuf,
}

impl Papers {
    /// Makes the authorities, the root key and the operators.
    ///
    /// # Errors
    /// If the product's command line fails.
    pub fn make(program: &Path, dir: PathBuf) -> anyhow::Result<Self> {
        let papers = Self { program: program.display().to_string(), dir };
        std::fs::create_dir_all(&papers.dir).context("a directory for certificates")?;
        let (pki, root_key) = (text(&papers.pki()), text(&papers.root_key()));
        papers.holdfast(&["pki", "init", "--dir", &pki])?;
        papers.holdfast(&["pki", "root-key", "--out", &root_key])?;
        for name in [ADMINISTRATOR, HELP_DESK, AUDITOR, READER] {
            papers.issue(&["operator", "--name", name])?;
        }
        Ok(papers)
    }

    fn holdfast(&self, args: &[&str]) -> anyhow::Result<String> {
        call_blocking(&self.program, args, "")
    }

    fn issue(&self, whom: &[&str]) -> anyhow::Result<String> {
        let (pki, out) = (text(&self.pki()), text(&self.dir));
        let common = ["pki", "issue", "--dir", &pki, "--out", &out];
        self.holdfast(&[&common, whom].concat())
    }

    /// The directory that `pki init` made.
    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// The CA that clients pin.
    pub fn client_ca(&self) -> PathBuf {
        self.pki().join("node-ca.pem")
    }

    fn root_key(&self) -> PathBuf {
        self.dir.join("root.key")
    }

    /// Certificate and private key of an operator.
    pub fn operator(&self, name: &str) -> (PathBuf, PathBuf) {
        self.pair(&format!("operator-{name}"))
    }

    /// Issues an operator's certificate.
    ///
    /// # Errors
    /// If the product's command line fails.
    pub fn issue_operator(&self, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        self.issue(&["operator", "--name", name])?;
        Ok(self.operator(name))
    }

    /// Issues a device's certificate.
    ///
    /// # Errors
    /// If the product's command line fails.
    pub fn issue_agent(&self, device: Uuid) -> anyhow::Result<(PathBuf, PathBuf)> {
        self.issue(&["agent", "--device", &device.to_string()])?;
        Ok(self.pair(&format!("agent-{device}")))
    }

    fn pair(&self, stem: &str) -> (PathBuf, PathBuf) {
        (self.dir.join(format!("{stem}.pem")), self.dir.join(format!("{stem}.key")))
    }

    fn cluster_id(&self) -> anyhow::Result<String> {
        let path = self.pki().join("cluster.json");
        let read = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let read: serde_json::Value = serde_json::from_slice(&read)?;
        Ok(read.get("cluster_id").and_then(|id| id.as_str()).context("no cluster id")?.to_owned())
    }

    /// Issues the certificate of the server with its present id, and writes its configuration.
    ///
    /// # Errors
    /// If the command line fails or the file can't be written.
    pub fn equip(&self, server: &Server, settings: &toml::Table) -> anyhow::Result<()> {
        let id = server.id();
        let host = server.addresses.client.rsplit_once(':').map_or("", |(host, _)| host);
        self.issue(&["node", "--id", &id.to_string(), "--host", host])?;
        let (cert, key) = self.pair(&format!("node-{id}"));
        let mut tls = toml::Table::new();
        for (name, path) in [
            ("node_ca", self.pki().join("node-ca.pem")),
            ("agent_ca", self.pki().join("agent-ca.pem")),
            ("operator_ca", self.pki().join("operator-ca.pem")),
            ("cert", cert),
            ("key", key),
        ] {
            tls.insert(name.to_owned(), text(&path).into());
        }
        let mut config = settings.clone();
        config.insert("node_id".to_owned(), i64::try_from(id)?.into());
        for (name, value) in [
            ("cluster_id", self.cluster_id()?),
            ("data_dir", text(&server.data_dir())),
            ("client_listen", server.addresses.client_listen.clone()),
            ("peer_listen", server.addresses.peer_listen.clone()),
            ("http_listen", server.addresses.http.clone()),
            ("auto_unseal_key_file", text(&self.root_key())),
        ] {
            config.insert(name.to_owned(), value.into());
        }
        config.insert("tls".to_owned(), tls.into());
        files::write(&server.config_path(), config.to_string().as_bytes())
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
