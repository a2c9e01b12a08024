//! Whom an enrolment token is for.

use std::fmt;
use std::str::FromStr;

use super::{DeviceId, FieldError, limits};

/// Longest name of a group, in bytes.
const GROUP_BYTES: usize = 64;

/// Name of a group of devices: letters, digits and any of `. - _`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(String);

impl GroupName {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GroupName {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        if (1..=GROUP_BYTES).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FieldError::new("group", "must be 1 to 64 letters, digits and any of . - _"))
        }
    }
}

/// Whom an enrolment token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenBinding {
    /// One device, once.
    Device(DeviceId),
    /// Any devices, so many of them.
    Group {
        /// What their records carry.
        name: GroupName,
        /// How many.
        count: u32,
    },
}

impl TokenBinding {
    /// A group of so many devices.
    ///
    /// # Errors
    /// If there are none or too many.
    pub fn group(name: GroupName, count: u32) -> Result<Self, FieldError> {
        if (1..=limits::TOKEN_COUNT).contains(&count) {
            Ok(Self::Group { name, count })
        } else {
            Err(FieldError::new("count", format!("must be 1 to {}", limits::TOKEN_COUNT)))
        }
    }

    /// How many devices may enrol.
    pub const fn count(&self) -> u32 {
        match self {
            Self::Device(_) => 1,
            Self::Group { count, .. } => *count,
        }
    }
}

impl fmt::Display for TokenBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device) => write!(f, "device {device}"),
            Self::Group { name, count } => write!(f, "{count} devices of group {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_a_name_that_needs_no_quoting_and_a_count_within_limits() {
        let name: GroupName = "Berlin.2-floor_3".parse().unwrap();
        assert_eq!(name.to_string(), "Berlin.2-floor_3");
        for bad in ["", "two words", "a/b", "ä", "line\n", &"x".repeat(65)] {
            assert_eq!(bad.parse::<GroupName>().unwrap_err().field, "group", "{bad:?}");
        }
        assert_eq!(TokenBinding::group(name.clone(), 100_000).unwrap().count(), 100_000);
        for bad in [0, 100_001, u32::MAX] {
            assert_eq!(TokenBinding::group(name.clone(), bad).unwrap_err().field, "count");
        }
    }
}
