//! The one error of bad input: it names the field.

use std::borrow::Cow;

/// A field of a request is not well-formed. `what` never repeats the value of a secret field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {what}")]
pub struct FieldError {
    /// Name of the field as in the API, with a path where it is nested, such as `users[3].name`.
    pub field: Cow<'static, str>,
    /// What is wrong with it and what would be right, for a person.
    pub what: Cow<'static, str>,
}

impl FieldError {
    /// A fault of `field`.
    pub fn new(field: impl Into<Cow<'static, str>>, what: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), what: what.into() }
    }
}
