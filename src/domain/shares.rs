//! A root key that is split into shares: how many there are, how many open it, and which splitting they are of.

use std::fmt;

use super::{FieldError, limits};

/// Names one splitting of the root key. Random, so that shares of two splittings are never taken for one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareSetId([u8; 8]);

impl ShareSetId {
    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// From as many bytes as it has.
    ///
    /// # Errors
    /// If there are not 8 of them.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, FieldError> {
        bytes.try_into().map(Self).map_err(|_| FieldError::new("share_set", "must have 8 bytes"))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for ShareSetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A splitting of the root key. Nothing of it is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareSet {
    id: ShareSetId,
    shares: u8,
    threshold: u8,
}

impl ShareSet {
    /// `threshold` of `shares` open the root key.
    ///
    /// # Errors
    /// If there are more shares than [`limits::KEY_SHARES`], or the threshold is less than
    /// [`limits::LEAST_KEY_THRESHOLD`] or more than there are shares.
    pub fn new(id: ShareSetId, shares: u8, threshold: u8) -> Result<Self, FieldError> {
        if shares > limits::KEY_SHARES {
            let what = format!("must be at most {}", limits::KEY_SHARES);
            return Err(FieldError::new("key_shares", what));
        }
        if threshold < limits::LEAST_KEY_THRESHOLD || threshold > shares {
            let what = "must be 2 or more, and no more than there are shares";
            return Err(FieldError::new("key_threshold", what));
        }
        Ok(Self { id, shares, threshold })
    }

    /// Which splitting it is.
    pub const fn id(&self) -> ShareSetId {
        self.id
    }

    /// How many shares there are, numbered from 1.
    pub const fn shares(&self) -> u8 {
        self.shares
    }

    /// How many of them open the root key.
    pub const fn threshold(&self) -> u8 {
        self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_at_least_two_and_never_more_than_there_are_shares() {
        let id = ShareSetId::from_bytes([7; 8]);
        for (shares, threshold) in [(2, 2), (5, 3), (32, 32)] {
            assert!(ShareSet::new(id, shares, threshold).is_ok(), "{threshold} of {shares}");
        }
        for (shares, threshold, field) in
            [(5, 1, "threshold"), (5, 0, "threshold"), (3, 4, "threshold"), (33, 3, "shares")]
        {
            let error = ShareSet::new(id, shares, threshold).unwrap_err();
            assert_eq!(error.field, format!("key_{field}"), "{threshold} of {shares}");
        }
    }
}
