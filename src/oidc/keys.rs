//! The public keys of a provider (JWKS, RFC 7517).

use std::collections::BTreeMap;

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// Most keys of a provider: two or three are usual.
const KEYS: usize = 100;

/// Why a provider's keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// It is no set of keys.
    #[error("this is no set of keys: {0}")]
    Json(#[from] serde_json::Error),
    /// There are too many.
    #[error("there are {0} keys, at most {KEYS} are read")]
    TooMany(usize),
    /// None of them is of use.
    #[error("no key in it has an id (kid) and is for signatures by RSA, EC or EdDSA")]
    NoneUsable,
}

/// A public key.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) decoding: DecodingKey,
    pub(super) family: AlgorithmFamily,
    /// The only algorithm that it is for, if it says so.
    pub(super) algorithm: Option<KeyAlgorithm>,
}

/// A provider's keys by their ids.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: BTreeMap<String, Key>,
}

impl KeySet {
    /// Reads a set. Keys that are not for signatures, are of a kind that is not known, or have no id of their own, are passed
    /// over; so are secrets: a key that whoever checks could sign with proves nothing.
    ///
    /// # Errors
    /// If it is no set, or no key is left.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(bytes)?;
        if set.keys.len() > KEYS {
            return Err(KeySetError::TooMany(set.keys.len()));
        }
        let mut keys = BTreeMap::new();
        for (id, key) in set.keys.into_iter().filter_map(usable) {
            // Two of one id: none of them can be what a token means by it.
            keys.entry(id).and_modify(|known| *known = None).or_insert(Some(key));
        }
        let keys: BTreeMap<_, _> =
            keys.into_iter().filter_map(|(id, key)| Some((id, key?))).collect();
        if keys.is_empty() { Err(KeySetError::NoneUsable) } else { Ok(Self { keys }) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none, which never is so.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.keys.get(id)
    }
}

fn usable(value: Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let id = jwk.common.key_id.clone().filter(|id| !id.is_empty())?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    let family = decoding.family();
    let algorithm = jwk.common.key_algorithm;
    (family != AlgorithmFamily::Hmac).then_some((id, Key { decoding, family, algorithm }))
}
