//! Whom an enrolment token is for.

use std::fmt;

use super::{DeviceId, FieldError, GroupName, limits};

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
    fn a_token_lets_in_a_number_of_devices_within_limits() {
        let name: GroupName = "berlin".parse().unwrap();
        assert_eq!(TokenBinding::group(name.clone(), 100_000).unwrap().count(), 100_000);
        for bad in [0, 100_001, u32::MAX] {
            assert_eq!(TokenBinding::group(name.clone(), bad).unwrap_err().field, "count");
        }
    }
}
