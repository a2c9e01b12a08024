//! Which slots of a volume are ours, and what has become of them.

use super::header::Header;
use super::metadata::{Metadata, Token};
use super::token::{OwnToken, SYSTEMD_TYPE, Stage, bears_mark, read_label};
use crate::agent::volume::{KeyName, Protector, ProtectorType, Standing};

/// A key that we put into a volume, or were about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnKey {
    pub(super) name: KeyName,
    pub(super) slot: u8,
    pub(super) standing: Standing,
    /// The number of our token. A volume that we encrypt has none until that is complete.
    pub(super) token: Option<u8>,
    /// Whether the slot is there and bears the mark of this key, so that it is ours whatever the token says.
    pub(super) marked: bool,
}

impl OwnKey {
    /// The token that it should have.
    pub(super) fn finished_token(&self) -> OwnToken {
        OwnToken { name: self.name, slot: self.slot, stage: Stage::Added }
    }
}

/// All of them.
pub(super) fn keys(metadata: &Metadata, header: &Header) -> Vec<OwnKey> {
    let mut keys: Vec<OwnKey> = Vec::new();
    for (number, token) in metadata.tokens() {
        if let Some(own) = OwnToken::read(token) {
            keys.push(judge(metadata, *number, token, &own));
        }
    }
    // The label of a volume that we encrypt stands for the token of slot 0, until there is one.
    let labelled = read_label(&header.subsystem);
    if let Some(name) = labelled.filter(|name| keys.iter().all(|key| key.name.id != name.id)) {
        let marked = is_marked(metadata, 0, name);
        let converting = metadata.conversion().is_some();
        let standing = if converting { Standing::Present } else { Standing::Unsettled };
        if marked {
            keys.push(OwnKey { name, slot: 0, standing, token: None, marked });
        }
    }
    keys
}

fn is_marked(metadata: &Metadata, slot: u8, name: KeyName) -> bool {
    metadata.keyslots().get(&slot).is_some_and(|slot| bears_mark(slot, name.id))
}

fn judge(metadata: &Metadata, number: u8, token: &Token, own: &OwnToken) -> OwnKey {
    let marked = is_marked(metadata, own.slot, own.name);
    let standing = match (token.keyslots.is_empty(), marked) {
        (false, true) if token.is_for(own.slot) => Standing::Present,
        (false, _) => Standing::Changed,
        (true, true) => Standing::Unsettled,
        (true, false) if own.stage == Stage::Planned => Standing::Unsettled,
        (true, false) => Standing::Gone,
    };
    OwnKey { name: own.name, slot: own.slot, standing, token: Some(number), marked }
}

/// How a volume can be unlocked: a line for each slot, and for each key of ours whose slot is not there.
pub(super) fn protectors(metadata: &Metadata, header: &Header) -> Vec<Protector> {
    let keys = keys(metadata, header);
    let opening = metadata.opening_slots();
    let mut protectors: Vec<Protector> = opening
        .iter()
        .map(|slot| {
            let own = keys.iter().find(|key| key.slot == *slot && key.marked);
            let kind = match own {
                Some(_) => ProtectorType::RecoveryKey,
                None => kind(metadata, *slot),
            };
            Protector { kind, own: own.map(|key| (key.name, key.standing)), slot: Some(*slot) }
        })
        .collect();
    let without = keys.iter().filter(|key| !key.marked);
    protectors.extend(without.map(|key| Protector {
        kind: ProtectorType::RecoveryKey,
        own: Some((key.name, key.standing)),
        slot: None,
    }));
    protectors
}

/// What the token of a slot says about it.
fn kind(metadata: &Metadata, slot: u8) -> ProtectorType {
    let mut tokens = metadata.tokens().values();
    let token = tokens.find(|token| token.keyslots.iter().any(|one| one.get() == u64::from(slot)));
    match token.map(|token| token.kind.as_str()) {
        None => ProtectorType::Passphrase,
        Some(SYSTEMD_TYPE) => ProtectorType::RecoveryKey,
        Some("systemd-tpm2") => ProtectorType::Tpm,
        Some("systemd-fido2") => ProtectorType::Fido2,
        Some("systemd-pkcs11") => ProtectorType::SmartCard,
        Some("clevis") => ProtectorType::Network,
        Some(other) => ProtectorType::Other(other.chars().take(64).collect()),
    }
}
