//! Flags by which a command reaches a cluster, and the client that they make.

use std::path::PathBuf;
use std::time::Duration;

use super::exit::CliError;
use super::token_file;
use crate::client::{Client, ClientOptions};
use crate::tls::Identity;

/// Where the servers are and who is calling. Flags win over the environment.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Servers as host:port, several separated by commas; another one is asked when one doesn't answer
    #[arg(
        id = "client-addr",
        long = "addr",
        env = "HOLDFAST_ADDR",
        global = true,
        value_name = "HOST:PORT,..."
    )]
    pub addr: Option<String>,
    /// CA that the servers' certificates, the escrow key and receipts must chain to (PEM)
    #[arg(
        id = "client-cacert",
        long = "cacert",
        visible_alias = "ca",
        env = "HOLDFAST_CACERT",
        global = true,
        value_name = "FILE"
    )]
    pub cacert: Option<PathBuf>,
    /// The caller's certificate (PEM)
    #[arg(
        id = "client-cert",
        long = "cert",
        env = "HOLDFAST_CERT",
        global = true,
        value_name = "FILE"
    )]
    pub cert: Option<PathBuf>,
    /// The caller's private key (PEM)
    #[arg(
        id = "client-key",
        long = "key",
        env = "HOLDFAST_KEY",
        global = true,
        value_name = "FILE"
    )]
    pub key: Option<PathBuf>,
    /// File with an access token, instead of a certificate or beside one; by default the one that `holdfast login` left, if there
    /// is no certificate
    #[arg(
        id = "client-access-token-file",
        long = "access-token-file",
        env = "HOLDFAST_ACCESS_TOKEN_FILE",
        global = true,
        value_name = "FILE"
    )]
    pub access_token_file: Option<PathBuf>,
    /// Seconds that a call is tried over all servers; changes of members take up to a minute all the same
    #[arg(
        id = "client-timeout",
        long = "timeout",
        env = "HOLDFAST_TIMEOUT",
        global = true,
        value_name = "SECONDS",
        default_value_t = 15
    )]
    pub timeout: u64,
}

impl ConnectionArgs {
    /// What a client needs.
    ///
    /// # Errors
    /// If a flag is missing or not well-formed.
    pub fn options(&self) -> Result<ClientOptions, CliError> {
        let options = self.nameless_options()?;
        let options = match &self.access_token_file {
            Some(file) => options.with_access_token(file),
            None => options,
        };
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(options.with_identity(cert, key)),
            (None, Some(_)) => Err(missing("--cert", "HOLDFAST_CERT")),
            (Some(_), None) => Err(missing("--key", "HOLDFAST_KEY")),
            (None, None) if options.access_token.is_some() => Ok(options),
            (None, None) => match token_file::left_by_login() {
                Some(file) => Ok(options.with_access_token(file)),
                None => Err(missing("--cert and --key", "HOLDFAST_CERT and HOLDFAST_KEY")),
            },
        }
    }

    /// What a client needs that has no certificate.
    ///
    /// # Errors
    /// If a flag is missing or not well-formed.
    pub fn nameless_options(&self) -> Result<ClientOptions, CliError> {
        let addr = self.addr.as_deref().ok_or_else(|| missing("--addr", "HOLDFAST_ADDR"))?;
        let ca = self.cacert.clone().ok_or_else(|| missing("--cacert", "HOLDFAST_CACERT"))?;
        let deadline = Duration::from_secs(self.timeout.clamp(1, 3600));
        Ok(ClientOptions::new(addr, ca)?.with_deadline(deadline))
    }

    /// Name of the operator whose certificate is used, if it is an operator's.
    pub(super) fn caller(&self) -> Option<String> {
        let identity = Identity::load(self.cert.as_deref()?, self.key.as_deref()?).ok()?;
        identity.leaf().uri.split_once("/operator/").map(|(_, name)| name.to_owned())
    }

    /// A client of one server, which is asked and no other one.
    ///
    /// # Errors
    /// If a flag is missing, the address is none, or a file can't be read.
    pub(super) fn client_of(&self, address: &str) -> Result<Client, CliError> {
        Self { addr: Some(address.to_owned()), ..self.clone() }.client()
    }

    /// A client.
    ///
    /// # Errors
    /// If a flag is missing, or a file can't be read.
    pub fn client(&self) -> Result<Client, CliError> {
        Ok(Client::open(self.options()?)?)
    }
}

fn missing(flag: &str, variable: &str) -> CliError {
    CliError::usage(format!(
        "give {flag} or set {variable}; `holdfast dev` prints all four for a try, and `holdfast login` does without a certificate"
    ))
}
