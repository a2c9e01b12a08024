//! Identifiers. All that are UUIDs are parsed strictly and printed in lower case with dashes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FieldError;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// From a UUID.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// From its 16 bytes in printed order.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// From a slice that must hold 16 bytes.
            ///
            /// # Errors
            /// If the length is another.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, FieldError> {
                Uuid::from_slice(bytes).map(Self).map_err(|_| FieldError::new($field, "must have 16 bytes"))
            }

            /// Its 16 bytes in printed order.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The UUID.
            pub const fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = FieldError;

            /// 32 hexadecimal digits of either case, bare or with dashes in the usual places; nothing else.
            fn from_str(text: &str) -> Result<Self, FieldError> {
                let shape = matches!(text.len(), 32 | 36)
                    && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
                let uuid = shape.then(|| Uuid::try_parse(text).ok()).flatten();
                uuid.map(Self).ok_or_else(|| FieldError::new($field, "must be a UUID of 32 hexadecimal digits"))
            }
        }
    };
}

uuid_id!(
    /// A cluster. Minted by `holdfast pki init`; the trust domain of every certificate.
    ClusterId, "cluster_id"
);
uuid_id!(
    /// An enrolment token, without its secret.
    TokenId, "token_id"
);
uuid_id!(
    /// A client machine: its own UUID, never its host name.
    DeviceId, "device_id"
);
uuid_id!(
    /// A volume: BitLocker's volume GUID or the LUKS UUID.
    VolumeId, "volume_id"
);
uuid_id!(
    /// A recovery key's id: BitLocker's key protector GUID, or the UUID that the agent put into the LUKS2 token. In
    /// printed order, so that the eight digits a user reads off the screen are its first four bytes.
    ProtectorId, "protector_id"
);
uuid_id!(
    /// Made by the client for each write; a retry repeats it.
    RequestId, "request_id"
);
uuid_id!(
    /// One life of a node's data directory. A node that lost its directory comes back as another incarnation.
    Incarnation, "incarnation"
);

impl ProtectorId {
    /// Its first eight digits, which are all that logs may show.
    pub fn prefix(&self) -> KeyIdPrefix {
        let [a, b, c, d, ..] = *self.as_bytes();
        KeyIdPrefix([a, b, c, d])
    }
}

/// The first eight hexadecimal digits of a key id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyIdPrefix([u8; 4]);

impl KeyIdPrefix {
    /// Its four bytes.
    pub const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }

    /// From four bytes.
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for KeyIdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyIdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyIdPrefix {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let mut bytes = [0; 4];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| {
            FieldError::new("key_id_prefix", "must be exactly 8 hexadecimal digits")
        })?;
        Ok(Self(bytes))
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// From a number.
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// A node, counted from 1. Never used again after the node was removed.
    NodeId(u64)
);
number_id!(
    /// An epoch of the escrow key, counted from 1.
    Epoch(u32)
);
number_id!(
    /// Version of a volume's key, counted from 1; 0 stands for "none yet".
    KeyVersion(u32)
);
number_id!(
    /// Milliseconds since the Unix epoch.
    Timestamp(u64)
);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl KeyVersion {
    /// No key was escrowed yet.
    pub const NONE: Self = Self(0);

    /// The version after this one; `None` after 4,294,967,295.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_parsed_strictly_and_printed_in_lower_case() {
        let id: DeviceId = "8C9D0E1F-2A3B-4C5D-6E7F-8091A2B3C4D5".parse().unwrap();
        assert_eq!(id.to_string(), "8c9d0e1f-2a3b-4c5d-6e7f-8091a2b3c4d5");
        assert_eq!("8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5".parse::<DeviceId>().unwrap(), id);
        for bad in [
            "",
            "8c9d",
            "{8c9d0e1f-2a3b-4c5d-6e7f-8091a2b3c4d5}",
            "urn:uuid:8c9d0e1f-2a3b-4c5d-6e7f-8091a2b3c4d5",
            "8c9d0e1f-2a3b-4c5d-6e7f-8091a2b3c4d",
            "8c9d0e1f-2a3b-4c5d-6e7f-8091a2b3c4dg",
        ] {
            let error = bad.parse::<DeviceId>().unwrap_err();
            assert_eq!(error.field, "device_id", "{bad}");
        }
    }

    #[test]
    fn a_key_id_prefix_is_exactly_eight_hexadecimal_digits() {
        let id: ProtectorId = "1854c11f-6b44-08b0-91db-121a2fbf9ac0".parse().unwrap();
        assert_eq!(id.prefix().to_string(), "1854c11f");
        assert_eq!("1854C11F".parse::<KeyIdPrefix>().unwrap(), id.prefix());
        for bad in ["", "1854c11", "1854c11f6", "1854c11g", "1854-c11", "１854c11f"] {
            assert!(bad.parse::<KeyIdPrefix>().is_err(), "{bad}");
        }
    }
}
