//! Logs on stderr, as text or as JSON lines.
//!
//! A log line never carries a payload, a secret, or more than the first eight digits of a key id. Logs are not the audit
//! record.

use std::cell::Cell;
use std::io::{self, Write};
use std::str::FromStr;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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
    /// A word stands alone and is no level: taken for the name of a module, it would silence everything else.
    #[error(
        "log.level: {0:?} is no level (off, error, warn, info, debug, trace); of a part of the program \
         it is written as in 'info,holdfast::raft=debug'"
    )]
    Level(String),
    /// A subscriber was installed before.
    #[error("logging is already set up: {0}")]
    Installed(String),
}

/// A bare level is one for our own lines; libraries that say more than an operator can use are held to `quieter` then. A filter
/// is taken as it is.
fn filter(level: &str, quieter: &str) -> Result<EnvFilter, TelemetryError> {
    let mut words = level.split(',').map(str::trim);
    if let Some(word) = words.find(|word| {
        !word.contains('=') && (word.is_empty() || word.parse::<LevelFilter>().is_err())
    }) {
        return Err(TelemetryError::Level(word.to_owned()));
    }
    let bare = level.parse::<LevelFilter>().is_ok_and(|level| level >= LevelFilter::WARN);
    let text = if bare { format!("{level},{quieter}") } else { level.to_owned() };
    EnvFilter::try_new(text).map_err(TelemetryError::Filter)
}

/// Checks a level such as `info`, or a filter such as `info,holdfast::raft=debug`.
///
/// # Errors
/// If it can't be read.
pub fn check_filter(level: &str) -> Result<(), TelemetryError> {
    filter(level, "").map(drop)
}

/// Sends logs of the whole process to stderr, once. `quieter` is a filter for libraries, which counts at a bare level.
///
/// # Errors
/// If the filter can't be read, or logging was set up before.
pub fn init(format: LogFormat, level: &str, quieter: &str) -> Result<(), TelemetryError> {
    let filter = filter(level, quieter)?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Gate(io::stderr()));
    let installed = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
    };
    installed.map_err(|error| TelemetryError::Installed(error.to_string()))
}

/// Whether the last word is being said: then only the thread that says it is heard.
static LAST_WORD: Mutex<bool> = Mutex::new(false);

thread_local! {
    static SAYS_IT: Cell<bool> = const { Cell::new(false) };
}

/// Says why the process ends. Whatever other threads log from now on, while they break off, is dropped, so that the log ends
/// with its reason.
pub fn last_word(say: impl FnOnce()) {
    SAYS_IT.set(true);
    *LAST_WORD.lock() = true;
    say();
}

/// Lets lines through until the last word. Each is written in one piece, under the lock.
struct Gate<W>(W);

impl<W: Write> Write for Gate<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let ending = LAST_WORD.lock();
        if *ending && !SAYS_IT.get() {
            return Ok(line.len());
        }
        self.0.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_is_heard_after_the_last_word() {
        let mut lines = Gate(Vec::new());
        // In a thread of its own: what it says here must not be said by the tests' others.
        let said = std::thread::spawn(|| {
            let mut lines = Gate(Vec::new());
            last_word(|| lines.write_all(b"why").unwrap());
            lines.0
        });
        assert_eq!(said.join().unwrap(), b"why");
        lines.write_all(b"openraft: gone").unwrap();
        assert!(lines.0.is_empty());
        *LAST_WORD.lock() = false;
        lines.write_all(b"as ever").unwrap();
        assert_eq!(lines.0, b"as ever");
    }

    #[test]
    fn a_bare_level_quiets_libraries_and_a_filter_is_taken_as_it_is() {
        let filtered = |level| filter(level, "openraft=error").unwrap().to_string();
        assert_eq!(filtered("info"), "openraft=error,info");
        assert_eq!(filtered("warn"), "openraft=error,warn");
        assert_eq!(filtered("error"), "error");
        assert_eq!(filtered("info,openraft=info"), "openraft=info,info");
        assert!(check_filter("a=b=c").is_err());
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_and_does_not_silence_the_log() {
        for typo in ["infoo", "", "info,hodlfast", "inf,holdfast=debug"] {
            assert!(matches!(check_filter(typo), Err(TelemetryError::Level(_))), "{typo}");
        }
        for level in ["off", "INFO", "info,holdfast::raft=debug"] {
            check_filter(level).unwrap();
        }
    }
}
