//! How a key slot is known to be ours: our token, the mark in the slot itself, and the label of a header that has no token yet.
//!
//! `docs/agent.md` lays all three down.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::metadata::{Keyslot, Token};
use crate::agent::volume::KeyName;
use crate::domain::{KeyVersion, ProtectorId};

/// The type of our token.
pub(super) const OWN_TYPE: &str = "holdfast-recovery";
/// The type of systemd's token for a recovery key.
pub(super) const SYSTEMD_TYPE: &str = "systemd-recovery";
/// Version of our token's format.
const FORMAT: u32 = 1;
/// The hash that our slots derive with.
pub(super) const PBKDF_HASH: &str = "sha512";
/// Fewest iterations that LUKS2 allows. A recovery key has 256 bits: no derivation makes it harder to guess.
const LEAST_ITERATIONS: u32 = 1000;
/// Begins the label of a header that we have made.
const LABEL: &str = "hf:";

/// Whether the slot of a token has been seen with a key in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// Written before the key is added.
    Planned,
    /// The key was added.
    Added,
}

/// Our token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnToken {
    pub(super) name: KeyName,
    /// The slot that it was made for.
    pub(super) slot: u8,
    pub(super) stage: Stage,
}

/// What of our token only we understand.
#[derive(Deserialize)]
struct Fields {
    format: u32,
    escrow_id: ProtectorId,
    version: KeyVersion,
    slot: u8,
    stage: Stage,
}

impl OwnToken {
    /// Reads one. `None` if it is of another type, or of a format that is not known: then it is left alone.
    pub(super) fn read(token: &Token) -> Option<Self> {
        if token.kind != OWN_TYPE {
            return None;
        }
        let fields: Fields = serde_json::from_value(Value::Object(token.rest.clone())).ok()?;
        (fields.format == FORMAT).then_some(Self {
            name: KeyName { id: fields.escrow_id, version: fields.version },
            slot: fields.slot,
            stage: fields.stage,
        })
    }

    /// As cryptsetup takes it. A token that is planned names no slot: cryptsetup allows none that is empty.
    pub(super) fn json(&self) -> Value {
        let slots: Vec<String> = match self.stage {
            Stage::Planned => Vec::new(),
            Stage::Added => vec![self.slot.to_string()],
        };
        json!({
            "type": OWN_TYPE,
            "keyslots": slots,
            "format": FORMAT,
            "escrow_id": self.name.id,
            "version": self.name.version,
            "slot": self.slot,
            "stage": self.stage,
        })
    }
}

/// The token that systemd-cryptenroll writes for a recovery key.
pub(super) fn systemd_token(slot: u8) -> Value {
    json!({ "type": SYSTEMD_TYPE, "keyslots": [slot.to_string()] })
}

/// The mark: how many iterations the slot of this key derives with. It tells a slot that we have filled from one that somebody
/// else has filled meanwhile, when nothing else does (the agent ended between adding the key and saying so).
pub(super) fn mark(id: ProtectorId) -> u32 {
    let [.., a, b, c] = *id.as_bytes();
    LEAST_ITERATIONS.saturating_add(u32::from_be_bytes([0, a & 1, b, c]))
}

/// Whether a slot bears the mark of this key.
pub(super) fn bears_mark(slot: &Keyslot, id: ProtectorId) -> bool {
    slot.kdf.as_ref().is_some_and(|kdf| {
        kdf.kind == "pbkdf2"
            && kdf.hash.as_deref() == Some(PBKDF_HASH)
            && kdf.iterations == Some(u64::from(mark(id)))
    })
}

/// The label of a header with this key in slot 0: while a volume is being encrypted, it takes no token.
pub(super) fn label(name: KeyName) -> String {
    format!("{LABEL}{}:{}", name.id.uuid().simple(), name.version)
}

/// The key that a label names.
pub(super) fn read_label(label: &str) -> Option<KeyName> {
    let (id, version) = label.strip_prefix(LABEL)?.split_once(':')?;
    let version = KeyVersion::new(version.parse().ok()?);
    Some(KeyName { id: id.parse().ok()?, version })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> KeyName {
        let id = "1854c11f-6b44-48b0-91db-121a2ffffffe".parse().unwrap();
        KeyName { id, version: KeyVersion::new(u32::MAX) }
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_a_foreign_one_is_left_alone() {
        for stage in [Stage::Planned, Stage::Added] {
            let own = OwnToken { name: name(), slot: 31, stage };
            let token: Token = serde_json::from_value(own.json()).unwrap();
            assert_eq!(token.keyslots.len(), usize::from(stage == Stage::Added));
            assert_eq!(OwnToken::read(&token), Some(own));
        }
        let mut newer = OwnToken { name: name(), slot: 31, stage: Stage::Added }.json();
        newer["format"] = 2.into();
        assert_eq!(OwnToken::read(&serde_json::from_value(newer).unwrap()), None);
        let systemds: Token = serde_json::from_value(systemd_token(3)).unwrap();
        assert_eq!(OwnToken::read(&systemds), None);
    }

    #[test]
    fn a_mark_is_cheap_to_derive_with_and_depends_on_the_id() {
        assert_eq!(mark(name().id), 1000 + 0x1_fffe);
        assert_eq!(mark(ProtectorId::from_bytes([0; 16])), 1000);
    }

    #[test]
    fn the_longest_label_fits_into_a_header_and_is_read_back() {
        let longest = label(name());
        assert!(longest.len() < 48, "{longest}");
        assert_eq!(read_label(&longest), Some(name()));
        for none in ["", "hf:", "hf:1854c11f:1", "x:1854c11f6b4448b091db121a2ffffffe:1"] {
            assert_eq!(read_label(none), None, "{none}");
        }
    }
}
