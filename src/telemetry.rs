//! Logs on stderr, as text or as JSON lines.
//!
//! A log line never carries a payload, a secret, or more than the first eight digits of a key id. Logs are not the audit
//! record.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be text or json".to_owned()),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level or filter can't be read.
    #[error("log.level: {0}")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// A subscriber was installed before.
    #[error("logging is already set up: {0}")]
    Installed(String),
}

/// Checks a level such as `info`, or a filter such as `info,holdfast::raft=debug`.
///
/// # Errors
/// If it can't be read.
pub fn check_filter(level: &str) -> Result<(), TelemetryError> {
    EnvFilter::try_new(level).map(drop).map_err(TelemetryError::Filter)
}

/// Sends logs of the whole process to stderr, once.
///
/// # Errors
/// If the filter can't be read, or logging was set up before.
pub fn init(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(level).map_err(TelemetryError::Filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
    };
    installed.map_err(|error| TelemetryError::Installed(error.to_string()))
}
