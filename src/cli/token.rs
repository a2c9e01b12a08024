//! `holdfast enrol token` and `holdfast agent-ca`: what administrators do so that devices can enrol.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_proto::v1;
use serde::Serialize;

use super::exit::{CliError, Exit};
use super::output::{Sheet, Show, dash, time};
use super::pki::write_private;
use super::values::guid;
use super::views::ChangedView;
use super::{Context, Done};
use crate::client::NewToken;
use crate::clock::{Clock as _, SystemClock};
use crate::crypto::{EnrolmentToken, certificate_pem, system_rng};
use crate::domain::{DeviceId, Fingerprint, GroupName, TokenBinding, TokenId};

/// What to do with tokens.
#[derive(Debug, clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Issue a token. It is made here, shown once, and kept by nobody: the cluster gets a hash of it
    Create(CreateArgs),
    /// List tokens, without their secrets
    List,
    /// Revoke a token; certificates that it gave stay good
    Revoke {
        /// Its id
        #[arg(value_parser = guid::<TokenId>)]
        token: TokenId,
    },
}

/// Whom a token is for.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// The one device that may enrol with it
    #[arg(long, value_name = "UUID", value_parser = guid::<DeviceId>, required_unless_present = "group")]
    device: Option<DeviceId>,
    /// Group of the devices that may enrol with it
    #[arg(long, value_name = "NAME", requires = "count", conflicts_with = "device")]
    group: Option<GroupName>,
    /// How many devices may enrol with it
    #[arg(long, value_name = "N", requires = "group", conflicts_with = "device")]
    count: Option<u32>,
    /// How long it is valid: 30m, 24h or 7d; a minute to 90 days
    #[arg(long, default_value = "24h", value_parser = ttl)]
    ttl: Duration,
    /// File for the token, for its owner alone; without it the token is printed
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl CreateArgs {
    fn binding(&self) -> Result<TokenBinding, CliError> {
        match (self.device, &self.group, self.count) {
            (Some(device), _, _) => Ok(TokenBinding::Device(device)),
            (None, Some(group), Some(count)) => Ok(TokenBinding::group(group.clone(), count)?),
            (None, _, _) => Err(CliError::usage("give --device, or --group and --count")),
        }
    }
}

/// A number and a unit.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    let bad = || "must be a number and s, m, h or d, such as 24h".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(bad)
}

pub(super) async fn run(context: &Context, command: TokenCommand) -> Done {
    let client = context.connection.client()?;
    match command {
        TokenCommand::Create(args) => {
            let token = EnrolmentToken::generate(&mut system_rng());
            let new = NewToken { binding: args.binding()?, ttl: args.ttl, token };
            // Before the call: a token that is issued has to have a place to go.
            if let Some(path) = &args.out {
                let text = format!("{}\n", new.token.expose_text().as_str());
                write_private(path, zeroize::Zeroizing::new(text).as_bytes())?;
            }
            let issued = client.issue_token(&new).await.map_err(CliError::from);
            let expires_at_ms = issued.map_err(|mut error| {
                if let Some(Err(kept)) = args.out.as_ref().map(std::fs::remove_file) {
                    error.add(format!("the file of the token stays behind: {kept}"));
                }
                error
            })?;
            context.printer.print(&NewTokenView {
                token_id: new.token.id(),
                binding: new.binding.to_string(),
                token: args.out.is_none().then(|| new.token.expose_text().to_string()),
                file: args.out,
                expires_at_ms,
            })?;
        }
        TokenCommand::List => {
            let now = SystemClock.now().as_millis();
            let tokens = client.tokens().await?.into_iter();
            let tokens = tokens.map(|token| TokenView::new(token, now)).collect();
            context.printer.print(&TokensView { tokens })?;
        }
        TokenCommand::Revoke { token } => {
            let changed = client.revoke_token(token).await?;
            let what = format!("token {token} is revoked");
            context.printer.print(&ChangedView { what, changed })?;
        }
    }
    Ok(Exit::Ok)
}

/// A token that was just issued.
#[derive(Serialize)]
struct NewTokenView {
    token_id: TokenId,
    binding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    expires_at_ms: u64,
}

impl Show for NewTokenView {
    fn sheet(&self) -> Sheet {
        let sheet = Sheet::new().facts([
            ("token id", self.token_id.to_string()),
            ("for", self.binding.clone()),
            ("valid until", time(self.expires_at_ms)),
        ]);
        match (&self.token, &self.file) {
            (Some(token), _) => sheet.line(token),
            (None, Some(file)) => sheet.line(format!("The token is in {}.", file.display())),
            (None, None) => sheet,
        }
    }
}

#[derive(Debug, Serialize)]
struct TokensView {
    tokens: Vec<TokenView>,
}

#[derive(Debug, Serialize)]
struct TokenView {
    token_id: String,
    device_id: String,
    group: String,
    count: u32,
    used: u32,
    issued_by: String,
    issued_at_ms: u64,
    expires_at_ms: u64,
    state: &'static str,
}

impl TokenView {
    fn new(token: v1::EnrolmentToken, now_ms: u64) -> Self {
        let state = match &token {
            token if token.revoked => "revoked",
            token if token.used >= token.count => "used",
            token if token.expires_at_ms < now_ms => "expired",
            _ => "valid",
        };
        Self {
            token_id: token.token_id,
            device_id: token.device_id,
            group: token.group,
            count: token.count,
            used: token.used,
            issued_by: token.issued_by,
            issued_at_ms: token.issued_at_ms,
            expires_at_ms: token.expires_at_ms,
            state,
        }
    }
}

impl Show for TokensView {
    fn sheet(&self) -> Sheet {
        let rows = self.tokens.iter().map(|token| {
            [
                token.token_id.clone(),
                dash(&token.device_id),
                dash(&token.group),
                format!("{} of {}", token.used, token.count),
                token.issued_by.clone(),
                time(token.expires_at_ms),
                token.state.to_owned(),
            ]
        });
        let header = ["token", "device", "group", "used", "issued by", "valid until", "state"];
        Sheet::new().table(header, rows)
    }
}

/// What to do with the CA of devices.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AgentCaCommand {
    /// Make the CA that signs the certificates of devices. Its private key stays in the cluster
    Create {
        /// Make another one that signs from now on; certificates of the one before stay good until they end
        #[arg(long)]
        replace: bool,
    },
    /// List these CAs, with their certificates
    List,
}

pub(super) async fn run_agent_ca(context: &Context, command: AgentCaCommand) -> Done {
    let client = context.connection.client()?;
    match command {
        AgentCaCommand::Create { replace } => {
            let last = if replace { client.agent_cas().await?.len() } else { 0 };
            let number = u32::try_from(last.saturating_add(1)).unwrap_or(u32::MAX);
            let made = client.create_agent_ca(number).await.map_err(CliError::from);
            let made = made.map_err(|mut error| {
                if error.reason() == "AGENT_CA_NUMBER" && !replace {
                    error.add("there is one already: --replace makes the next one".to_owned());
                }
                error
            })?;
            context.printer.print(&AgentCaView::from(made))?;
        }
        AgentCaCommand::List => {
            let cas = client.agent_cas().await?.into_iter().map(AgentCaView::from);
            context.printer.print(&AgentCasView { agent_cas: cas.collect() })?;
        }
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Serialize)]
struct AgentCaView {
    number: u32,
    fingerprint: String,
    not_after_ms: u64,
    certificate_pem: String,
}

impl From<v1::AgentCa> for AgentCaView {
    fn from(ca: v1::AgentCa) -> Self {
        Self {
            number: ca.number,
            fingerprint: Fingerprint::of(&ca.certificate).to_string(),
            not_after_ms: ca.not_after_ms,
            certificate_pem: certificate_pem(&ca.certificate),
        }
    }
}

impl Show for AgentCaView {
    fn sheet(&self) -> Sheet {
        Sheet::new().facts([
            ("agent CA", self.number.to_string()),
            ("fingerprint", self.fingerprint.clone()),
            ("valid until", time(self.not_after_ms)),
        ])
    }
}

#[derive(Debug, Serialize)]
struct AgentCasView {
    agent_cas: Vec<AgentCaView>,
}

impl Show for AgentCasView {
    fn sheet(&self) -> Sheet {
        let rows = self
            .agent_cas
            .iter()
            .map(|ca| [ca.number.to_string(), ca.fingerprint.clone(), time(ca.not_after_ms)]);
        Sheet::new().table(["agent ca", "fingerprint", "valid until"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(ttl("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(ttl("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(ttl("90s"), Ok(Duration::from_secs(90)));
        for bad in ["", "h", "24", "-1h", "1.5h", "1w", "1é", "99999999999999999999d"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }
}
