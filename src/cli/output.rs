//! The one printer: results go to stdout as a table for a person or as JSON for a program, progress to stderr.
//!
//! A command builds one value that knows both forms; it never writes to stdout itself.

use std::io::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::exit::CliError;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For a person.
    #[default]
    Table,
    /// For a program: one JSON value.
    Json,
}

/// A result that can be shown as a table and serialised as JSON.
pub trait Show: Serialize {
    /// The form for a person.
    fn sheet(&self) -> Sheet;
}

/// Text for a person: tables, facts and lines, one below the other.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    text: String,
}

impl Sheet {
    /// An empty sheet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a line of text.
    #[must_use]
    pub fn line(mut self, line: impl AsRef<str>) -> Self {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
        self
    }

    /// With a table. `header` and all rows have equally many cells.
    #[must_use]
    pub fn table<const N: usize>(
        self,
        header: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> Self {
        let mut table = plain_table();
        table.set_header(header.map(|name| name.to_uppercase()));
        for row in rows {
            table.add_row(row);
        }
        self.lines(&table)
    }

    /// With names and values, one pair on a line.
    #[must_use]
    pub fn facts<const N: usize>(self, facts: [(&str, String); N]) -> Self {
        let mut table = plain_table();
        for (name, value) in facts {
            table.add_row([name.to_owned(), value]);
        }
        self.lines(&table)
    }

    fn lines(mut self, table: &Table) -> Self {
        for line in table.lines() {
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
        self
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Prints results and progress.
#[derive(Debug, Clone, Copy, Default)]
pub struct Printer {
    format: Format,
}

impl Printer {
    /// A printer of a format.
    pub const fn new(format: Format) -> Self {
        Self { format }
    }

    /// The format.
    pub const fn format(self) -> Format {
        self.format
    }

    /// Prints a result to stdout.
    ///
    /// # Errors
    /// If stdout can't be written; that its reader went away is no error.
    pub fn print(self, result: &impl Show) -> Result<(), CliError> {
        match self.format {
            Format::Table => self.raw(result.sheet().as_str().as_bytes()),
            Format::Json => {
                let json = serde_json::to_string_pretty(result);
                let json = json.map_err(|e| CliError::failed(format!("making JSON: {e}")))?;
                self.raw(format!("{json}\n").as_bytes())
            }
        }
    }

    /// Writes bytes to stdout as they are.
    ///
    /// # Errors
    /// If stdout can't be written; that its reader went away is no error.
    pub fn raw(self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(CliError::failed(format!("writing to stdout: {error}")))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes a line of progress to stderr. What can't be written is lost: there is nowhere to say so.
    pub fn progress(self, line: impl AsRef<str>) {
        let mut stderr = std::io::stderr().lock();
        drop(writeln!(stderr, "{}", line.as_ref()));
    }
}

/// A point in time for a person: RFC 3339 in UTC, to the second; a dash for 0.
pub(super) fn time(ms: u64) -> String {
    if ms == 0 {
        return "-".to_owned();
    }
    let stamp = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| "-".to_owned(), |stamp| stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A text, or a dash if it is empty.
pub(super) fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_header_and_no_trailing_blanks() {
        let sheet = Sheet::new().table(["a", "long name"], [["x".to_owned(), "y".to_owned()]]);
        let lines: Vec<_> = sheet.as_str().lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("LONG NAME"));
        assert!(lines.iter().all(|line| line.trim_end() == *line));
    }

    #[test]
    fn times_are_utc_and_zero_is_a_dash() {
        assert_eq!(time(0), "-");
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20Z");
    }
}
