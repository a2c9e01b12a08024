//! `holdfast config`: checks or shows a server's configuration.

use serde::Serialize;

use super::Done;
use super::exit::{CliError, Exit};
use super::output::{Format, Printer, Sheet, Show};
use crate::client::with_causes;
use crate::server::Credentials;
use crate::server::config::{Config, Sources};

/// What to do with the configuration.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Check it and the files that it names, as the server does at start, and say what is wrong
    Check(Box<Sources>),
    /// Print what is in effect: flags over environment over file over defaults. Secrets are named by path only
    Show(Box<Sources>),
}

/// What a check found; if there is a fault, it is the error instead.
#[derive(Serialize)]
struct ValidView {
    valid: bool,
    node_id: u64,
}

impl Show for ValidView {
    fn sheet(&self) -> Sheet {
        Sheet::new().line(format!("the configuration of node {} is valid", self.node_id))
    }
}

pub(super) fn run(command: ConfigCommand, printer: Printer) -> Done {
    match command {
        ConfigCommand::Check(sources) => {
            let config = load(*sources)?;
            // Just what the server does with them before it starts.
            Credentials::load(&config).map_err(|error| CliError::usage(with_causes(&error)))?;
            printer.print(&ValidView { valid: true, node_id: config.node_id.get() })?;
        }
        ConfigCommand::Show(sources) => {
            let config = load(*sources)?;
            let text = match printer.format() {
                Format::Table => config.to_toml().map_err(|error| error.to_string()),
                Format::Json => serde_json::to_string_pretty(&config)
                    .map(|json| format!("{json}\n"))
                    .map_err(|error| error.to_string()),
            };
            printer.raw(text.map_err(CliError::failed)?.as_bytes())?;
        }
    }
    Ok(Exit::Ok)
}

fn load(sources: Sources) -> Result<Config, CliError> {
    sources.load().map_err(|error| CliError::usage(error.to_string()))
}
