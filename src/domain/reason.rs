//! Why a key is disclosed: the reasons of MBAM's Drive Recovery form.

use super::{FieldError, Text};

/// A reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasonCode {
    /// Its name in requests and records.
    pub code: &'static str,
    /// Its text for a person.
    pub title: &'static str,
    /// Whether free text has to come with it.
    pub text_required: bool,
}

const fn plain(code: &'static str, title: &'static str) -> ReasonCode {
    ReasonCode { code, title, text_required: false }
}

/// The reasons, in the order of MBAM's form.
pub const REASONS: [ReasonCode; 9] = [
    plain("OS_BOOT_ORDER_CHANGED", "Operating system boot order changed"),
    plain("BIOS_CHANGED", "BIOS changed"),
    plain("OS_FILES_CHANGED", "Operating system files changed"),
    plain("LOST_STARTUP_KEY", "Lost startup key"),
    plain("LOST_PIN", "Lost PIN"),
    plain("TPM_RESET", "TPM reset"),
    plain("LOST_PASSPHRASE", "Lost passphrase"),
    plain("LOST_SMARTCARD", "Lost smartcard"),
    ReasonCode { code: "OTHER", title: "Other", text_required: true },
];

/// A reason that was given: a known code, or free text, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    code: &'static str,
    text: Text,
}

impl Reason {
    /// A reason. An empty code with text stands for `OTHER`.
    ///
    /// # Errors
    /// If the code is unknown, if `OTHER` comes without text, or if the text is too long.
    pub fn new(code: &str, text: impl Into<String>) -> Result<Self, FieldError> {
        let text = Text::free("reason.text", text)?;
        let code = if code.is_empty() { "OTHER" } else { code };
        let known = REASONS.iter().find(|reason| reason.code == code).ok_or_else(|| {
            FieldError::new("reason.code", "is not one of the codes that ListReasons names")
        })?;
        if known.text_required && text.as_str().trim().is_empty() {
            return Err(FieldError::new(
                "reason",
                "a reason is required: give a code, or say why in words",
            ));
        }
        Ok(Self { code: known.code, text })
    }

    /// The code.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// The text; may be empty unless the code is `OTHER`.
    pub fn text(&self) -> &str {
        self.text.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disclosure_without_a_reason_is_refused() {
        assert_eq!(Reason::new("", "").unwrap_err().field, "reason");
        assert_eq!(Reason::new("OTHER", "  ").unwrap_err().field, "reason");
        assert_eq!(Reason::new("BECAUSE", "x").unwrap_err().field, "reason.code");
    }

    #[test]
    fn a_code_or_words_are_enough() {
        assert_eq!(Reason::new("LOST_PIN", "").unwrap().code(), "LOST_PIN");
        assert_eq!(Reason::new("", "mainboard swapped").unwrap().code(), "OTHER");
    }
}
