//! A server's log as it writes it here: one JSON object a line.

use std::fmt;

/// A line of a server's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// "INFO", "WARN", "ERROR".
    pub level: String,
    /// What is said: the same words each time, so that it can be compared.
    pub message: String,
    /// When, as the server's own clock has it.
    pub time: String,
    fields: serde_json::Map<String, serde_json::Value>,
}

/// What every line has, and what says nothing to a person here.
const COMMON: [&str; 6] = ["level", "message", "timestamp", "target", "span", "spans"];

impl Line {
    /// Reads a line; nothing if it is none of the log's own, such as a word of the dynamic linker.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).ok()?;
        let mut take = |name: &str| match fields.remove(name) {
            Some(serde_json::Value::String(text)) => Some(text),
            _ => None,
        };
        let (level, message, time) = (take("level")?, take("message")?, take("timestamp")?);
        fields.retain(|name, _| !COMMON.contains(&name.as_str()));
        Some(Self { level, message, time, fields })
    }

    /// What a field says; empty if there is none.
    pub fn field(&self, name: &str) -> String {
        self.fields.get(name).map(plain).unwrap_or_default()
    }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.level, self.message)?;
        for (name, value) in &self.fields {
            write!(f, " {name}={}", plain(value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_words_its_fields_and_its_time() {
        let text = r#"{"timestamp":"2026-11-24T23:30:00.5Z","level":"WARN","message":"room for the log","low":true,"free_bytes":7,"target":"holdfast::storage"}"#;
        let line = Line::parse(text).unwrap();
        assert_eq!(line.to_string(), "WARN room for the log free_bytes=7 low=true");
        assert_eq!((line.field("low"), line.field("high")), ("true".to_owned(), String::new()));
        assert_eq!(line.time, "2026-11-24T23:30:00.5Z");
        assert_eq!(Line::parse("error: server.toml: no such key"), None);
    }
}
