//! People and what they may do.

use std::fmt;
use std::str::FromStr;

use super::{FieldError, limits};

/// Text of bounded length without control characters, as names, tickets and reasons carry it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(String);

impl Text {
    /// A name, host name, ticket or the like: at most [`limits::NAME_BYTES`] bytes.
    ///
    /// # Errors
    /// If it is longer or holds a control character; `field` is named.
    pub fn name(field: &'static str, text: impl Into<String>) -> Result<Self, FieldError> {
        Self::bounded(field, text.into(), limits::NAME_BYTES)
    }

    /// Free text: at most [`limits::TEXT_BYTES`] bytes.
    ///
    /// # Errors
    /// If it is longer or holds a control character; `field` is named.
    pub fn free(field: &'static str, text: impl Into<String>) -> Result<Self, FieldError> {
        Self::bounded(field, text.into(), limits::TEXT_BYTES)
    }

    fn bounded(field: &'static str, text: String, most: usize) -> Result<Self, FieldError> {
        if text.len() > most {
            return Err(FieldError::new(
                field,
                format!("has {} bytes, at most {most} are allowed", text.len()),
            ));
        }
        if text.chars().any(char::is_control) {
            return Err(FieldError::new(field, "must not hold control characters"));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of an operator, as in the certificate: 1 to 256 bytes of letters, digits and `.-_@+`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperatorName(String);

impl OperatorName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OperatorName {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let fits = (1..=limits::NAME_BYTES).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_@+".contains(&b));
        if fits && plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(FieldError::new(
                "operator",
                "must be 1 to 256 ASCII letters, digits or any of . - _ @ +",
            ))
        }
    }
}

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user of a device, as the device or the help desk names them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User {
    domain: Text,
    name: Text,
}

impl User {
    /// A user. `domain` may be empty (a local user), `name` may not.
    ///
    /// # Errors
    /// If either is too long or holds control characters, or the name is empty.
    pub fn new(domain: impl Into<String>, name: impl Into<String>) -> Result<Self, FieldError> {
        let user = Self {
            domain: Text::name("user.domain", domain)?,
            name: Text::name("user.name", name)?,
        };
        if user.name.is_empty() {
            return Err(FieldError::new("user.name", "must not be empty"));
        }
        Ok(user)
    }

    /// Windows domain or realm; may be empty.
    pub fn domain(&self) -> &str {
        self.domain.as_str()
    }

    /// Account name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}

/// What an operator may do. Roles are grants in the replicated state, never a property of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Finds and discloses keys; must name the user.
    HelpDesk,
    /// Finds and discloses keys; need not name the user.
    AdvancedHelpDesk,
    /// Reads compliance reports and devices.
    ReportReader,
    /// Reads the audit chain.
    Auditor,
    /// Grants roles and changes the cluster. Reads no keys.
    Administrator,
    /// Imports recovery keys on behalf of devices. Reads nothing.
    DataMigration,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 6] = [
        Self::HelpDesk,
        Self::AdvancedHelpDesk,
        Self::ReportReader,
        Self::Auditor,
        Self::Administrator,
        Self::DataMigration,
    ];

    /// Its name on the command line and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HelpDesk => "help-desk",
            Self::AdvancedHelpDesk => "advanced-help-desk",
            Self::ReportReader => "report-reader",
            Self::Auditor => "auditor",
            Self::Administrator => "administrator",
            Self::DataMigration => "data-migration",
        }
    }

    /// Whether a grant of it may be limited to groups of devices.
    pub const fn may_be_limited(self) -> bool {
        match self {
            Self::HelpDesk | Self::AdvancedHelpDesk | Self::ReportReader | Self::DataMigration => {
                true
            }
            Self::Auditor | Self::Administrator => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            FieldError::new(
                "role",
                "must be help-desk, advanced-help-desk, report-reader, auditor, administrator or \
                 data-migration",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_256_bytes_is_taken_and_one_more_is_refused() {
        assert!(Text::name("ticket", "x".repeat(256)).is_ok());
        assert_eq!(Text::name("ticket", "x".repeat(257)).unwrap_err().field, "ticket");
        assert!("o".repeat(256).parse::<OperatorName>().is_ok());
        assert!("o".repeat(257).parse::<OperatorName>().is_err());
    }

    #[test]
    fn free_text_of_1024_bytes_is_taken_and_one_more_is_refused() {
        assert!(Text::free("reason.text", "x".repeat(1024)).is_ok());
        assert!(Text::free("reason.text", "x".repeat(1025)).is_err());
    }

    #[test]
    fn control_characters_are_refused_so_that_records_stay_one_line_each() {
        assert!(Text::name("host_name", "pc\n1").is_err());
        assert!(User::new("", "").is_err());
        assert!("a/b".parse::<OperatorName>().is_err());
    }
}
