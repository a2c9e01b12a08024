//! How a command ends: its exit code, and one line that says what went wrong and what to do.

use std::fmt;
use std::process::ExitCode;

use super::pki::PkiError;
use crate::client::{ClientError, ErrorKind, with_causes};
use crate::domain::FieldError;

/// Exit codes. Scripts rely on them; they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed for a reason that has no code of its own.
    Failed = 1,
    /// The command line or a value on it is wrong.
    Usage = 2,
    /// No server answered, there is no quorum or no leader, or a quota is used up: try again later.
    Unavailable = 3,
    /// The thing asked for doesn't exist.
    NotFound = 4,
    /// The caller may not do this.
    Denied = 5,
    /// The state is another than expected.
    Conflict = 6,
    /// Part of it worked: some member didn't answer.
    Partial = 7,
}

impl Exit {
    /// Its name in JSON.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Partial => "partial",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct CliError {
    exit: Exit,
    what: String,
    /// The servers' reason, such as `UNKNOWN_KEY`; empty if it did not come from one.
    reason: String,
}

impl CliError {
    /// A failure with its exit code.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), reason: String::new() }
    }

    /// A failure without a code of its own.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    /// A value on the command line is wrong.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// The error for a program: one line of JSON.
    pub(super) fn to_json(&self) -> String {
        let error = serde_json::json!({
            "exit_code": self.exit as u8,
            "kind": self.exit.as_str(),
            "message": self.what,
            "reason": self.reason,
        });
        serde_json::json!({ "error": error }).to_string()
    }

    /// Says more about what to do.
    pub(super) fn add(&mut self, advice: String) {
        self.what = format!("{}; {advice}", self.what);
    }

    /// The servers' reason; empty if it did not come from one.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// How the command ends.
    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for CliError {}

impl From<FieldError> for CliError {
    fn from(error: FieldError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            // A file that was named on the command line or by a variable.
            ClientError::File { .. } => Exit::Usage,
            _ => exit_of(error.kind()),
        };
        let what = match advice(&error) {
            Some(advice) => format!("{error}; {advice}"),
            None => error.to_string(),
        };
        Self { exit, what, reason: error.reason().to_owned() }
    }
}

impl From<PkiError> for CliError {
    fn from(error: PkiError) -> Self {
        let exit = match &error {
            PkiError::Field(_) => Exit::Usage,
            PkiError::Exists(_) | PkiError::NotEmpty(_) => Exit::Conflict,
            PkiError::NoPki(_) => Exit::NotFound,
            PkiError::Io { .. }
            | PkiError::ClusterFile { .. }
            | PkiError::NewerFormat { .. }
            | PkiError::KeyMode { .. }
            | PkiError::KeyContent(_)
            | PkiError::Certificate(_)
            | PkiError::Authorities(_)
            | PkiError::CaExpired(_)
            | PkiError::Make(_) => Exit::Failed,
        };
        Self::new(exit, with_causes(&error))
    }
}

/// The exit code of each kind of failure.
pub const fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Exhausted => Exit::Unavailable,
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::Denied => Exit::Denied,
        ErrorKind::Conflict => Exit::Conflict,
        ErrorKind::Invalid => Exit::Usage,
        ErrorKind::Integrity | ErrorKind::Internal => Exit::Failed,
    }
}

/// What to do about it, where the message alone doesn't say.
fn advice(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Unreachable { outcome_unknown: false, .. } => {
            Some("check --addr (HOLDFAST_ADDR) and that a majority of the servers runs")
        }
        ClientError::Unreachable { outcome_unknown: true, .. } => Some(
            "look whether it was before you repeat it; check --addr (HOLDFAST_ADDR) and that a majority of the servers runs",
        ),
        ClientError::IdentityRefused { .. } => Some(
            "use a certificate that `holdfast pki issue` made for this cluster and that has not expired",
        ),
        ClientError::Receipt(_) => Some("don't use the key for encryption; escrow it again"),
        ClientError::Refused(refusal) => match refusal.kind {
            ErrorKind::Denied
                if ["ROLE_MISSING", "NOT_GRANTED"].contains(&refusal.reason.as_str()) =>
            {
                Some("an administrator grants roles with `holdfast grant add NAME ROLE`")
            }
            ErrorKind::Denied if refusal.reason == "OUTSIDE_GROUPS" => Some(
                "check the digits; an administrator widens the grant with `holdfast grant add NAME ROLE --group GROUP`, or puts the device into a group with `holdfast device group add`",
            ),
            ErrorKind::Invalid
                if refusal.fields.iter().any(|(field, _)| field == "reason.code") =>
            {
                Some("`holdfast key reasons` lists the codes")
            }
            ErrorKind::Conflict if refusal.reason == "CLUSTER_NOT_INITIALISED" => {
                Some("make the cluster with `holdfast cluster init`")
            }
            ErrorKind::Exhausted if refusal.retry_after.is_some() => Some("try again later"),
            ErrorKind::Exhausted
            | ErrorKind::Denied
            | ErrorKind::Unavailable
            | ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Invalid
            | ErrorKind::Integrity
            | ErrorKind::Internal => None,
        },
        ClientError::ServerNotTrusted { .. }
        | ClientError::File { .. }
        | ClientError::Field(_)
        | ClientError::Format(_)
        | ClientError::Seal(_)
        | ClientError::EscrowKey(_)
        | ClientError::AuditChain(_)
        | ClientError::Answer(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_documented_exit_code() {
        let codes = [
            (ErrorKind::Unavailable, 3),
            (ErrorKind::Exhausted, 3),
            (ErrorKind::NotFound, 4),
            (ErrorKind::Denied, 5),
            (ErrorKind::Conflict, 6),
            (ErrorKind::Invalid, 2),
            (ErrorKind::Integrity, 1),
            (ErrorKind::Internal, 1),
        ];
        for (kind, code) in codes {
            assert_eq!(exit_of(kind) as u8, code, "{}", kind.as_str());
        }
        assert_eq!(Exit::Partial as u8, 7);
    }
}
